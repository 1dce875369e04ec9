"""Stops a run whose numbers are no longer finite, before it is measured or saved."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import logging

from uem_t5x.base.errors import DivergedError
from uem_t5x.inputs.batches import TrainIterator
from uem_t5x.models import Metrics

_SHOWN_USERS = 200


class DivergenceWatch:
    """Looks for a loss or a gradient that is no finite number."""

    def __init__(self, iterator: TrainIterator, latest_step: Callable[[], int | None]) -> None:
        """Looks at nothing yet.

        Args:
          iterator: the training data.
          latest_step: tells the step of the last checkpoint; None if there is none.
        """
        self._iterator, self._latest_step = iterator, latest_step

    def check_steps(self, steps: Sequence[Metrics], last: int) -> None:
        """Checks the loss and the gradient of successive steps, which it waits for.

        Args:
          steps: their metrics.
          last: the number of the last of them.

        Raises:
          DivergedError: for the first step where one of the two is not finite.
        """
        figures = [(metrics["loss"].total, metrics["gradient_norm"].total) for metrics in steps]
        for step, (loss, norm) in enumerate(jax.device_get(figures), start=last - len(steps) + 1):
            self.check_loss(float(loss), step)
            if not np.isfinite(norm):
                raise self._error("gradient", step)

    def check_loss(self, loss: float, step: int) -> None:
        """Checks the loss at, or just after, a step.

        Raises:
          DivergedError: if it is not finite.
        """
        if not np.isfinite(loss):
            raise self._error("loss", step)

    def _error(self, what: str, step: int) -> DivergedError:
        saved = self._latest_step()
        last_good = (
            "no checkpoint was saved" if saved is None else f"checkpoint_{saved} is still good"
        )
        message = f"the {what} is not a finite number at step {step}"
        # Finding the users again reads the data from its beginning.
        logging.error("%s; %s. Looking for the users of its batch", message, last_good)
        users = self._iterator.user_ids(step - 1)
        shown = ", ".join(users[:_SHOWN_USERS]) + (", ..." if len(users) > _SHOWN_USERS else "")
        return DivergedError(
            f"{message}; its batch holds the users {shown}; {last_good}. Look at their histories, "
            "or lower LEARNING_RATE"
        )
