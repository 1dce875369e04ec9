"""What the tasks have SeqIO score answers with."""

from collections.abc import Sequence
from typing import Any

from uem_t5x.inputs import data_sources
from uem_t5x.tastes import answer_metrics, metrics
from uem_t5x.tastes.metrics import Taste


def genre_scores(targets: Sequence[Taste], predictions: Sequence[Taste | None]) -> dict[str, float]:
    """`metrics.score` over the genres of the current dataset folder."""
    return metrics.score(targets, predictions, data_sources.dataset_folder().genres)


def scores(targets: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    """What the current dataset folder is scored by: its own metrics, or `genre_scores`."""
    own = data_sources.dataset_folder().telling.metrics
    if not own:
        return genre_scores(targets, predictions)
    return answer_metrics.score(own, targets, predictions)
