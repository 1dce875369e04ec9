"""Which p items of a longer history a model reads: the macro HISTORY_SAMPLING.

Whatever is chosen stays in time order, oldest first.
"""

from collections.abc import Callable, Mapping

import seqio
import tensorflow as tf

from uem_t5x.base.errors import InputError, check_at_least
from uem_t5x.inputs import augmentation, data_sources
from uem_t5x.inputs.augmentation import Example

RECENT, RANDOM, LONG_TAIL = "recent", "random", "long_tail"

SequenceLength = Mapping[str, int] | None
# Given an example and a seed, the numbers of the items that are kept, in order.
_Choose = Callable[[Example, tf.Tensor], tf.Tensor]


def most_recent_items(
    dataset: tf.data.Dataset, history_length: int, sequence_length: SequenceLength = None
) -> tf.data.Dataset:
    """Keeps the `history_length` most recent items of each history: `recent`.

    Args:
        dataset: examples with `history_items` and `history_ratings`.
        history_length: the paper's p.
        sequence_length: the task's feature lengths. Where `history_items` is given a shorter one
            than p it counts: SeqIO's own trimming would keep the oldest items.

    Raises:
        InputError: if p is not at least 1.
    """
    length = _kept_length(history_length, sequence_length)

    @seqio.map_over_dataset
    def trim(example: Example) -> Example:
        return {
            **example,
            "history_items": example["history_items"][-length:],
            "history_ratings": example["history_ratings"][-length:],
        }

    return trim(dataset)


def random_items(
    dataset: tf.data.Dataset, history_length: int, sequence_length: SequenceLength = None
) -> tf.data.Dataset:
    """Keeps `history_length` items of each history, whichever they are: `random`.

    They are drawn anew for each example of training, and by the user's id elsewhere.

    Args:
        dataset: see `most_recent_items`, as are the others.
        history_length: see above.
        sequence_length: see above.

    Raises:
        InputError: if p is not at least 1.
    """
    length = _kept_length(history_length, sequence_length)

    def any_of_them(example: Example, seed: tf.Tensor) -> tf.Tensor:
        size = tf.size(example["history_items"])
        return augmentation.any_items(size, tf.minimum(size, length), seed)

    return _keep(dataset, any_of_them)


def rarest_items(
    dataset: tf.data.Dataset, history_length: int, sequence_length: SequenceLength = None
) -> tf.data.Dataset:
    """Keeps the `history_length` items of each history that the fewest users rated: `long_tail`.

    Users are those of training; of items that are rated as often, the most recent ones are kept.

    Args:
        dataset: see `most_recent_items`, as are the others.
        history_length: see above.
        sequence_length: see above.

    Raises:
        InputError: if p is not at least 1, or the dataset folder does not hold the numbers.
    """
    length = _kept_length(history_length, sequence_length)
    counts = tf.constant(data_sources.dataset_folder().rating_counts(), tf.int32)

    def rarest(example: Example, seed: tf.Tensor) -> tf.Tensor:
        del seed
        newest_first = tf.gather(counts, example["history_items"])[::-1]
        size = tf.size(newest_first)
        order = tf.argsort(newest_first, stable=True)[: tf.minimum(size, length)]
        return tf.sort(size - 1 - order)

    return _keep(dataset, rarest)


SAMPLINGS = {RECENT: most_recent_items, RANDOM: random_items, LONG_TAIL: rarest_items}


def named(sampling: str) -> Callable[..., tf.data.Dataset]:
    """Returns the step of a name.

    Raises:
        InputError: if there is none.
    """
    if sampling not in SAMPLINGS:
        raise InputError(
            f"HISTORY_SAMPLING={sampling!r}: choose one of {', '.join(map(repr, SAMPLINGS))}"
        )
    return SAMPLINGS[sampling]


def _kept_length(history_length: int, sequence_length: SequenceLength) -> int:
    check_at_least(1, HISTORY_LENGTH=history_length)
    return min(history_length, (sequence_length or {}).get("history_items") or history_length)


def _keep(dataset: tf.data.Dataset, choose: _Choose) -> tf.data.Dataset:
    @seqio.map_over_dataset(num_seeds=1)
    def keep(example: Example, seed: tuple[tf.Tensor, tf.Tensor]) -> Example:
        user = augmentation.user_number(example)
        anew = augmentation.seed_of_user(example, seed)
        of_user = tf.stack([user, 0])
        chosen = choose(example, tf.where(example["split"] == "train", anew, of_user))
        return {
            **example,
            "history_items": tf.gather(example["history_items"], chosen),
            "history_ratings": tf.gather(example["history_ratings"], chosen),
        }

    return keep(dataset)
