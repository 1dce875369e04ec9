"""What the tasks have SeqIO score answers with."""

from collections.abc import Sequence

from uem_t5x.inputs import data_sources
from uem_t5x.tastes import metrics
from uem_t5x.tastes.metrics import Taste


def genre_scores(targets: Sequence[Taste], predictions: Sequence[Taste | None]) -> dict[str, float]:
    """`metrics.score` over the genres of the current dataset folder."""
    return metrics.score(targets, predictions, data_sources.dataset_folder().genres)
