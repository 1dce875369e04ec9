"""Channels that are added to a dataset folder, listed and removed."""

import shutil

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from uem_t5x import cli
from uem_t5x.base.errors import InputError
from uem_t5x.data import channels
from uem_t5x.data.dataset_folder import DatasetFolder


@pytest.fixture
def folder(dataset_folder, tmp_path):
    return shutil.copytree(dataset_folder.path, tmp_path / "folder")


@pytest.fixture
def ids(dataset_folder):
    """Of three movies, not in the order of the rows."""
    return dataset_folder.movies()["movieId"].to_numpy()[[9, 4, 7]]


VECTORS = np.array([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0]], np.float32)
UNIT = np.array([[0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]], np.float32)


def write(path, ids, vectors=VECTORS, id_name="movieId"):
    if path.suffix == ".parquet":
        pl.DataFrame({id_name: ids, "vector": vectors.tolist()}).write_parquet(path)
    elif path.suffix == ".safetensors":
        save_file({"ids": np.asarray(ids), "vectors": vectors}, path)
    else:
        np.save(path, vectors)
        np.save(path.with_name("ids.npy"), ids)
    return path


def bytes_of(folder):
    return {
        file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


@pytest.mark.parametrize("suffix", ["parquet", "safetensors", "npy"])
def test_vectors_are_put_where_their_items_are(folder, ids, tmp_path, suffix):
    before = DatasetFolder.open(folder)
    file = write(tmp_path / f"poster.{suffix}", ids)
    added = channels.add(
        folder, "poster", file, ids=tmp_path / "ids.npy" if suffix == "npy" else None
    )
    after = DatasetFolder.open(folder)
    assert [channel.name for channel in after.channels] == [
        *(channel.name for channel in before.channels),
        "poster",
    ]
    assert (added.channel.width, added.filled) == (2, 3)
    assert added.rows == before.movies().height - 1
    matrix = after.embedding("poster")
    np.testing.assert_allclose(matrix[[9, 4, 7]], UNIT, rtol=1e-6)
    assert not np.delete(matrix, [9, 4, 7], axis=0).any()
    for name, values in before.embeddings().items():
        np.testing.assert_array_equal(after.embedding(name), values)
    assert after.fingerprint("train") == before.fingerprint("train")


def test_a_matrix_may_be_in_the_order_of_the_rows(folder, dataset_folder, tmp_path):
    rows = dataset_folder.movies().height - 1
    np.save(tmp_path / "all.npy", np.arange(2.0, 2 * rows + 2).reshape(rows, 2))
    assert channels.add(folder, "poster", tmp_path / "all.npy").filled == rows
    matrix = DatasetFolder.open(folder).embedding("poster")
    np.testing.assert_allclose(matrix[1], np.array([2.0, 3.0]) / np.sqrt(13), rtol=1e-6)
    assert not matrix[0].any()


def test_vectors_of_ratings_are_by_stars(folder, tmp_path):
    file = write(tmp_path / "stars.parquet", [0.5, 5.0, 3.5], id_name="rating")
    added = channels.add(folder, "stars", file, index="rating")
    assert (added.filled, added.rows) == (3, 10)
    matrix = DatasetFolder.open(folder).embedding("stars")
    np.testing.assert_allclose(matrix[[1, 10, 7]], UNIT, rtol=1e-6)


def test_what_was_added_can_be_removed(folder, ids, tmp_path):
    before = bytes_of(folder)
    channels.add(folder, "poster", write(tmp_path / "poster.parquet", ids))
    channels.remove(folder, "poster")
    after = bytes_of(folder)
    assert after.keys() == before.keys()
    changed = {str(name) for name in before if before[name] != after[name]}
    assert changed <= {"items/embeddings.safetensors", "manifest.json"}  # the order of tensors


def test_a_channel_of_sentences_is_not_replaced_by_another(folder, ids, tmp_path):
    """`predict` would encode what is told of an item, and take it for such a vector."""
    channels.remove(folder, "description")
    with pytest.raises(InputError, match="'description': what is told of items is called so"):
        channels.add(folder, "description", write(tmp_path / "a.parquet", ids))


def test_the_last_one_stays(folder, dataset_folder):
    names = [channel.name for channel in dataset_folder.channels]
    for name in names[1:]:
        channels.remove(folder, name)
    with pytest.raises(InputError, match="is its only channel; add another one first"):
        channels.remove(folder, names[0])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Poster", {}, r"^--name 'Poster': use small letters, digits and _"),
        ("rating", {}, r"already has a channel 'rating'; give --name another one"),
        ("poster", {"ids": [1, 2, 987_654]}, "vector 2 is of 987654, which the folder does not"),
        ("poster", {"ids": "twice"}, r"vectors 0 and 1 are both of \d+"),
        ("poster", {"vectors": np.where(VECTORS == 2, np.nan, VECTORS)}, "vector 1, of .* finite"),
        ("poster", {"vectors": VECTORS[:, :0]}, "no matrix of numbers|not as long"),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "safetensors"])
def test_what_is_refused_leaves_the_folder_as_it_was(
    folder, ids, tmp_path, name, change, message, suffix
):
    before = bytes_of(folder)
    asked = dict({"ids": ids, "vectors": VECTORS}, **change)
    if isinstance(asked["ids"], str):
        asked["ids"] = ids[[0, 0, 1]]
    elif asked["ids"] is not ids:
        asked["ids"] = np.array([*ids[:2], asked["ids"][-1]])
    file = write(tmp_path / f"poster.{suffix}", **asked)
    with pytest.raises(InputError, match=message):
        channels.add(folder, name, file)
    assert bytes_of(folder) == before


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.csv", b"1,2", r"give --vectors a file of \.npy, \.parquet, \.safetensors"),
        ("a.npy", None, "a.npy: no such file"),
        ("a.npy", b"nonsense", "vectors cannot be read"),
        ("a.safetensors", b"nonsense", "vectors cannot be read"),
        ("a.parquet", b"nonsense", "vectors cannot be read"),
    ],
)
def test_files_that_are_none(folder, tmp_path, file, content, message):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=message):
        channels.add(folder, "poster", tmp_path / file)


def test_columns_that_are_missing(folder, tmp_path):
    pl.DataFrame({"item": [1], "vector": [[1.0]]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no column 'movieId'; it has item, vector"):
        channels.add(folder, "poster", tmp_path / "a.parquet")
    save_file({"vectors": VECTORS}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="needs the tensors 'ids' and 'vectors'; it has vectors"):
        channels.add(folder, "poster", tmp_path / "a.safetensors")
    np.save(tmp_path / "a.npy", VECTORS)
    with pytest.raises(InputError, match=r"3 vectors, and .* rows that could have one; .*--ids"):
        channels.add(folder, "poster", tmp_path / "a.npy")


def test_on_the_command_line(folder, ids, tmp_path, capsys):
    file = write(tmp_path / "poster.parquet", ids)
    arguments = [str(folder), "--name", "poster"]
    assert cli.main(["channel", "add", *arguments, "--vectors", str(file)]) == 0
    said = capsys.readouterr().out
    assert "poster: 2 columns, 3 of" in said and "without a vector are zeros" in said
    assert cli.main(["channel", "list", str(folder)]) == 0
    assert "poster: 2 columns, 3 of" in capsys.readouterr().out
    assert cli.main(["channel", "remove", *arguments]) == 0
    assert cli.main(["channel", "remove", *arguments]) == 2
    assert (
        "no channel 'poster'; it has title_genres, rating, description" in capsys.readouterr().err
    )
