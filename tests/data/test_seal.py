"""Labels of one's own, checked before a folder is sealed."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from uem_t5x import cli
from uem_t5x.data import seal
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.errors import InputError


@pytest.fixture
def mine(dataset_folder, tmp_path):
    return shutil.copytree(dataset_folder.path, tmp_path / "mine")


def rewrite(folder, **lists):
    """Gives other values to one of the users for training; returns the file and the user's name."""
    (file,) = DatasetFolder.open(folder).examples("train")
    examples = [
        tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))
    ]
    feature = examples[7].features.feature
    for name, values in lists.items():
        kind = "int64_list" if name.startswith("history") else "bytes_list"
        getattr(feature[name], kind).value[:] = values
    with tf.io.TFRecordWriter(str(file)) as writer:
        for example in examples:
            writer.write(example.SerializeToString())
    return file, feature["user_id"].bytes_list.value[0].decode()


@pytest.mark.parametrize(
    ("liked", "disliked", "expected"),
    [
        ([b"Drama", b"Wax"], [], "the label 'Wax' is no genre"),
        ([], [b"drama"], "the label 'drama' is no genre"),
        ([b"\xff\n"], [], r"the label '\\xff\n' is no genre"),
        ([b"War", b"Drama", b"War"], [], "the label 'War' stands there 2 times"),
        ([b"War"], [b"Drama", b"War"], "the label 'War' stands there 2 times"),
        (
            [],
            [b"War", b"Drama", b"Crime", b"Action"],
            "the label 'Action' is number 4 of those dis",
        ),
    ],
)
def test_labels_that_no_answer_names_are_refused(liked, disliked, expected, mine, capsys):
    file, user = rewrite(mine, liked=liked, disliked=disliked)
    before = (mine / "manifest.json").read_bytes()
    assert cli.main(["seal", str(mine)]) == 2
    error = capsys.readouterr().err
    assert f"{file}: user {user!r}: {expected}" in error
    assert "; give each user at most 3 genres of manifest.json a side, and none twice" in error
    assert error.count("\n") == 1
    assert (mine / "manifest.json").read_bytes() == before


def test_other_labels_are_sealed(mine):
    rewrite(mine, liked=[b"War", b"Drama", b"Crime"], disliked=[b"Action"])
    with pytest.raises(InputError, match="damaged: its checksum is another"):
        DatasetFolder.open(mine)
    seal.seal(mine)
    DatasetFolder.open(mine)


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("history_ratings", [90, 70], "the rating 90 is not one of 1 to 10"),
        ("history_ratings", [3, 0], "the rating 0 is not one of 1 to 10"),
        ("history_items", [1, 5000], "the item 5000 is not one of 1 to 120"),
        ("history_items", [1, 2, 3], "3 items and 2 ratings"),
    ],
)
def test_histories_that_no_model_reads_are_refused(name, values, problem, mine, capsys):
    history = {"history_items": [1, 2], "history_ratings": [1, 2], name: values}
    file, user = rewrite(mine, **history)
    assert cli.main(["seal", str(mine)]) == 2
    assert f"{file}: user {user!r}: {problem}; give each item" in capsys.readouterr().err


def test_a_channel_is_listed_once(mine):
    manifest = mine / "manifest.json"
    fields = json.loads(manifest.read_text())
    fields["channels"].append(fields["channels"][0])
    manifest.write_text(json.dumps(fields))
    with pytest.raises(InputError, match="has 2 channels 'title_genres'; leave one"):
        seal.seal(mine)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_vectors_that_are_no_numbers_are_refused(value, mine):
    matrices = DatasetFolder.open(mine).embeddings()
    matrices["description"][5, 2] = value
    save_file(matrices, mine / "items/embeddings.safetensors")
    with pytest.raises(InputError, match="row 5 of the channel 'description' needs finite numbers"):
        seal.seal(mine)


def test_what_holds_no_users_is_not_sealed(mine):
    file = DatasetFolder.open(mine).examples("test")[0]
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(tf.train.Example().SerializeToString())
    with pytest.raises(InputError, match=r"tfrecord: no users can be read from it \(.*user_id"):
        seal.seal(mine)
    file.write_text("a user, and not in the form of a record")
    with pytest.raises(InputError, match=r"no users can be read from it \(corrupted record"):
        seal.seal(mine)
    file.unlink()
    with pytest.raises(InputError, match=r"no users can be read from it \(.*No such file"):
        seal.seal(mine)
