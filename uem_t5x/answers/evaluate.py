"""Scores a checkpoint beside the baselines."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etils import epath

from uem_t5x.base import atomic
from uem_t5x.base.errors import InputError

if TYPE_CHECKING:
    from uem_t5x.answers.trained_model import TrainedModel
    from uem_t5x.data.dataset_folder import DatasetFolder
    from uem_t5x.tastes import baselines

_LEFT_OUT = ("dropped_nobodys_questions", "dropped_short_history_questions")


def write_metrics(result: dict[str, Any], output: epath.PathLike) -> None:
    """Writes what `evaluate` returned as JSON: the whole file or none."""
    atomic.write_text(output, json.dumps(result, indent=2) + "\n")


def evaluate(
    trained: "TrainedModel",
    split: str = "test",
    data_dir: str | None = None,
    batch_size: int | None = None,
    answers_file: epath.PathLike | None = None,
    lamp_file: epath.PathLike | None = None,
) -> dict[str, Any]:
    """Scores a model and the baselines on the users of a split, or on its questions.

    Args:
      trained: the model.
      split: `train`, `validation` or `test`.
      data_dir: a dataset folder of the same catalogue; the one of the recipe by default.
      batch_size: users that are answered at once; it does not change the scores.
      answers_file: gets a JSON line for each user of the split: `user_id`, `items` (how many the
        model read), `answer`, `liked` and `disliked` as read back from it (null where that fails),
        `true_liked`, `true_disliked`, and the `f1` of both kinds together (0 where reading fails).
        Of questions these are `user_id`, `question`, `items`, `answer` and `true_answer`.
      lamp_file: gets the answers in the form of the LaMP benchmark: `{"task": ..., "golds": [{"id":
        ..., "output": ...}, ...]}`.

    Returns:
      By name, where older versions left out what is starred:

      - `methods`: for each its scores; `uem` or `text`, `counting` over whole histories, `rule`
        over the items that the model read; of questions `most_frequent`, the answer that is so in
        training, and where numbers are scored `median`;
      - `intervals`*: for each method the 95 % bootstrap interval over users of each of
        `uncertainty.F1S`, or of each of the `metrics` of questions;
      - `said`: of questions the `true` answers and those `said`, where the first are known, and
        how many are `unknown`; the following up to `items_read` are not of questions;
      - `marks`*: what is true of every user and what the model said, see `uncertainty.Marks`;
      - `per_genre` rows and `confusion` of the model;
      - `by_margin`* and `by_count`*: what the methods say of genres that are alike, see
        `difficulty`;
      - `classes_called`*: `genre` or `class`;
      - `left_out`*: of questions how many, of all splits, have no history;
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

    from uem_t5x.answers import question_scores, taste_scores
    from uem_t5x.answers.answered import Answered
    from uem_t5x.base import progress
    from uem_t5x.inputs import users as users_lib
    from uem_t5x.inputs.questions import Questions

    folder = folder_of(trained, data_dir)
    is_of_its_data = folder.has_inputs_of(trained.catalogue)
    if is_of_its_data and not folder.has_split_of(trained.catalogue, "train"):
        raise InputError(
            f"{folder.path}: the data that the model was trained on, split or labelled otherwise, "
            f"so that it may know users of {split!r}; give the dataset folder of its training"
        )
    if folder.telling.has_questions != trained.catalogue.telling.has_questions:
        asks = "questions of its own" if folder.telling.has_questions else "of tastes"
        raise InputError(
            f"{folder.path}: asks {asks}, which the model was not trained on; give the dataset "
            "folder of its training"
        )
    if lamp_file is not None and not folder.telling.task:
        raise InputError(
            f"--lamp {lamp_file}: {folder.path} is of no task of LaMP; give --answers FILE"
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
    answered = Answered(folder, users, users.reading(items, half_stars, items_read), answers)
    of_these = question_scores if folder.telling.has_questions else taste_scores
    scores, rows = of_these.scores(answered, "uem" if trained.reads_embeddings else "text")
    if answers_file is not None:
        with atomic.writing_file(answers_file) as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if lamp_file is not None:
        # Of an id that several files have, the split stands before it.
        golds = [{"id": row["user_id"].rpartition("/")[2], "output": row["answer"]} for row in rows]
        in_its_form = {"task": folder.telling.task, "golds": golds}
        atomic.write_text(lamp_file, json.dumps(in_its_form, ensure_ascii=False))
    return {
        **scores,
        "left_out": sum(folder.manifest.counts.get(name, 0) for name in _LEFT_OUT),
        "items_read": {
            "least": int(items_read.min()),
            "mean": float(items_read.mean()),
            "most": int(items_read.max()),
        },
        "examples": len(users.ids),
        "history_length": trained.history_length or int(items_read.max()),
        "step": trained.step,
        "trained_steps": trained.trained_steps,
        "is_best": trained.is_best,
        "well_formed": trained.well_formed,
        "split": split,
        "split_sha256": folder.manifest.splits[split].sha256,
        "task": trained.task,
    }


def folder_of(trained: "TrainedModel", data_dir: str | None = None) -> "DatasetFolder":
    """Opens the dataset folder whose users a model is asked about.

    Args:
      trained: the model.
      data_dir: where it lies; by default where the model's recipe says.

    Raises:
      InputError: if there is none, or it is of another catalogue.
    """
    from uem_t5x.data.dataset_folder import DatasetFolder

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
    return folder


def _batches(users: "baselines.Users", size: int) -> Iterator[list[dict[str, Any]]]:
    """Yields users as a dataset folder holds them, so many at once."""
    for first in range(0, len(users.ids), size):
        batch = []
        for user in range(first, min(first + size, len(users.ids))):
            items, half_stars = users.history(user)
            ratings = {"history_items": items, "history_ratings": half_stars}
            asked = {"question": users.questions[user]} if users.questions else {}
            batch.append({"user_id": users.ids[user].encode(), **ratings, **asked})
        yield batch
