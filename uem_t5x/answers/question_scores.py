"""Scores of answers to questions of one's own, beside baselines that know no history."""

from typing import Any

import numpy as np

from uem_t5x.answers.answered import Answered, some_users
from uem_t5x.inputs import users as users_lib
from uem_t5x.tastes import answer_metrics


def scores(answered: Answered, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Scores the answers of a model to those questions whose answer is known.

    Args:
      answered: its answers.
      name: what the method is called, `uem` or `text`.

    Returns:
      Those parts of what `evaluate.evaluate` returns that are of questions; and of each question
      what `answers_file` says.
    """
    users, own = answered.users, answered.folder.telling.metrics
    is_known = [answer != "" for answer in users.answers]
    known = np.flatnonzero(is_known).tolist()
    targets, said = ([them[user] for user in known] for them in (users.answers, answered.answers))
    learned = users_lib.read_texts(answered.folder, "train", "answer") if known else []
    predictions = {name: said}
    if learned:
        predictions["most_frequent"] = [answer_metrics.most_frequent(learned)] * len(known)
        if any(answer_metrics.METRICS[metric].of_numbers for metric in own):
            predictions["median"] = [answer_metrics.median(learned)] * len(known)
    of_each = np.zeros(len(users.ids))
    if known:
        of_each[known] = answer_metrics.example_scores(own[0], targets, said)
    rows = [
        {
            "user_id": user_id,
            "question": question,
            "items": items,
            "answer": answer,
            "true_answer": truth if truth else None,
        }
        for user_id, question, items, answer, truth in zip(
            users.ids,
            users.questions,
            answered.items_read.tolist(),
            answered.answers,
            users.answers,
        )
    ]
    facts = [
        {"question": row["question"], "truth": row["true_answer"], "answer": row["answer"]}
        for row in rows
    ]
    return {
        "metrics": list(own),
        "methods": {
            method: answer_metrics.score(own, targets, given)
            for method, given in predictions.items()
            if known
        },
        "intervals": {
            method: answer_metrics.intervals(own, targets, given)
            for method, given in predictions.items()
            if known
        },
        "said": {"true": targets, "said": said},
        "unknown": len(rows) - len(known),
        "users": some_users(answered, of_each.tolist(), facts),
    }, rows
