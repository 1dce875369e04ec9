"""A source of one's own, and its two small tables, with all that such a file may say."""

import dataclasses

import polars as pl

from uem_t5x.base import progress
from uem_t5x.data import source_files, source_items, source_joining
from uem_t5x.data.source_interactions import Interactions

SOURCE = """
[items]
files = "things.csv"
id = "sku"
title = ["name", "alias"]
classes = "tags"
class_separator = ";"
columns.about = ["text", "alias"]
otherwise.about = "Nothing is said."

[interactions]
files = "bought*.csv"
separator = ";"
user = "who"
item = "what"
time = "when"
value = "score"
none = ["?"]
[interactions.stars]
0 = 0.5
10 = 5
loved = 5

[[channels]]
name = "thing"
text = "{title}: {classes}"

[[channels]]
name = "score"
text = "{value} of 10, {stars} stars"

[[channels]]
name = "about"
text = "{about}"

[labels]
question = "What is it?"
classes = 2
min_count = 1
most = 1
liked_above = 3
disliked_below = 2.5
user = "They"
likes = "want"
dislikes = "avoid"
no_taste = "They want it all."
"""
THINGS = """sku,name,alias,tags,text
a1,Lamp,,Light;Home,It shines.
a2,,Old lamp,light; Home ;Rare,
a3,Chair,,Home,
a4,,,Home,Lost.
"""
BOUGHT = """who;what;when;score
u2;a1;2020-01-02 03:04:05;loved
u1;a3;2020-01-03;7.4
u1;a1;2020-01-01T00:00:00Z;0
u1;a2;1577836801;?
u2;a2;2020-01-01;10
u2;a2;2020-01-04;5
u1;zz;2020-01-05;5
"""


def write(folder):
    """Writes the source and its tables into a folder."""
    (folder / "things.csv").write_text(THINGS)
    (folder / "bought1.csv").write_text(BOUGHT)
    (folder / "mine.toml").write_text(SOURCE)
    return folder


def read(data, **changes):
    source = SOURCE
    for old, new in changes.values():
        assert old in source
        source = source.replace(old, new)
    (data / "mine.toml").write_text(source)
    return source_files.read_source(str(data / "mine.toml"))


@dataclasses.dataclass
class Tables:
    """What a source's tables hold, before they are joined."""

    items: pl.DataFrame
    interactions: pl.DataFrame
    counts: dict
    worth: dict
    repeated: int


def tables(source, data):
    """Reads the tables of a source."""
    items, repeated = source_items.read(source, data, source_items.find(source, data), {})
    reader = Interactions(data, source.interactions, source.telling.scale)
    frames = list(reader.read(progress.unseen("reading", None)))
    return Tables(items, pl.concat(frames), dict(reader.counts), reader.worth, repeated)


def histories(source, data):
    """Returns every user's items and half-stars."""
    joined = source_joining.read_source(source, data, 1)
    ids = joined.movies["movieId"].to_list()
    found = {}
    for user, row, half_stars in pl.concat(joined.ratings).rows():
        found.setdefault(user, []).append((ids[row], half_stars))
    return found
