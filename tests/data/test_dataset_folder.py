import json

import numpy as np
import polars as pl
import pytest

from uem_t5x.data import dataset_folder
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.manifest import Channel, EncoderRecord, Manifest, Split
from uem_t5x.errors import InputError

MANIFEST = Manifest(
    genres=("Drama", "War"),
    channels=(Channel("title_genres", 4, "item"), Channel("rating", 4, "rating")),
    encoder=EncoderRecord("hashing", 4),
    splits={"train": Split(3, 2), "test": Split(1, 1)},
    has_vocabulary=True,
    counts={"users": 4, "labels_per_user": 3.5},
    options={"seed": 0},
    inputs={"movies.csv": "abc"},
)


def write(path, overwrite=False):
    with dataset_folder.writing(path, overwrite) as folder:
        movies = pl.DataFrame(
            {
                "row": [0, 1, 2],
                "movieId": [0, 6, 9],
                "title": ["", "Heat (1995)", "Glory (1989)"],
                "genres": [[], ["Drama"], ["War", "Drama"]],
                "description": ["", "A cop.", "A regiment."],
            },
            schema_overrides={"row": pl.Int32, "genres": pl.List(pl.String)},
        )
        embeddings = {
            "title_genres": np.eye(3, 4, dtype=np.float32),
            "rating": np.ones((11, 4), np.float32),
        }
        dataset_folder.write_items(folder, movies, embeddings)
        files = [folder / dataset_folder.VOCABULARY]
        for split, record in MANIFEST.splits.items():
            files += dataset_folder.shard_paths(folder, split, record.shards)
        for file in files:
            file.parent.mkdir(exist_ok=True)
            file.touch()
        MANIFEST.write(folder)
    return path


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "parent" / "dataset")


def refusal(path, **options):
    with pytest.raises(InputError) as error:
        DatasetFolder.open(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_written_is_read(folder):
    dataset = DatasetFolder.open(folder)
    assert dataset.manifest == MANIFEST
    assert dataset.genres == ("Drama", "War")
    assert [channel.name for channel in dataset.channels] == ["title_genres", "rating"]
    assert dataset.encoder.width == 4
    assert dataset.movies()["movieId"].to_list() == [0, 6, 9]
    assert dataset.genre_matrix().tolist() == [[0, 0], [1, 0], [1, 1]]
    assert dataset.embeddings()["rating"].shape == (11, 4)
    assert dataset.num_examples("train") == 3
    assert [path.name for path in dataset.examples("train")] == [
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
    ]
    assert dataset.vocabulary_path.name == "sentencepiece.model"


def test_an_unknown_split(folder):
    with pytest.raises(InputError, match="no split 'dev'; choose one of train, test"):
        DatasetFolder.open(folder).examples("dev")


def test_a_catalogue_opens_by_itself(folder, tmp_path):
    dataset_folder.copy_catalogue(DatasetFolder.open(folder), tmp_path / "model/catalogue")
    copy = DatasetFolder.open(tmp_path / "model/catalogue", catalogue_only=True)
    assert copy.movies().equals(DatasetFolder.open(folder).movies())
    assert copy.vocabulary_path.is_file()
    assert "embeddings.safetensors: missing" in refusal(copy.path)


def test_a_missing_folder(tmp_path):
    assert "nowhere: no such folder" in refusal(tmp_path / "nowhere")


def test_a_folder_of_something_else(tmp_path):
    assert "not a dataset folder" in refusal(tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "web app"}')
    assert "manifest.json: not of a dataset folder" in refusal(tmp_path)


@pytest.mark.parametrize(
    "file",
    [
        "items/movies.parquet",
        "vocabulary/sentencepiece.model",
        "examples/train-00001-of-00002.tfrecord",
    ],
)
def test_a_missing_file(folder, file):
    (folder / file).unlink()
    assert f"{file}: missing from the dataset folder" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format_version": 2}, "format version 2 is newer than 1"),
        ({"format_version": "one"}, "format version 'one' is not a number"),
        ({"channels": None}, "damaged"),
        ({"encoder": {"name": "hashing"}}, "damaged"),
        ({"surprise": 1}, "damaged"),
    ],
)
def test_a_manifest_that_cannot_be_used(folder, change, expected):
    manifest = json.loads((folder / "manifest.json").read_text()) | change
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert expected in refusal(folder)


def test_a_truncated_manifest(folder):
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:99])
    assert "manifest.json: unreadable" in refusal(folder)


def test_a_crash_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), dataset_folder.writing(tmp_path / "dataset") as partial:
        (partial / "half").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_crash_leaves_what_was_there(folder):
    with pytest.raises(ValueError), dataset_folder.writing(folder, overwrite=True) as partial:
        (partial / "half").touch()
        raise ValueError
    assert DatasetFolder.open(folder).manifest == MANIFEST
    assert [path.name for path in folder.parent.iterdir()] == ["dataset"]


def test_overwriting_asks_for_leave(folder):
    with pytest.raises(InputError, match="replace it with --overwrite"):
        write(folder)
    (folder / "leftover").touch()
    write(folder, overwrite=True)
    assert not (folder / "leftover").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["dataset"]


def test_nothing_else_is_ever_replaced(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="exists and is not a dataset folder"):
        write(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_an_empty_folder_may_be_written_into(tmp_path):
    (tmp_path / "new").mkdir()
    assert DatasetFolder.open(write(tmp_path / "new")).manifest == MANIFEST
