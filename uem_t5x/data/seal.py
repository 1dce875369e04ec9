"""Takes a dataset folder that was changed by hand for what it is now.

A fourth channel, say, is a matrix in `items/embeddings.safetensors` and a line in the manifest;
other labels are in the examples.
"""

import collections
import os
import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from uem_t5x.base import startup
from uem_t5x.base.errors import InputError, said_by_tensorflow
from uem_t5x.tastes.rating_scale import MAX_HALF_STARS

if TYPE_CHECKING:
    import numpy as np
    from etils import epath

    from uem_t5x.data.dataset_folder import DatasetFolder

_USERS_AT_A_TIME = 4096


def seal(path: str | os.PathLike[str]) -> "DatasetFolder":
    """Writes a folder's checksums, and how often its movies were rated, anew in this format.

    Args:
        path: a dataset folder, or a catalogue, of this format or an older one.

    Returns:
        The folder, opened.

    Raises:
        InputError: if a file is missing, the matrices are not those of the manifest's channels, the
            users of a split are not as many as the manifest's, a user is there twice, their history
            is none of the items, or their labels are none that an answer can name. Then nothing is
            written.
    """
    from etils import epath
    from polars.exceptions import PolarsError
    from safetensors import SafetensorError

    from uem_t5x.data import dataset_folder
    from uem_t5x.data.manifest import Manifest

    folder = dataset_folder.DatasetFolder(epath.Path(path), Manifest.read(path, edited=True))
    if folder.is_catalogue:
        dataset_folder.write_catalogue_manifest(folder.path, folder.manifest)
        return dataset_folder.DatasetFolder.open(path)
    try:
        _check_channels(folder)
    except (OSError, SafetensorError, PolarsError) as error:
        raise InputError(
            f"{folder.path}: movies or matrices cannot be read ({error}); mend them, or copy the "
            "folder again"
        ) from error
    counts = _check_users(folder)
    if not folder.telling.has_questions:  # of which nobody can tell whose they are
        dataset_folder.write_rating_counts(folder.path, counts)
    dataset_folder.write_manifest(folder.path, folder.manifest)
    return dataset_folder.DatasetFolder.open(path)


def _check_channels(folder: "DatasetFolder") -> None:
    import numpy as np

    names = collections.Counter(channel.name for channel in folder.channels)
    for name, count in names.items():
        if count > 1:
            raise InputError(
                f"{folder.path}: manifest.json has {count} channels {name!r}; leave one"
            )
    matrices = folder.embeddings()
    for channel in folder.channels:
        matrix = matrices.get(channel.name)
        wanted = folder.embedding_shape(channel)
        if matrix is None or matrix.shape != wanted or matrix.dtype != "float32":
            found = "none" if matrix is None else f"{matrix.dtype}{list(matrix.shape)}"
            raise InputError(
                f"{folder.path}: the channel {channel.name!r} needs a matrix float32{list(wanted)}"
                f", there is {found}; mend items/embeddings.safetensors or manifest.json"
            )
        is_finite = np.isfinite(matrix).all(axis=1)
        if not is_finite.all():
            raise InputError(
                f"{folder.path}: row {is_finite.argmin()} of the channel {channel.name!r} needs "
                "finite numbers; mend items/embeddings.safetensors"
            )


def _check_users(folder: "DatasetFolder") -> "np.ndarray":
    """Returns how many users of training rated each movie, [rows]."""
    import numpy as np

    most, genres = folder.telling.rule.most, {genre.encode() for genre in folder.genres}
    last_row = len(folder.movies()) - 1
    counts = np.zeros(last_row + 1, np.int64)
    file_of: dict[bytes, epath.Path] = {}  # of every user: some 100 bytes each
    for split, record in folder.manifest.splits.items():
        others = len(file_of)
        for file in folder.examples(split):
            for users in read_users(file):
                ids = users["user_id"].numpy().tolist()
                _add_users(ids, file, file_of)
                if found := _problem_of_history(users, last_row):
                    user, problem = found
                    raise InputError(
                        f"{file}: user {_text(ids[user])}: {problem}; give each item of a history "
                        f"a row of the movie table and a rating of 1 to {MAX_HALF_STARS} half-stars"
                    )
                if split == "train":
                    rated = users["history_items"].flat_values.numpy()
                    counts += np.bincount(rated, minlength=len(counts))
                labels = zip(ids, users["liked"].to_list(), users["disliked"].to_list())
                for user, liked, disliked in labels:
                    if problem := _problem(liked, disliked, genres, most):
                        raise InputError(
                            f"{file}: user {_text(user)}: {problem}; give each user at most "
                            f"{most} genres of manifest.json a side, and none twice"
                        )
        if (count := len(file_of) - others) != record.examples:
            raise InputError(
                f"{folder.path}: the split {split!r} has {record.examples} users in manifest.json "
                f"and {count} in its files; mend the number (`examples`), or copy the files again"
            )
    return counts


def _add_users(
    ids: Sequence[bytes], file: "epath.Path", file_of: "dict[bytes, epath.Path]"
) -> None:
    """Adds users to those of the files before, of whom none may be there again.

    A model would be scored on users that it learned from, and nobody could tell whose an answer is.

    Raises:
        InputError: if one is, or has a name that is no text.
    """
    for user in ids:
        if other := file_of.get(user):
            place = "it twice" if other == file else f"{other.name}, too"
            raise InputError(
                f"{file}: user {_text(user)}: is in {place}; leave one example of each user_id, in "
                "one split"
            )
        try:
            user.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{file}: user {_text(user)}: the user_id is no UTF-8; give texts"
            ) from error
        file_of[user] = file


def read_users(file: "epath.Path") -> Iterator[dict[str, Any]]:
    """Yields the examples of a file, many at a time, as tensors of TensorFlow by their names.

    Raises:
        InputError: if these are no examples of users.
    """
    startup.load("tensorflow")
    import tensorflow as tf

    features = {
        "user_id": tf.io.FixedLenFeature([], tf.string),
        **{name: tf.io.RaggedFeature(tf.int64) for name in ("history_items", "history_ratings")},
        **{name: tf.io.RaggedFeature(tf.string) for name in ("liked", "disliked")},
    }
    try:
        for records in tf.data.TFRecordDataset(os.fspath(file)).batch(_USERS_AT_A_TIME):
            yield tf.io.parse_example(records, features)
    except tf.errors.OpError as error:
        raise InputError(
            f"{file}: no users can be read from it ({said_by_tensorflow(error)}); mend it, or copy "
            "the folder again"
        ) from error


def _problem_of_history(users: Mapping[str, Any], last_row: int) -> tuple[int, str] | None:
    """Returns the first user whose history cannot be read, and why not; None if there is none."""
    import numpy as np

    items, ratings = users["history_items"], users["history_ratings"]
    differs = items.row_lengths().numpy() != ratings.row_lengths().numpy()
    if differs.any():
        user = int(differs.argmax())
        return user, f"{len(items[user])} items and {len(ratings[user])} ratings"
    for name, rows, most in (("item", items, last_row), ("rating", ratings, MAX_HALF_STARS)):
        values = rows.flat_values.numpy()
        is_wrong = (values < 1) | (values > most)
        if is_wrong.any():
            first = int(is_wrong.argmax())
            user = int(np.searchsorted(rows.row_splits.numpy(), first, side="right")) - 1
            return user, f"the {name} {values[first]} is not one of 1 to {most}"
    return None


def _problem(
    liked: Sequence[bytes], disliked: Sequence[bytes], genres: Collection[bytes], most: int
) -> str | None:
    """Returns what is wrong with the labels of a user; None if nothing is."""
    both = [*liked, *disliked]
    for name in both:
        if name not in genres:
            return f"the label {_text(name)} is no genre"
    name, count = collections.Counter(both).most_common(1)[0] if both else (b"", 0)
    if count > 1:
        return f"the label {_text(name)} stands there {count} times"
    for kind, names in {"liked": liked, "disliked": disliked}.items():
        if len(names) > most:
            return f"the label {_text(names[most])} is number {most + 1} of those {kind}"
    return None


def _text(name: bytes) -> str:
    return reprlib.repr(name.decode("utf-8", "backslashreplace"))
