"""Scores a checkpoint beside the baselines."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from uem_t5x.base import atomic
from uem_t5x.base.errors import InputError
from uem_t5x.tastes.rating_scale import HALF_STARS_PER_STAR

if TYPE_CHECKING:
    from uem_t5x.answers.trained_model import TrainedModel
    from uem_t5x.data.dataset_folder import DatasetFolder
    from uem_t5x.tastes import baselines
    from uem_t5x.tastes.metrics import Taste

_SHOWN_USERS, _SHOWN_ITEMS = 6, 10


def write_metrics(result: dict[str, Any], output: epath.PathLike) -> None:
    """Writes what `evaluate` returned as JSON: the whole file or none."""
    atomic.write_text(output, json.dumps(result, indent=2) + "\n")


def evaluate(
    trained: "TrainedModel",
    split: str = "test",
    data_dir: str | None = None,
    batch_size: int | None = None,
    answers_file: epath.PathLike | None = None,
) -> dict[str, Any]:
    """Scores a model and the baselines on the users of a split.

    Args:
      trained: the model.
      split: `train`, `validation` or `test`.
      data_dir: a dataset folder of the same catalogue; the one of the recipe by default.
      batch_size: users that are answered at once; it does not change the scores.
      answers_file: gets a JSON line for each user of the split: `user_id`, `items` (how many the
        model read), `answer`, `liked` and `disliked` as read back from it (null where that fails),
        `true_liked`, `true_disliked`, and the `f1` of both kinds together (0 where reading fails).

    Returns:
      By name, where older versions left out what is starred:

      - `methods`: for each its scores; `uem` or `text`, `counting` over whole histories, `rule`
        over the items that the model read;
      - `intervals`*: for each method the 95 % bootstrap interval over users of each of
        `uncertainty.F1S`;
      - `marks`*: what is true of every user and what the model said, see `uncertainty.Marks`;
      - `per_genre` rows and `confusion` of the model;
      - `by_margin`* and `by_count`*: what the methods say of genres that are alike, see
        `difficulty`;
      - `items_read`: least, mean and most items that it read of a user;
      - `users`: some of them, from the worst answered to the best;
      - `examples`, `split`, `split_sha256` (of its users and labels) and `task`;
      - `history_length`: if the task does not tell, the most items that it read of a user;
      - of the checkpoint its `step`, `trained_steps`* (how far training had come when it was
        scored) and `is_best`* (whether it is what is scored where no step is given);
      - `well_formed`*: whether answers were kept within the grammar.

    Raises:
      InputError: if the dataset folder is of another catalogue than the model's, or of the same
        users split or labelled otherwise, the split has no users, or the task leaves some out or
        gives them in another order.
    """
    import numpy as np

    from uem_t5x.base import progress
    from uem_t5x.data.dataset_folder import DatasetFolder
    from uem_t5x.inputs import users as users_lib
    from uem_t5x.inputs.questions import Questions
    from uem_t5x.tastes import baselines, difficulty, metrics, uncertainty, verbalizer

    if data_dir is None and trained.data_dir is None:
        raise InputError(
            "the model's recipe names no DATA_DIR; give the dataset folder: --data-dir"
        )
    if data_dir is None and not epath.Path(trained.data_dir).exists():
        raise InputError(
            f"{trained.data_dir}: no such folder; it is the recipe's DATA_DIR, as seen from where "
            "the model was trained; give the dataset folder as --data-dir"
        )
    folder = DatasetFolder.open(data_dir or trained.data_dir)
    if not folder.has_catalogue_of(trained.catalogue):
        raise InputError(
            f"{folder.path}: not the catalogue that the model was trained on (other movies, genres "
            "or sentence encoder); give the dataset folder of its training"
        )
    is_of_its_data = folder.has_inputs_of(trained.catalogue)
    if is_of_its_data and not folder.has_split_of(trained.catalogue, "train"):
        raise InputError(
            f"{folder.path}: the data that the model was trained on, split or labelled otherwise, "
            f"so that it may know users of {split!r}; give the dataset folder of its training"
        )
    if not folder.num_examples(split):
        raise InputError(f"{folder.path}: the split {split!r} has no users; choose another --split")
    batch_size = trained.batch_size if batch_size is None else batch_size
    answerer = trained.answerer(batch_size)
    users = users_lib.read(folder, split)
    answers: list[str] = []
    asked_of: list[Questions] = []
    with progress.counting("answering", len(users.ids)) as advance:
        for index, batch in enumerate(_batches(users, batch_size)):
            asked = trained.ask(batch)
            answers += answerer(asked.features, index=index)
            asked_of.append(asked)
            advance(len(batch))
    items, half_stars, items_read = (
        np.concatenate([getattr(asked, name) for asked in asked_of])
        for name in ("items", "half_stars", "items_read")
    )
    as_read = users.reading(items, half_stars, items_read)
    predicted = [
        verbalizer.read_taste(answer, folder.genres, folder.telling.wording) for answer in answers
    ]
    genres, numbers = (folder.genre_matrix(), folder.genres), folder.telling.rule
    predictions = {
        "uem" if trained.reads_embeddings else "text": predicted,
        "counting": baselines.counting(users, *genres, numbers.most),
        "rule": baselines.rule(as_read, *genres, numbers),
    }
    answered = _answered(users, items_read.tolist(), answers, predicted)
    if answers_file is not None:
        with atomic.writing_file(answers_file) as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in answered)
    return {
        "methods": {
            name: metrics.score(users.tastes, tastes, folder.genres)
            for name, tastes in predictions.items()
        },
        "intervals": {
            name: uncertainty.intervals(users.tastes, tastes, folder.genres)
            for name, tastes in predictions.items()
        },
        "marks": uncertainty.Marks.of(users.tastes, predicted, folder.genres)._asdict(),
        "per_genre": [
            dataclasses.asdict(row)
            for row in metrics.per_genre(users.tastes, predicted, folder.genres)
        ],
        "confusion": metrics.confusion(users.tastes, predicted, folder.genres),
        "by_margin": [
            dataclasses.asdict(group)
            for group in difficulty.by_margin(users, predictions, *genres, numbers)
        ],
        "by_count": [
            dataclasses.asdict(group)
            for group in difficulty.by_count(users, predictions, *genres, numbers)
        ],
        "items_read": {
            "least": int(items_read.min()),
            "mean": float(items_read.mean()),
            "most": int(items_read.max()),
        },
        "users": _some_users(users, folder, answered),
        "examples": len(users.tastes),
        "history_length": trained.history_length or int(items_read.max()),
        "step": trained.step,
        "trained_steps": trained.trained_steps,
        "is_best": trained.is_best,
        "well_formed": trained.well_formed,
        "split": split,
        "split_sha256": folder.manifest.splits[split].sha256,
        "task": trained.task,
    }


def _batches(users: "baselines.Users", size: int) -> Iterator[list[dict[str, Any]]]:
    """Yields users as a dataset folder holds them, so many at once."""
    for first in range(0, len(users.ids), size):
        batch = []
        for user in range(first, min(first + size, len(users.ids))):
            items, half_stars = users.history(user)
            ratings = {"history_items": items, "history_ratings": half_stars}
            batch.append({"user_id": users.ids[user].encode(), **ratings})
        yield batch


def _answered(
    users: "baselines.Users",
    items_read: Sequence[int],
    answers: Sequence[str],
    predicted: "Sequence[Taste | None]",
) -> list[dict[str, Any]]:
    """Returns what `answers_file` says of each user."""
    from uem_t5x.tastes import metrics

    rows = []
    for user_id, items, answer, taste, truth in zip(
        users.ids, items_read, answers, predicted, users.tastes
    ):
        liked, disliked = taste or (None, None)
        true_liked, true_disliked = truth
        rows.append(
            {
                "user_id": user_id,
                "items": items,
                "answer": answer,
                "liked": liked,
                "disliked": disliked,
                "true_liked": true_liked,
                "true_disliked": true_disliked,
                "f1": metrics.user_f1(truth, taste),
            }
        )
    return rows


def _some_users(
    users: "baselines.Users", folder: "DatasetFolder", answered: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Shows users, evenly from the worst answered to the best: history, truth and answer."""
    import numpy as np

    from uem_t5x.tastes import verbalizer

    order = np.argsort([row["f1"] for row in answered], kind="stable")
    shown = order[np.linspace(0, len(order) - 1, min(_SHOWN_USERS, len(order))).astype(int)]
    movies = folder.movies()
    rows = []
    for user in shown.tolist():
        items, half_stars = users.history(user)
        recent = zip(items[-_SHOWN_ITEMS:].tolist(), half_stars[-_SHOWN_ITEMS:].tolist())
        rows.append(
            {
                "user_id": users.ids[user],
                "items": len(items),
                "recent": [
                    {
                        "title": movies["title"][row],
                        "genres": movies["genres"][row].to_list(),
                        "stars": stars / HALF_STARS_PER_STAR,
                    }
                    for row, stars in recent
                ],
                "truth": verbalizer.write_answer(*users.tastes[user], folder.telling.wording),
                "answer": answered[user]["answer"],
                "f1": answered[user]["f1"],
            }
        )
    return rows
