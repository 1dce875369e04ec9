"""How much better a model is than others, on the same users."""

import os
from collections.abc import Mapping
from typing import Any

from uem_t5x.base.errors import InputError
from uem_t5x.runs import finished
from uem_t5x.tastes import answer_metrics, uncertainty
from uem_t5x.tastes.uncertainty import Marks, Resampled


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the scores of another model.

    Args:
      path: what `uem-t5x evaluate --output` wrote.

    Raises:
      InputError: if it is no such file, or of a version that did not write what was said of each
        user.
    """
    scores = finished.read_scores(path)
    if "said" in scores:
        return scores
    if "marks" not in scores:
        raise InputError(
            f"{os.fspath(path)}: written by a version that did not tell what was said of each "
            "user; score that model again"
        )
    try:
        Marks(**scores["marks"]).tastes()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{os.fspath(path)}: what was said of each user is damaged; score that model again"
        ) from error
    return scores


def differences(
    result: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns by how much a model's F1s are above those of others.

    Args:
      result: of `evaluate.evaluate`.
      others: what `read` returned, by a name.

    Returns:
      For each of the others `scores`, its name, and `differences`: for each of `uncertainty.F1S`,
      or each metric of questions, its `value` and the `interval` that holds 95 % of the paired
      draws of users.

    Raises:
      InputError: if one was scored on other users, or against other labels.
    """
    drawn = _draws(result)
    rows = []
    for name, other in others.items():
        _check_same(result, other, name)
        theirs_drawn = _draws(other)
        own, their = (finished.scores_of_the_model(scores) for scores in (result, other))
        rows.append(
            {
                "scores": name,
                "differences": {
                    score: {
                        "value": own[score] - their[score],
                        "interval": uncertainty.interval(drawn[score] - theirs_drawn[score]),
                    }
                    for score in drawn
                },
            }
        )
    return rows


def _draws(scores: Mapping[str, Any]) -> Resampled:
    if "marks" in scores:
        return Marks(**scores["marks"]).resampled()
    return answer_metrics.resample(
        scores["metrics"], scores["said"]["true"], scores["said"]["said"]
    )


def _check_same(result: Mapping[str, Any], other: Mapping[str, Any], name: str) -> None:
    if "marks" in result and "marks" in other:
        uncertainty.check_same_users(Marks(**result["marks"]), Marks(**other["marks"]), name)
    elif not (
        result.get("metrics") == other.get("metrics")
        and "said" in result
        and "said" in other
        and result["said"]["true"] == other["said"]["true"]
    ):
        raise InputError(
            f"{name}: scores of other questions, or by other metrics; score both models on the "
            "same split of the same dataset folder"
        )
