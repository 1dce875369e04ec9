"""A *source*: a TOML file that says what one's data are, and how histories of them are told.

```toml
[items]                              # or several [[items]], which are joined by their ids
files = "meta_*.jsonl.gz"            # below --data; one pattern, or a list
id = "parent_asin"
title = "title"
classes = "categories"               # what answers name
columns.text = ["description", "features"]     # the first that holds anything
otherwise.text = "No description."             # what stands in where none does

[interactions]
files = "*.csv.gz"
user = "user_id"
item = "parent_asin"
time = "timestamp"
time_unit = "milliseconds"
value = "rating"                     # in stars, or see [interactions.stars]

[[channels]]
name = "product"
text = "The product {title} is sold as {classes}"

[labels]
question = "Which categories does this shopper like most?"
```

`docs/your_data.md` tells of every key. Presets are such files, in `presets/`.
"""

import dataclasses
from collections.abc import Mapping

from uem_t5x.tastes.telling import Telling

MOVIELENS, LAMP = "movielens", "lamp"
TIME_UNITS = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000}
FORMATS = ("csv", "jsonl", "parquet")


@dataclasses.dataclass(frozen=True)
class Table:
    """Files that are one table.

    Attributes:
        files: patterns of their names, below the data.
        format: one of `FORMATS`; None for what a file's name says.
        separator: between the fields of a CSV file; None for a comma, or a tab in `.tsv`.
        encoding: of a CSV file.
        header: the names of a CSV file's columns, where its first line is a row; empty where not.
        quoted: whether quotes enclose fields of a CSV file that hold a separator.
    """

    files: tuple[str, ...]
    format: str | None = None
    separator: str | None = None
    encoding: str = "utf-8"
    header: tuple[str, ...] = ()
    quoted: bool = True


@dataclasses.dataclass(frozen=True)
class Items:
    """A table of items.

    Attributes:
        table: the files.
        id: the column of their ids.
        columns: of each column that the item table gets, the columns that it is taken from: the
            first that holds anything. `title` is one of them.
        otherwise: what stands in a column of an item that has nothing there.
        classes: the column of the classes; None if they are not in this table.
        class_separator: between classes of a text, where it is not `|`. Of a list, or the keys of
            an object, each is one class, unless it is given.
        class_flags: names of columns that hold 1 for an item of the class of that name.
    """

    table: Table
    id: str
    columns: Mapping[str, tuple[str, ...]]
    otherwise: Mapping[str, str]
    classes: str | None = None
    class_separator: str | None = None
    class_flags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Interactions:
    """The table of who did what with which item, and when.

    Attributes:
        table: the files.
        user: the column of the users' ids.
        item: the column of the items' ids.
        time: the column of the time; None for the order of the files.
        time_unit: of numbers, one of `TIME_UNITS`, since 1970; dates are told by themselves.
        value: the column of what the user thinks of the item; None if there is none.
        none: values that say nothing; such rows are left out.
        half_stars: what every interaction is worth where there is no value.
    """

    table: Table
    user: str
    item: str
    time: str | None = None
    time_unit: str = "seconds"
    value: str | None = None
    none: tuple[str, ...] = ()
    half_stars: int = 10


@dataclasses.dataclass(frozen=True)
class Questions:
    """A table of what is asked of users, and what is true.

    Attributes:
        table: the files.
        user: the column of the users' ids.
        question: its column, or a template over columns.
        answer: its column; where it is empty the answer is not known.
        id: the column of the questions' ids; None has them numbered, each user's for itself.
        time: the column of when it was asked, before which the history ends; None for a question
            about whole histories.
        time_unit: as of `Interactions`.
        split: the column of the split that it is in; None has users split by their ids.
    """

    table: Table
    user: str
    question: str
    answer: str
    id: str | None = None
    time: str | None = None
    time_unit: str = "seconds"
    split: str | None = None


@dataclasses.dataclass(frozen=True)
class Profile:
    """What an entry of a profile of LaMP has.

    Attributes:
        columns: of each column that the item table gets, the field that it is.
        classes: the field of its class; None if it has none.
        value: the field of what the user thinks of it, in stars; None if there is none.
    """

    columns: Mapping[str, str]
    classes: str | None = None
    value: str | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """What data are, and how histories of them are told.

    Attributes:
        name: how messages call it: its file, or a preset's name.
        reader: `movielens` or `lamp`, which have readers of their own, or None.
        items: tables of items, joined by their ids; the first one says which items there are.
        interactions: who did what with which item.
        telling: how histories are told, and what is asked of them.
        classes: how many classes are kept, the most common ones; None keeps all.
        encoders: by a channel's name the encoder of its sentences, where it has its own.
        questions: the table of what is asked of users, if any.
        profile: of LaMP, what an entry of a profile has.
    """

    name: str
    reader: str | None
    items: tuple[Items, ...]
    interactions: Interactions | None
    telling: Telling
    classes: int | None
    encoders: Mapping[str, str] = dataclasses.field(default_factory=dict)
    questions: Questions | None = None
    profile: Profile | None = None
