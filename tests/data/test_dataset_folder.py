import dataclasses
import json
import os
import platform
import subprocess

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from uem_t5x.base.errors import InputError
from uem_t5x.data import dataset_folder, seal
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.manifest import Channel, EncoderRecord, Manifest, Split

MANIFEST = Manifest(
    genres=("Drama", "War"),
    channels=(Channel("title_genres", 4, "item"), Channel("rating", 4, "rating")),
    encoder=EncoderRecord("hashing", 4),
    splits={"train": Split(3, 2), "test": Split(1, 1)},
    has_vocabulary=True,
    counts={"users": 4, "labels_per_user": 3.5},
    options={"seed": 0},
    inputs={"movies": "abc"},
)


def write_users(file, names):
    with tf.io.TFRecordWriter(str(file)) as writer:
        for name in names:
            example = tf.train.Example()
            example.features.feature["user_id"].bytes_list.value.append(name.encode())
            writer.write(example.SerializeToString())


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
        (folder / dataset_folder.VOCABULARY).parent.mkdir()
        (folder / dataset_folder.VOCABULARY).touch()
        (folder / dataset_folder.EXAMPLES).mkdir()
        for split, (examples, shards) in {"train": (3, 2), "test": (1, 1)}.items():
            for shard, file in enumerate(dataset_folder.shard_paths(folder, split, shards)):
                write_users(file, [f"{split} {n}" for n in range(shard, examples, shards)])
        dataset_folder.write_manifest(folder, MANIFEST)
    return path


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "parent" / "dataset")


def refusal(path, **options):
    with pytest.raises(InputError) as error:
        DatasetFolder.open(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def unsealed(dataset):
    splits = dataset.manifest.splits.items()
    splits = {name: dataclasses.replace(split, sha256=None) for name, split in splits}
    return dataclasses.replace(dataset.manifest, splits=splits, files={})


def test_what_is_written_is_read(folder):
    dataset = DatasetFolder.open(folder)
    assert unsealed(dataset) == MANIFEST
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
    vocabulary = tmp_path / "another.model"
    vocabulary.write_text("pieces")
    copy = tmp_path / "model/catalogue"
    dataset_folder.copy_catalogue(DatasetFolder.open(folder), copy, vocabulary)
    opened = DatasetFolder.open(copy)
    assert opened.movies().equals(DatasetFolder.open(folder).movies())
    assert opened.vocabulary_path.read_text() == "pieces"
    opened.vocabulary_path.write_text("pisces")
    assert "sentencepiece.model: damaged" in refusal(copy)


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
    assert f"{file}: missing; copy the whole folder again" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format_version": 5}, "format version 5 is newer than 4"),
        ({"format_version": 1}, "format version 1 is older than 3; `uem-t5x seal"),
        ({"format_version": 2}, "format version 2 is older than 3; `uem-t5x seal"),
        ({"format_version": "one"}, "format version 'one' is not a number"),
        ({"genres": ["Drama", "Wax"]}, "manifest.json: damaged: its checksum is another"),
        ({"surprise": 1}, "manifest.json: damaged: its checksum is another"),
    ],
)
def test_a_manifest_that_is_not_what_was_written(folder, change, expected):
    edit_manifest(folder, **change)
    assert expected in refusal(folder)


def edit_manifest(folder, **change):
    manifest = json.loads((folder / "manifest.json").read_text()) | change
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "change",
    [
        {"channels": None},
        {"encoder": {"name": "hashing"}},
        {"files": ["items/movies.parquet"]},
        {"splits": {"train": {"examples": 3, "shards": 10**9}}},
        {"splits": {"train": {"examples": 3, "shards": "x"}}},
        {"surprise": 1},
    ],
)
def test_a_manifest_that_cannot_be_sealed(folder, change):
    edit_manifest(folder, **change)
    with pytest.raises(InputError, match=r"manifest.json: damaged \("):
        seal.seal(folder)


def test_a_channel_is_added_by_hand(folder):
    file = folder / dataset_folder.EMBEDDINGS
    poster = {"name": "poster", "width": 2, "index": "item"}
    channels = [dataclasses.asdict(channel) for channel in MANIFEST.channels] + [poster]
    edit_manifest(folder, channels=channels)
    assert "`uem-t5x seal" in refusal(folder)
    with pytest.raises(InputError, match=r"'poster' needs a matrix float32\[3, 2\], there is none"):
        seal.seal(folder)
    save_file(load_file(file) | {"poster": np.ones((3, 2), np.float32)}, file)
    assert seal.seal(folder).channels[-1] == Channel("poster", 2, "item")
    assert DatasetFolder.open(folder).embeddings()["poster"].shape == (3, 2)


@pytest.mark.parametrize("content", [None, b"nonsense"])
def test_matrices_that_cannot_be_read_are_not_sealed(folder, content):
    matrices = folder / "items/embeddings.safetensors"
    matrices.unlink()
    if content:
        matrices.write_bytes(content)
    with pytest.raises(InputError, match="movies or matrices cannot be read"):
        seal.seal(folder)


def test_a_folder_without_checksums_is_sealed(folder):
    manifest = json.loads((folder / "manifest.json").read_text()) | {"format_version": 1}
    del manifest["files"], manifest["checksum"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert unsealed(seal.seal(folder)) == MANIFEST


@pytest.mark.parametrize(
    ("sums", "is_same"),
    [(("a1", "a1"), True), (("a1", "b2"), False), ((None, "b2"), True), ((None, None), True)],
)
def test_an_encoder_is_told_by_its_weights_and_not_by_their_place(sums, is_same, folder):
    def of_encoder(source, sha256):
        encoder = EncoderRecord("sentence-t5-base", 4, source, sha256)
        dataset_folder.write_manifest(folder, dataclasses.replace(MANIFEST, encoder=encoder))
        return DatasetFolder.open(folder)

    one, other = of_encoder("here/st5", sums[0]), of_encoder("there/st5", sums[1])
    assert one.has_catalogue_of(other) == other.has_catalogue_of(one) == is_same
    assert other.encoder == EncoderRecord("sentence-t5-base", 4, "there/st5", sums[1])


def test_a_manifest_of_an_encoder_without_weights_has_no_field_for_them(folder):
    record = json.loads((folder / "manifest.json").read_text())["encoder"]
    assert record == {"name": "hashing", "width": 4, "source": None}  # as older versions know it


def test_a_split_is_told_by_what_its_files_hold(folder):
    def written():
        dataset_folder.write_manifest(folder, MANIFEST)
        return DatasetFolder.open(folder)

    before = DatasetFolder.open(folder)
    digests = [split.sha256 for split in before.manifest.splits.values()]
    assert len(set(digests)) == 2 and None not in digests
    first, second = before.examples("train")
    contents = first.read_bytes(), second.read_bytes()
    first.write_text("a user")
    changed = written()
    assert changed.has_catalogue_of(before) and changed.has_inputs_of(before)
    assert not changed.has_split_of(before, "train") and changed.has_split_of(before, "test")
    second.write_text("a user")
    first.write_bytes(contents[1])
    assert not written().has_split_of(changed, "train")  # in another order
    for file, content in zip((first, second), contents):
        file.write_bytes(content)
    assert written().has_split_of(before, "train")


def test_a_catalogue_keeps_what_tells_its_splits(folder, tmp_path):
    dataset = DatasetFolder.open(folder)
    dataset_folder.copy_catalogue(dataset, tmp_path / "copy", dataset.vocabulary_path)
    copy = DatasetFolder.open(tmp_path / "copy")
    assert copy.is_catalogue and not dataset.is_catalogue
    assert copy.manifest.splits == dataset.manifest.splits


def test_an_older_catalogue_is_sealed_and_knows_no_users(folder, tmp_path):
    dataset = DatasetFolder.open(folder)
    copy = tmp_path / "copy"
    dataset_folder.copy_catalogue(dataset, copy, dataset.vocabulary_path)
    splits = {name: {"examples": 3, "shards": 2} for name in dataset.manifest.splits}
    edit_manifest(copy, format_version=2, splits=splits)
    assert "format version 2 is older than 3; `uem-t5x seal" in refusal(copy)
    assert seal.seal(copy).movies().equals(dataset.movies())
    assert all(dataset.has_split_of(DatasetFolder.open(copy), split) for split in splits)
    (copy / dataset_folder.MOVIES).unlink()
    with pytest.raises(InputError, match=r"items/movies.parquet: missing from the folder"):
        seal.seal(copy)


def test_no_file_outside_the_folder_is_read(folder, tmp_path):
    for name in ("../parent/secret", str(tmp_path / "secret")):
        manifest = dataclasses.replace(MANIFEST, files={name: "0"})
        manifest.write(folder)
        assert "which lies outside of it" in refusal(folder)


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
    assert unsealed(DatasetFolder.open(folder)) == MANIFEST
    assert [path.name for path in folder.parent.iterdir()] == ["dataset"]


def test_overwriting_asks_for_leave(folder):
    with pytest.raises(InputError, match="replace it with --overwrite"):
        write(folder)
    (folder / "examples/train-00007-of-00008.tfrecord").touch()
    write(folder, overwrite=True)
    assert not (folder / "examples/train-00007-of-00008.tfrecord").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["dataset"]


def test_nothing_else_is_ever_replaced(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="exists and is not just a dataset folder"):
        write(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("name", ["model/config.gin", "items/notes.txt", "items/link"])
def test_a_dataset_folder_that_holds_something_else_is_not_replaced(name, folder, tmp_path):
    other = folder / name
    other.parent.mkdir(exist_ok=True)
    other.symlink_to(tmp_path) if "link" in name else other.touch()
    with pytest.raises(InputError, match="is not just a dataset folder"):
        write(folder, overwrite=True)
    assert other.exists()


def test_a_trained_models_catalogue_is_not_replaced(folder, tmp_path):
    catalogue = tmp_path / "model/catalogue"
    vocabulary = tmp_path / "spiece.model"
    vocabulary.touch()
    dataset_folder.copy_catalogue(DatasetFolder.open(folder), catalogue, vocabulary)
    with pytest.raises(InputError, match="is not just a dataset folder"):
        write(catalogue, overwrite=True)
    DatasetFolder.open(catalogue)


def test_a_manifest_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "web app"}')
    with pytest.raises(InputError, match="exists and is not just a dataset folder"):
        write(tmp_path, overwrite=True)
    assert (tmp_path / "manifest.json").exists()


def test_a_link_stays_one(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    write(link, overwrite=True)
    assert link.is_symlink()
    assert unsealed(DatasetFolder.open(folder)) == MANIFEST
    assert [path.name for path in tmp_path.glob(".link*")] == []


def test_an_empty_folder_may_be_written_into(tmp_path):
    (tmp_path / "new").mkdir()
    assert unsealed(DatasetFolder.open(write(tmp_path / "new"))) == MANIFEST


@pytest.mark.parametrize("is_own", [False, True])
def test_what_a_killed_process_left_is_removed(folder, is_own):
    with subprocess.Popen(["true"]) as process:
        process.wait()
    # In a container that is started again, the same command has the same number.
    number = os.getpid() if is_own else process.pid
    left = folder.with_name(f".dataset.partial-{platform.node()}-{number}")
    of_others = [
        folder.with_name(f".dataset.partial-another-machine-{number}"),
        folder.with_name(f".dataset.partial-{platform.node()}-{os.getppid()}"),
    ]
    # Killed while it put a new folder into the place of the one that was there.
    replaced = left.with_name(f"{left.name}-replaced")
    folder.rename(replaced)
    left.mkdir()
    for other in of_others:
        other.mkdir()
    with pytest.raises(InputError, match="replace it with --overwrite"):
        write(folder)
    assert DatasetFolder.open(folder).genres == ("Drama", "War")
    assert not left.exists()
    assert all(other.exists() for other in of_others)
