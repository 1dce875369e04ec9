"""What training tells while it runs: means over steps, for TensorBoard and for whoever watches."""

import contextlib
import time
from collections.abc import Iterator, Sequence

import jax
from clu import metric_writers

from uem_t5x.base.progress import TrainingProgress
from uem_t5x.models import Metrics
from uem_t5x.training.trainer import summarize


class TrainingLog:
    """The metrics of training steps since they were last written down."""

    def __init__(
        self, metric_writer: metric_writers.MetricWriter, progress: TrainingProgress
    ) -> None:
        """Starts the clock of the first period.

        Args:
          metric_writer: takes each period's means.
          progress: shows them, and that steps are taken.
        """
        self._writer, self._progress = metric_writer, progress
        self._steps: list[Metrics] = []
        self._since = time.monotonic()

    def add(self, metrics: Metrics) -> None:
        """Takes a step's metrics, which need not be computed yet."""
        self._steps.append(metrics)
        self._progress.doing("training")

    @property
    def unreported(self) -> Sequence[Metrics]:
        """Metrics of the steps that are not written down yet, in order."""
        return self._steps

    def report(self, step: int) -> None:
        """Writes down the means over a period, whose last step this is, and begins the next."""
        means = summarize(self._steps)
        rate = len(self._steps) / (time.monotonic() - self._since)
        self._writer.write_scalars(step, means | {"timing/steps_per_second": rate})
        self._progress.report(
            step,
            f"loss={means['loss']:.3f} accuracy={means['accuracy']:.3f} {rate:.1f} steps/s",
        )
        self._steps.clear()
        self._since = time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time of what is done within it out of the steps a second."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began


def writer(model_dir: str, collection: str) -> metric_writers.MetricWriter:
    """Returns what writes metrics below MODEL_DIR/`collection`, in a run's first process."""
    # Not asynchronous: a disk that takes no more is told where it is written to.
    return metric_writers.create_default_writer(
        model_dir,
        just_logging=jax.process_index() > 0,
        asynchronous=False,
        collection=collection,
    )
