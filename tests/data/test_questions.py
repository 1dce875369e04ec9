"""Questions of one's own: which items are from before one, and what is refused."""

import dataclasses
import json

import own_questions
import polars as pl
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from uem_t5x import cli
from uem_t5x.base.errors import InputError
from uem_t5x.data import asking, dataset_folder, preview, source_files, source_joining
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.options import PrepareOptions
from uem_t5x.data.prepare import prepare
from uem_t5x.tastes.telling import Telling


def make(tmp_path, name="dataset", **options):
    """Prepares the tables that lie in `data`."""
    return prepare(
        PrepareOptions(
            output=tmp_path / name,
            source=str(tmp_path / "data/asked.toml"),
            data=tmp_path / "data",
            encoder_width=8,
            **{"validation_users": 0.2, "test_users": 0.2, **options},
        )
    )


def examples(folder, split):
    spec = {
        name: tf.io.FixedLenFeature([], tf.string) for name in ("user_id", "question", "answer")
    }
    spec |= {name: tf.io.VarLenFeature(tf.int64) for name in ("history_items", "history_ratings")}
    files = [str(path) for path in folder.examples(split)]
    for record in tf.data.TFRecordDataset(files):
        example = tf.io.parse_single_example(record, spec)
        texts = (example[name].numpy().decode() for name in ("user_id", "question", "answer"))
        items = example["history_items"].values.numpy().tolist()
        yield (*texts, items, example["history_ratings"].values.numpy().tolist())


def test_each_question_has_the_items_from_before_it(tmp_path):
    own_questions.write(tmp_path / "data")
    folder = make(tmp_path)
    titles = folder.movies()["title"].to_list()
    ids = folder.movies()["movieId"].to_list()
    bought = pl.read_csv(tmp_path / "data/bought.csv")
    asked = pl.read_csv(tmp_path / "data/asked.csv")
    split_of = {}
    count = 0
    for split in dataset_folder.SPLITS:
        for name, question, answer, items, half_stars in examples(folder, split):
            user, number = name.split("/")
            assert split_of.setdefault(user, split) == split  # a user is in one split
            row = asked.filter(pl.col("who") == user).row(int(number) - 1, named=True)
            wish = row["wish"]
            assert question == f"What will somebody who asks for {wish} buy next?"
            assert answer == row["next"] == titles[items[-1]].split()[0]
            before = bought.filter((pl.col("who") == user) & (pl.col("at") < row["at"]))
            newest = before.sort("at", maintain_order=True).unique(
                "sku", keep="last", maintain_order=True
            )
            assert [ids[item] for item in items] == newest["sku"].to_list()
            assert [stars / 2 for stars in half_stars] == newest["stars"].to_list()
            count += 1
    assert count == asked.height == folder.manifest.counts["questions"]
    assert folder.telling.metrics == ("accuracy", "macro_f1") and folder.genres == ()
    assert Telling.from_json(json.loads(json.dumps(dataclasses.asdict(folder.telling)))) == (
        folder.telling
    )


def test_the_future_changes_nothing(tmp_path):
    """Not the histories, not how popular an item is; not even what was rated again later."""
    folders = []
    for future in range(2):
        own_questions.write(tmp_path / "data", future=future)
        folders.append(make(tmp_path, f"dataset {future}"))
    one, other = ({**folder.manifest.files} for folder in folders)
    assert one == other and len(one) > 5
    assert folders[0].manifest.inputs != folders[1].manifest.inputs


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(1, 9), st.integers(0, 6)),
        max_size=20,
    ),
    st.lists(st.tuples(st.integers(0, 2), st.none() | st.integers(0, 7)), max_size=6),
    st.integers(0, 3),
)
def test_as_one_by_one(rated, asked, min_history):
    columns = ["userId", "row", "half_stars", "timestamp"]
    ratings = pl.DataFrame(rated, dict.fromkeys(columns, pl.Int64), orient="row")
    ratings = ratings.sort("userId", "timestamp", maintain_order=True)
    questions = pl.DataFrame(asked, {"userId": pl.Int64, "timestamp": pl.Int64}, orient="row")
    questions = questions.sort("userId", maintain_order=True).with_row_index("id")
    questions = questions.with_columns(pl.col("id").cast(pl.String))
    expected = {}
    for number, user, time in questions.rows():
        history = {}
        for owner, row, half_stars, rated_at in ratings.rows():
            if owner == user and (time is None or rated_at < time):
                history.pop(row, None)
                history[row] = half_stars
        if len(history) >= max(min_history, 1):
            expected[number] = [*history.items()]
    found = {}
    kept = []
    known = questions.filter(pl.col("userId").is_in(ratings["userId"].unique().implode()))
    for some in asking.ask(ratings, known, min_history):
        kept += some.questions["id"].to_list()
        for name, row, half_stars in some.histories.rows():
            found.setdefault(name, []).append((row, half_stars))
    assert found == expected and kept == [*expected]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[questions]", "[question]", r"no key 'question' \(did you mean questions\?\)"),
        ('answer = "next"\n', "", r'\[questions\] needs answer = "COLUMN"'),
        ("macro_f1", "macro-f1", r"no 'macro-f1' \(did you mean macro_f1\?\); there are accuracy"),
        ("{wish}", "{whish}", r"asked\.csv: no column 'whish'; it has who, wish, next, at"),
        ("{wish}", "{wish", r"\[questions\] question: "),
        ('"accuracy", "macro_f1"', '"mae"', r"row 2: next is '.*'; it must be a number"),
        (
            'time = "at"\nmetrics',
            'time = "who"\nmetrics',
            r"row 2: who is 'u0'; it must be seconds",
        ),
        ('next"\n', 'next"\nid = "wish"\n', r"'(light|rest)' stands for two questions"),
        ('next"\n', 'next"\nsplit = "wish"\n', r"wish is '.*'; it must be train, validation or"),
        ("[questions]", "[labels]\nmost = 2\n[questions]", r"\[labels\] and \[questions\]: leave"),
        ('time = "at"\nvalue', "value", r"\[questions\] time: needs \[interactions\] time"),
        (
            'user = "who"\nquestion',
            'user = "wish"\nquestion',
            r"is left: of 75 0 have no answer, 75",
        ),
    ],
)
def test_what_is_refused(tmp_path, old, new, message):
    data = own_questions.write(tmp_path / "data")
    text = (data / "asked.toml").read_text()
    assert old in text
    (data / "asked.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        source = source_files.read_source(str(data / "asked.toml"))
        source_joining.read_source(source, data, 1)


def test_questions_of_nobody_and_of_too_few_items_are_counted(tmp_path, capsys):
    data = own_questions.write(tmp_path / "data")
    first = (data / "asked.csv").read_text()
    with (data / "asked.csv").open("a") as file:
        file.write("nobody,light,lamp,1000000000\nu1,light,lamp,5\n")
    command = ["prepare", "--source", str(data / "asked.toml"), "--data", str(data)]
    flags = ["--encoder-width", "8", "--validation-users", "0.2", "--test-users", "0.2"]
    assert cli.main([*command, *flags, "--output", str(tmp_path / "dataset")]) == 0
    assert "scored by accuracy, macro_f1" in capsys.readouterr().out
    counts = DatasetFolder.open(tmp_path / "dataset").manifest.counts
    dropped = [f"dropped_{why}_questions" for why in ("nobodys", "short_history", "unanswered")]
    assert [counts[name] for name in dropped] == [1, 1, 0]
    assert counts["questions"] == first.count("\n") - 1 and counts["users"] == 40


def test_given_splits_and_answers_that_nobody_knows(tmp_path):
    data = own_questions.write(tmp_path / "data")
    asked = pl.read_csv(data / "asked.csv").with_row_index("row")
    number = pl.col("row") % 3
    asked = asked.with_columns(
        part=pl.when(number == 0).then(pl.lit("Test")).otherwise(pl.lit("train")),
        next=pl.when(number == 0).then(pl.lit("")).otherwise("next"),
    )
    asked.with_columns(part=pl.when(number == 1).then(pl.lit("dev")).otherwise("part")).write_csv(
        data / "asked.csv"
    )
    text = (data / "asked.toml").read_text()
    (data / "asked.toml").write_text(text.replace('next"\n', 'next"\nsplit = "part"\n'))
    folder = make(tmp_path)
    counts = {split: folder.num_examples(split) for split in dataset_folder.SPLITS}
    assert counts == {
        "test": (asked["row"] % 3 == 0).sum(),
        "validation": (asked["row"] % 3 == 1).sum(),
        "train": (asked["row"] % 3 == 2).sum(),
    }
    assert {answer for _, _, answer, *_ in examples(folder, "test")} == {""}


def test_a_check_shows_a_question(tmp_path, capsys):
    data = own_questions.write(tmp_path / "data")
    command = ["prepare", "--source", str(data / "asked.toml"), "--data", str(data), "--check"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "What will somebody who asks for" in printed


def test_times_that_are_none_are_from_before_every_question(tmp_path):
    """Years, taken for seconds since 1970: all of them would be in every history."""
    data = own_questions.write(tmp_path / "data")
    bought = pl.read_csv(data / "bought.csv").with_columns(at=pl.lit(2015))
    bought.write_csv(data / "bought.csv")
    source = source_files.read_source(str(data / "asked.toml"))
    with pytest.raises(InputError, match="are from before 1980, and so from before ev"):
        source_joining.read_source(source, data, 1)


def test_words_that_stand_for_nothing_are_no_answers(tmp_path):
    data = own_questions.write(tmp_path / "data")
    asked = pl.read_csv(data / "asked.csv").with_row_index("row")
    missing = pl.col("row").replace_strict({0: "nan", 1: " NULL", 2: "N/A"}, default=None)
    asked.with_columns(next=pl.coalesce(missing, "next")).drop("row").write_csv(data / "asked.csv")
    folder = make(tmp_path)
    assert folder.manifest.counts["dropped_unanswered_questions"] == 3
    known = {
        answer for split in dataset_folder.SPLITS for _, _, answer, *_ in examples(folder, split)
    }
    assert known == set(own_questions.KINDS)


def test_half_a_character_is_refused(tmp_path):
    data = own_questions.write(tmp_path / "data")
    asked = pl.read_csv(data / "asked.csv").with_columns(pl.col("at").cast(pl.String))
    rows = asked.rows(named=True)
    rows[4]["wish"] = "a\ud800b"
    (data / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = (data / "asked.toml").read_text().replace("asked.csv", "asked.jsonl")
    (data / "asked.toml").write_text(text)
    with pytest.raises(InputError, match=r"asked.jsonl, row 5: wish .*surrogates not allowed"):
        make(tmp_path)


def test_a_check_reads_all_that_questions_need(tmp_path, monkeypatch):
    data = own_questions.write(tmp_path / "data")
    monkeypatch.setattr(preview, "_ENOUGH", 1)
    assert preview.preview(str(data / "asked.toml"), data).length > 3


def test_one_question_for_all(tmp_path):
    data = own_questions.write(tmp_path / "data")
    text = (data / "asked.toml").read_text().replace("{wish}", "{{what}}")
    (data / "asked.toml").write_text(text)
    folder = make(tmp_path)
    asked = {question for _, question, *_ in examples(folder, "train")}
    assert asked == {"What will somebody who asks for {what} buy next?"}


def test_items_that_were_rated_again_are_counted_by_themselves(tmp_path):
    data = own_questions.write(tmp_path / "data")
    rows = ["who,sku,stars,at", "u,s1,1,1000000000", "u,s1,2,1000000001", "u,s2,3,1000000002"]
    rows += ["u,s2,3,1000000003", "v,s1,4,1000000000"]
    (data / "bought.csv").write_text("\n".join([*rows, ""]))
    (data / "asked.csv").write_text("who,wish,next,at\nu,rest,lamp,1000000003\n")
    joined = source_joining.read_source(source_files.read_source(str(data / "asked.toml")), data, 1)
    names = ("ratings", "dropped_duplicate_ratings", "dropped_short_history_ratings")
    assert [joined.counts[name] for name in names] == [2, 1, 2]


def test_sealing_leaves_all_as_it_is(tmp_path):
    own_questions.write(tmp_path / "data")
    folder = make(tmp_path)
    before = dict(folder.manifest.files)
    assert cli.main(["seal", str(folder.path)]) == 0
    assert DatasetFolder.open(folder.path).manifest.files == before
