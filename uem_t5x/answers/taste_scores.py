"""Scores of answers that say what users like and dislike, beside the baselines."""

import dataclasses
from typing import Any

from uem_t5x.answers.answered import Answered, some_users
from uem_t5x.tastes import baselines, difficulty, metrics, uncertainty, verbalizer


def scores(answered: Answered, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Scores the answers of a model.

    Args:
      answered: its answers.
      name: what the method is called, `uem` or `text`.

    Returns:
      Those parts of what `evaluate.evaluate` returns that are of tastes; and of each user what
      `answers_file` says.
    """
    folder, users = answered.folder, answered.users
    wording, names, rule = folder.telling.wording, folder.genres, folder.telling.rule
    predicted = [verbalizer.read_taste(answer, names, wording) for answer in answered.answers]
    genres = folder.genre_matrix(), names
    predictions = {
        name: predicted,
        "counting": baselines.counting(users, *genres, rule.most),
        "rule": baselines.rule(answered.as_read, *genres, rule),
    }
    rows = []
    for user_id, items, answer, taste, truth in zip(
        users.ids, answered.items_read.tolist(), answered.answers, predicted, users.tastes
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
    facts = [
        {
            "truth": verbalizer.write_answer(*truth, wording),
            "answer": row["answer"],
            "f1": row["f1"],
        }
        for truth, row in zip(users.tastes, rows)
    ]
    return {
        "methods": {
            method: metrics.score(users.tastes, tastes, names)
            for method, tastes in predictions.items()
        },
        "intervals": {
            method: uncertainty.intervals(users.tastes, tastes, names)
            for method, tastes in predictions.items()
        },
        "marks": uncertainty.Marks.of(users.tastes, predicted, names)._asdict(),
        "per_genre": [
            dataclasses.asdict(row) for row in metrics.per_genre(users.tastes, predicted, names)
        ],
        "confusion": metrics.confusion(users.tastes, predicted, names),
        "by_margin": [
            dataclasses.asdict(group)
            for group in difficulty.by_margin(users, predictions, *genres, rule)
        ],
        "by_count": [
            dataclasses.asdict(group)
            for group in difficulty.by_count(users, predictions, *genres, rule)
        ],
        "classes_called": "genre" if folder.manifest.source is None else "class",
        "users": some_users(answered, [row["f1"] for row in rows], facts),
    }, rows
