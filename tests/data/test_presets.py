"""Every preset, on a small folder of exactly the published form."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import published_forms
import pytest

from uem_t5x import cli
from uem_t5x.base.errors import InputError
from uem_t5x.data import source_files, synthetic
from uem_t5x.data.options import PrepareOptions, SynthesizeOptions
from uem_t5x.data.prepare import prepare


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of each preset's data, made when it is first asked for."""
    found = {}

    def of(name):
        if name not in found:
            found[name] = published_forms.write(name, tmp_path_factory.mktemp("data") / name)
        return found[name]

    return of


def prepared(name, path, tmp_path, **options):
    return prepare(
        PrepareOptions(
            output=tmp_path / "dataset", source=name, data=path, encoder_width=16, **options
        )
    )


def histories(folder):
    """Returns every user's items (by id), half-stars and labels."""
    import tensorflow as tf

    ids = folder.movies()["movieId"].to_list()
    users = {}
    for split in ("train", "validation", "test"):
        for file in folder.examples(split):
            for record in tf.data.TFRecordDataset(str(file)):
                feature = tf.train.Example.FromString(record.numpy()).features.feature
                items = feature["history_items"].int64_list.value
                users[feature["user_id"].bytes_list.value[0].decode()] = (
                    [ids[row] for row in items],
                    list(feature["history_ratings"].int64_list.value),
                    [name.decode() for name in feature["liked"].bytes_list.value],
                )
    return users


def test_all_are_tested():
    of_questions = {"lamp-2", "lamp-3"}  # see tests/answers/test_lamp.py
    assert set(source_files.presets()) == {"movielens", *of_questions, *published_forms.FORMS}


# An item in full, and what of the rows was left out: by hand from `published_forms`.
EXPECTED = {
    "movielens-100k": (
        {"movieId": 2, "title": 'Amélie "1" (1997)', "genres": ["Adventure"]},
        {},
    ),
    "amazon-reviews-2023": (
        {
            "movieId": "B000000001",
            "title": 'The "Best" of 1',
            "description": "Fits all Blue",
            "genres": ["All Beauty", "Beta"],
        },
        {"dropped_movies": 1, "dropped_unknown_movie_ratings": 1},
    ),
    "goodreads": (
        {
            "movieId": 3017,
            "title": "日本 3",
            "description": "A book of 3 pages. And more.",
            "genres": [],
        },
        {"dropped_unrated_ratings": "items of a number that 11 divides"},
    ),
    "yelp": (
        {
            "movieId": "Pns2l4eNsfO8kk83dixA04",
            "title": "Tab and space 4",
            "city": "a place",
            "genres": ["Alpha", "Food"],
        },
        {},
    ),
    "google-local": (
        {
            "movieId": "0x88f16e41928ff687:0x883dad4fd048e8f1",
            "title": 'The "Best" of 1',
            "description": 'The "Best" of 1',
            "genres": ["Beta", "Store"],
        },
        {"dropped_movies": 1, "dropped_unrated_ratings": "items of a number that 13 divides"},
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_items_and_histories_are_what_the_files_say(name, data, tmp_path):
    folder = prepared(name, data(name), tmp_path)
    item, dropped = EXPECTED[name]
    movies = folder.movies()
    (found,) = movies.filter(pl.col("movieId") == item["movieId"]).drop("row").rows(named=True)
    assert found == item
    counts = folder.manifest.counts
    assert counts["users"] == published_forms.USERS
    assert counts["movies_read"] == published_forms.ITEMS
    for reason in (key for key in counts if key.startswith("dropped_")):
        expected = dropped.get(reason, 0)
        if reason == "dropped_undescribed_ratings":
            continue  # as many as rated the items that were dropped
        assert (counts[reason] > 0) == bool(expected), reason
        if isinstance(expected, int):
            assert counts[reason] == expected, reason
    assert counts["ratings"] == sum(len(items) for items, _, _ in histories(folder).values())


def test_a_history_is_in_time_order_with_its_own_ids(data, tmp_path):
    folder = prepared("amazon-reviews-2023", data("amazon-reviews-2023"), tmp_path)
    found = histories(folder)
    rows = [row for row in published_forms.tastes(2) if row[0] == 3 and row[1] != 5]
    items, half_stars, liked = found["AE000003QX"]
    assert items == [f"B00{item:07d}" for _, item, _, _ in rows]
    assert half_stars == [2 * stars for _, _, stars, _ in rows]
    assert liked and set(liked) <= set(folder.genres)


def test_what_is_told_is_recorded(data, tmp_path):
    folder = prepared("goodreads", data("goodreads"), tmp_path, vocabulary_size=700)
    told = folder.telling
    assert told == source_files.read_source("goodreads").telling
    assert told.question.startswith("Which genres does this reader like most")
    assert [channel.name for channel in folder.channels] == list(told.sentences)
    assert folder.channels[1].index == "rating"
    assert folder.embedding("rating").shape == (11, 16)
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(folder.vocabulary_path))
    for text in (told.question, "The reader likes alpha tales.", folder.movies()["title"][2]):
        assert model.decode(model.encode(text)) == text


def test_parts_compressed_or_not_give_the_same_folder(data, tmp_path):
    """As zst, bz2, xz, plain and in parts; and in a zip file."""
    import bz2
    import lzma

    import zstandard

    source = data("google-local")
    reviews = gzip.decompress((source / "review-Vermont_10.json.gz").read_bytes())
    places = gzip.decompress((source / "meta-Vermont.json.gz").read_bytes())
    lines = reviews.splitlines(keepends=True)
    other = tmp_path / "other"
    (other / "deep").mkdir(parents=True)
    (other / "meta-Vermont.json").write_bytes(places)
    parts = [b"".join(lines[start : start + 300]) for start in range(0, len(lines), 300)]
    (other / "review-Vermont_1.json.zst").write_bytes(zstandard.compress(parts[0]))
    (other / "review-Vermont_2.json.bz2").write_bytes(bz2.compress(parts[1]))
    (other / "review-Vermont_3.json.xz").write_bytes(lzma.compress(parts[2]))
    (other / "deep" / "review-Vermont_4.json").write_bytes(b"".join(parts[3:]).rstrip(b"\n"))
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", other)
    first = prepared("google-local", source, tmp_path / "a")
    for path in (other, archive):
        second = prepared("google-local", Path(path), tmp_path / f"of-{Path(path).name}")
        assert histories(first) == histories(second)
        assert first.movies().equals(second.movies())
        for name, matrix in first.embeddings().items():
            np.testing.assert_array_equal(matrix, second.embedding(name))


@pytest.mark.parametrize("name", published_forms.FORMS)
def test_check_shows_what_would_be_made(name, data, capsys):
    assert cli.main(["prepare", "--source", name, "--data", str(data(name)), "--check"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "an item" in told and "a history" not in told.split("an example")[1]
    assert source_files.read_source(name).telling.question in told


def test_movielens_by_its_source_is_movielens(tmp_path):
    movielens = tmp_path / "ml"
    synthetic.synthesize(SynthesizeOptions(movielens, users=40, movies=60))
    shared = ["--descriptions", str(movielens / "descriptions.csv"), "--encoder-width", "8"]
    for flags, output in (
        (["--movielens", str(movielens)], tmp_path / "a"),
        (["--source", "movielens", "--data", str(movielens)], tmp_path / "b"),
    ):
        assert cli.main(["prepare", *flags, *shared, "--output", str(output)]) == 0
    for file in (tmp_path / "a").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "what is to be read"),
        (["--movielens", "a"], "what is to be read"),
        (["--data", "a"], "what is to be read"),
        (["--source", "yelp"], "give --data DIR"),
        (["--source", "yelp", "--data", "a", "--descriptions", "b"], "neither --movielens nor"),
        (["--source", "yelp", "--data", "nowhere"], "nowhere: no such folder or zip file"),
        (["--source", "amazon", "--data", "a"], r"no such preset; choose one of amazon-reviews"),
        (["--source", "movielens", "--data", "a", "--movielens", "b"], "leave one"),
    ],
)
def test_flags_that_do_not_go_together(flags, message, tmp_path, capsys):
    assert cli.main(["prepare", *flags, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_is_needed(capsys):
    assert cli.main(["prepare", "--source", "yelp", "--data", "a"]) == 2
    assert "--output DIR is missing" in capsys.readouterr().err


def test_files_that_are_not_there_are_named(tmp_path):
    (tmp_path / "reviews.json").write_text("{}\n")
    with pytest.raises(InputError, match=r"no file yelp_.*business.*\[items\].*reviews.json"):
        prepared("yelp", tmp_path, tmp_path)
