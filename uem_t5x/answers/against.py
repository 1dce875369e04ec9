"""How much better a model is than others, on the same users."""

import os
from collections.abc import Mapping
from typing import Any

from uem_t5x.base.errors import InputError
from uem_t5x.runs import finished
from uem_t5x.tastes import uncertainty
from uem_t5x.tastes.uncertainty import Marks


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the scores of another model.

    Args:
      path: what `uem-t5x evaluate --output` wrote.

    Raises:
      InputError: if it is no such file, or of a version that did not write what was said of each
        user.
    """
    scores = finished.read_scores(path)
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
      For each of the others `scores`, its name, and `differences`: for each of `uncertainty.F1S`
      its `value` and the `interval` that holds 95 % of the paired draws of users.

    Raises:
      InputError: if one was scored on other users, or against other labels.
    """
    ours = Marks(**result["marks"])
    drawn = ours.resampled()
    rows = []
    for name, other in others.items():
        theirs = Marks(**other["marks"])
        uncertainty.check_same_users(ours, theirs, name)
        theirs_drawn = theirs.resampled()
        own, their = (finished.scores_of_the_model(scores) for scores in (result, other))
        rows.append(
            {
                "scores": name,
                "differences": {
                    f1: {
                        "value": own[f1] - their[f1],
                        "interval": uncertainty.interval(drawn[f1] - theirs_drawn[f1]),
                    }
                    for f1 in uncertainty.F1S
                },
            }
        )
    return rows
