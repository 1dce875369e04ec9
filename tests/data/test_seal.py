"""Labels of one's own, checked before a folder is sealed."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from uem_t5x import cli
from uem_t5x.base.errors import InputError
from uem_t5x.data import seal
from uem_t5x.data.dataset_folder import DatasetFolder


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
    return file, feature["user_id"].bytes_list.value[0].decode(errors="replace")


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


def user_of(folder, split):
    (file,) = DatasetFolder.open(folder).examples(split)
    (example,) = map(tf.train.Example.FromString, dataset_of(file).take(1).as_numpy_iterator())
    return example.features.feature["user_id"].bytes_list.value[0]


def dataset_of(file):
    return tf.data.TFRecordDataset(str(file))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_user_is_in_one_split_once(split, mine, capsys):
    other = user_of(mine, split)
    file, user = rewrite(mine, user_id=[other])
    before = (mine / "manifest.json").read_bytes()
    assert cli.main(["seal", str(mine)]) == 2
    if split != "train":  # it is read after it, so that the second of the two is there
        file, place = file.with_name(f"{split}-00000-of-00001.tfrecord"), f"{file.name}, too"
    else:
        place = "it twice"
    error = capsys.readouterr().err
    assert f"{file}: user {user!r}: is in {place}; leave one example of each user_id" in error
    assert error.count("\n") == 1
    assert (mine / "manifest.json").read_bytes() == before


def test_the_users_of_another_split_are_refused(mine):
    user = user_of(mine, "validation").decode()
    validation, test = (
        mine / f"examples/{s}-00000-of-00001.tfrecord" for s in ("validation", "test")
    )
    shutil.copy(validation, test)
    with pytest.raises(InputError, match=f"{test}: user '{user}': is in {validation.name}, too;"):
        seal.seal(mine)


def test_a_user_has_a_name_that_is_text(mine):
    file, _ = rewrite(mine, user_id=[b"J\xf6rg"])
    with pytest.raises(InputError, match=r"user 'J\\\\xf6rg': the user_id is no UTF-8") as error:
        seal.seal(mine)
    assert str(error.value).startswith(str(file))


def test_a_user_who_is_left_out_is_missed(mine):
    (file,) = DatasetFolder.open(mine).examples("train")
    records = list(dataset_of(file).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records[1:]:
            writer.write(record)
    users = len(records)
    expected = f"'train' has {users} users in manifest.json and {users - 1} in its files; mend the"
    with pytest.raises(InputError, match=expected):
        seal.seal(mine)
    manifest = json.loads((mine / "manifest.json").read_text())
    manifest["splits"]["train"]["examples"] = users - 1
    (mine / "manifest.json").write_text(json.dumps(manifest))
    assert seal.seal(mine).num_examples("train") == users - 1


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
