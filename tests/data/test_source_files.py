"""Sources of one's own: what they say, and what is refused in one line."""

import dataclasses
import json

import own_source
import polars as pl
import pytest
from own_source import BOUGHT, THINGS, histories, read, tables

from uem_t5x import cli
from uem_t5x.base.errors import InputError
from uem_t5x.data import source_joining
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.options import PrepareOptions
from uem_t5x.data.prepare import prepare
from uem_t5x.tastes.labels import LabelRule
from uem_t5x.tastes.rating_scale import RatingScale
from uem_t5x.tastes.telling import Telling


@pytest.fixture
def data(tmp_path):
    return own_source.write(tmp_path)


def test_what_a_file_says(data):
    telling = read(data).telling
    assert telling.rule == LabelRule(1, 1, 3.0, 2.5)
    assert telling.scale == RatingScale((("0", 0.5), ("10", 5.0), ("loved", 5.0)), rounds=True)
    assert telling.wording.user == "They" and telling.wording.no_taste == "They want it all."
    assert telling.rating_sentences(telling.sentences["score"])[10] == "10 of 10, 5 stars"
    assert Telling.from_json(json.loads(json.dumps(vars_of(telling)))) == telling


def vars_of(telling):
    return dataclasses.asdict(telling)


def test_items_and_interactions_by_hand(data):
    found = tables(read(data), data)
    assert found.items.sort("movieId").rows(named=True) == [
        {"movieId": "a1", "title": "Lamp", "about": "It shines.", "genres": ["Light", "Home"]},
        {"movieId": "a2", "title": "Old lamp", "about": "Old lamp", "genres": ["Light", "Home"]},
        {"movieId": "a3", "title": "Chair", "about": "Nothing is said.", "genres": ["Home"]},
        {"movieId": "a4", "title": None, "about": "Lost.", "genres": ["Home"]},
    ]
    assert found.interactions.rows() == [
        ("u2", "a1", 10, 1_577_934_245_000_000),
        ("u1", "a3", 8, 1_578_009_600_000_000),  # 0.5 + 4.5 * 0.74 stars, rounded
        ("u1", "a1", 1, 1_577_836_800_000_000),
        ("u2", "a2", 10, 1_577_836_800_000_000),
        ("u2", "a2", 6, 1_578_096_000_000_000),
        ("u1", "zz", 6, 1_578_182_400_000_000),
    ]
    assert found.worth == {"loved": 10, "7.4": 8, "0": 1, "10": 10, "5": 6}
    assert found.counts == {"unrated": 1, "nameless": 0} and found.repeated == 0


def test_what_is_kept(data):
    joined = source_joining.read_source(read(data), data, 1)
    assert joined.movies["title"].to_list() == ["", "Lamp", "Old lamp", "Chair"]
    assert pl.concat(joined.ratings).rows() == [
        ("u1", 1, 1),
        ("u1", 3, 8),
        ("u2", 1, 10),
        ("u2", 2, 6),
    ]
    assert joined.counts["dropped_unrated_ratings"] == 1
    assert joined.counts["dropped_unknown_movie_ratings"] == 1
    assert joined.counts["dropped_duplicate_ratings"] == 1


def test_a_channel_may_have_its_own_encoder(data, tmp_path, monkeypatch):
    monkeypatch.setenv("UEM_T5X_CACHE", str(tmp_path / "cache"))
    (tmp_path / "length_encoders.py").write_text(ENCODER)
    monkeypatch.syspath_prepend(tmp_path)
    text = 'text = "{about}"\n'
    read(data, own=(text, text + 'encoder = "length_encoders:Lengths"\n'))
    folder = prepare(
        PrepareOptions(
            output=tmp_path / "dataset",
            source=str(data / "mine.toml"),
            data=data,
            encoder_width=8,
            min_history=1,
            validation_users=0,
            test_users=0,
        )
    )
    assert [channel.width for channel in folder.channels] == [8, 8, 2]
    of_about = folder.channels[2]
    assert folder.encoder_of(of_about).name == "length_encoders:Lengths"
    assert folder.encoder_of(folder.channels[0]).name == "hashing"
    assert folder.embedding("about").tolist() == [[0, 0], [10, 1], [8, 1], [16, 1]]
    assert folder.has_catalogue_of(DatasetFolder.open(folder.path))


ENCODER = """
import numpy as np


class Lengths:
    width, source, sha256 = 2, None, "1" * 64

    def encode(self, texts, on_progress=None):
        return np.array([[len(text), 1] for text in texts], np.float32)
"""


def test_one_thing_is_worth_as_much_as_another(data):
    bought = 'value = "score"\nnone = ["?"]\n[interactions.stars]\n0 = 0.5\n10 = 5\nloved = 5\n'
    source = read(data, value=(bought, "stars = 4\n"), channel=("{value} of 10, ", ""))
    assert tables(source, data).interactions["half_stars"].to_list() == [8] * 7


def test_without_a_time_the_files_tell_the_order(data):
    (data / "bought1.csv").rename(data / "bought2.csv")
    (data / "bought10.csv").write_text("who;what;when;score\nu2;a1;;10\n")
    source = read(data, time=('time = "when"\n', ""))
    assert histories(source, data)["u2"] == [("a2", 6), ("a1", 10)]
    files = ('files = "bought*.csv"', 'files = ["bought10.csv", "bought2.csv"]')
    source = read(data, time=('time = "when"\n', ""), files=files)
    assert histories(source, data)["u2"] == [("a1", 10), ("a2", 6)]


def test_other_forms_of_the_same_tables(data):
    """As JSON lines, with lists and numbers, and as Parquet: the same tables."""
    expected = tables(read(data), data)
    bought = pl.read_csv(data / "bought1.csv", separator=";", infer_schema=False)
    things = pl.read_csv(data / "things.csv", infer_schema=False)
    listed = things.with_columns(pl.col("tags").str.split(";"))
    (data / "bought1.csv").unlink()
    bought.write_ndjson(data / "bought.jsonl")
    with (data / "things.jsonl").open("w") as file:
        for row in listed.rows(named=True):
            file.write(json.dumps(row) + "\n\n")
    files = {"a": ("things.csv", "things.jsonl"), "b": ("bought*.csv", "bought.jsonl")}
    found = tables(read(data, **files), data)
    assert found.items.equals(expected.items)
    assert found.interactions.equals(expected.interactions)
    listed.write_parquet(data / "things.parquet")
    bought.write_parquet(data / "bought.parquet")
    files = {"a": ("things.csv", "things.parquet"), "b": ("bought*.csv", "bought.parquet")}
    found = tables(read(data, **files), data)
    assert found.items.equals(expected.items)
    assert found.interactions.equals(expected.interactions)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title =", "titel =", r"\[items\] no key 'titel' \(did you mean title\?\)"),
        ("[labels]", "[label]", r"no key 'label' \(did you mean labels\?\)"),
        ('id = "sku"', "id = 3", r"\[items\] id = 3: give a text"),
        ("min_count = 1", "min_count = true", r"min_count = True: give a number"),
        ("min_count = 1", "min_count = 0", r"min_count = 0: give at least 1"),
        ("disliked_below = 2.5", "disliked_below = 4", "disliked_below = 4 is above liked_above"),
        ("{title}: ", "{titel}: ", r"thing: no column 'titel' \(did you mean title\?\); items"),
        ("{about}", "{about", r"\[\[channels\]\] about: expected '}'"),
        ("{about}", "about", "about: text = 'about' must name columns of items"),
        ("{value} of", "{title} {value} of", "must name columns of items, or {stars} and {value}"),
        ('name = "about"', 'name = "thing"', "name = 'thing': give each one of its own"),
        ('name = "about"', 'name = "A b"', "name = 'A b': give each one of its own"),
        ("columns.about", "columns.row", "columns.row: the name is taken"),
        ("otherwise.about", "otherwise.abuot", r"otherwise.abuot: no such column \(did you mean"),
        ('classes = "tags"\n', "", r"\[items\] needs classes ="),
        ("10 = 5\n", "10 = 5.2\n", "'10' is 5.2 stars; give 0.5 to 5 in steps of 0.5"),
        ('value = "score"\n', "", "needs value = "),
        ('time = "when"', 'time = "when"\ntime_unit = "ms"', "time_unit = 'ms': choose one of sec"),
        ('separator = ";"\nuser', 'separator = ""\nuser', "separator = ''"),
        ('files = "things.csv"', 'files = "things.csv"\nformat = "xml"', "format = 'xml': choose"),
        (
            'files = "things.csv"',
            'files = "things.csv"\nencoding = "x"',
            "encoding: unknown encodi",
        ),
        ('likes = "want"', 'likes = "AVOID"', "likes and dislikes are both 'AVOID'"),
        ('user = "They"', 'user = " "', "user = ' ': give a text"),
        ("[items]", "reader = 'other'\n[items]", "reader = 'other': there are movielens"),
        ("[items]", "reader = 'movielens'\n[items]", "knows its files; leave out their tables"),
        ("[items]", "[items", "not a TOML file"),
    ],
)
def test_what_a_source_may_not_say(data, old, new, message):
    with pytest.raises(InputError, match=rf"mine\.toml: .*{message}") as error:
        read(data, change=(old, new))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("things.csv", "sku,", "SKU,", r"things.csv: no column 'sku'; it has SKU, name"),
        ("bought1.csv", "when", "then", r"bought1.csv: no column 'when'; it has who, what, then"),
        ("bought1.csv", "2020-01-03", "1e30", r"row 3: when is '1e30'; it must be"),
        ("bought1.csv", "who;what;when;score\n", "", r"no column 'who'; it has u2, a1"),
        ("bought1.csv", "7.4", "11", "row 3: score is '11'; it must be on the scale 0"),
        ("bought1.csv", "7.4", "great", "row 3: score is 'great'; it must be on the scale 0"),
        ("bought1.csv", "2020-01-03", "soon", "row 3: when is 'soon'; it must be seconds since"),
        ("bought1.csv", "2020-01-03", "1577836800000", "say another time_unit ="),
        ("bought1.csv", "u1;a3;", "u1;a3;;", "line 3: 5 fields where there should be 4"),
        ("things.csv", "Light;Home", "['Light']", "names joined by ';', or say another class_sep"),
        ("things.csv", "Light;Home", "L" * 101, "of names of at most 100 letters"),
        ("things.csv", "Light;Home", "", None),
    ],
)
def test_values_that_are_none(data, file, old, new, message):
    text = (data / file).read_text()
    assert old in text
    (data / file).write_text(text.replace(old, new, 1))
    if message is None:
        found = tables(read(data), data)
        assert found.items["genres"].to_list()[0] == []
        return
    with pytest.raises(InputError, match=message) as error:
        tables(read(data), data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"who": "u"}\n[1]\n', r"row 2: .* is no JSON object"),
        (b'{"who": "u"}\n{"who": \n', r"row 2: .* is no JSON object"),
        (b"who,what\n", r"no column 'who'|no JSON object"),
        (b"", "empty; get it anew"),
    ],
)
def test_json_lines_that_are_none(data, content, message):
    (data / "bought.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=rf"bought\.jsonl.*{message}|no column 'what'"):
        tables(read(data, b=("bought*.csv", "bought.jsonl")), data)


def test_files_that_are_damaged(data):
    import gzip

    whole = gzip.compress(BOUGHT.encode() * 50)
    (data / "bought1.csv").unlink()
    for content in (whole[:-20], b"nonsense", whole[:60] + b"\0" * 20 + whole[80:]):
        (data / "bought2.csv.gz").write_bytes(content)
        with pytest.raises(InputError, match=r"bought2\.csv\.gz: cannot be read .*; get it anew"):
            tables(read(data, b=("bought*.csv", "bought*")), data)


def test_too_many_classes(data):
    names = ";".join(f"class {number}" for number in range(1001))
    (data / "things.csv").write_text(THINGS.replace("Light;Home", names))
    source = read(data, change=("classes = 2\n", ""))
    with pytest.raises(InputError, match=r"1004 classes, .* \[labels\] classes = 100"):
        tables(source, data)


def test_a_check_reads_some(data, capsys):
    arguments = ["--source", str(data / "mine.toml"), "--data", str(data), "--check"]
    assert cli.main(["prepare", *arguments]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for text in (
        "id: a3",
        "classes: Home",
        "thing: Chair: Home",
        "score: 7.78 of 10, 4 stars",
        "What is it? They avoid Light.",
        "loved = 5",
        "2: Home, Light",
    ):
        assert text in told, (text, told)
