"""Scores of a mixture of tasks: what chooses its best checkpoint, and what its curve shows."""

from collections.abc import Iterable, Mapping


def mean_scores(of_tasks: Iterable[Mapping[str, int | float]]) -> dict[str, float]:
    """Returns each score's mean over the tasks of a mixture that have it; most often one task.

    Where that of one task is not a number, neither is the mean: that of the others would compare
    with no other step's.

    Args:
      of_tasks: the scores of each task, by name.
    """
    by_name: dict[str, list[float]] = {}
    for scores in of_tasks:
        for name, value in scores.items():
            by_name.setdefault(name, []).append(float(value))
    return {name: sum(values) / len(values) for name, values in by_name.items()}
