"""The tasks of any dataset folder: what it asks of a history, its question or each example's own.

`histories_uem_{p}` gives the p most recent items as ids, for the user embedding module;
`histories_text_{p}` tells them in words, for a language model by itself. Both ask for the same
answer and are scored alike. With other items than the most recent ones (`history_sampling`) their
names end in which ones.

Importing this module needs no dataset folder: see `uem_t5x.inputs.data_sources.dataset_folder` for
how one is named. Another history length is one line, `uem_task(200)`, or one macro of a recipe.
"""

import functools
from collections.abc import Callable, Sequence

import seqio
import tensorflow as tf

from uem_t5x.base.errors import check_at_least
from uem_t5x.inputs import (
    data_sources,
    history_sampling,
    metrics,
    postprocessors,
    preprocessors,
    vocabularies,
)

_TEXT_FEATURES = {
    "inputs": seqio.Feature(vocabularies.TaskVocabulary()),
    "targets": seqio.Feature(vocabularies.TaskVocabulary()),
}
_ID_FEATURE = seqio.Feature(seqio.PassThroughVocabulary(size=0), add_eos=False)
_UEM_FEATURES = {
    **_TEXT_FEATURES,
    "history_items": _ID_FEATURE,
    "history_ratings": _ID_FEATURE,
}

Preprocessor = Callable[..., tf.data.Dataset]

_CALLED = "histories"


def uem_task(
    history_length: int, sampling: str = history_sampling.RECENT, called: str = _CALLED
) -> str:
    """Returns the name of `{called}_uem_{p}`, registered if it was not yet.

    Args:
        history_length: p, the number of items that are given as ids.
        sampling: which ones, see `history_sampling`; but for the most recent it ends the name.
        called: what its name begins with.
    """
    name = f"{called}_uem"
    return _register(name, history_length, sampling, preprocessors.instruction, _UEM_FEATURES)


def text_task(
    history_length: int, sampling: str = history_sampling.RECENT, called: str = _CALLED
) -> str:
    """Returns the name of `{called}_text_{p}`, registered if it was not yet.

    Args:
        history_length: p, the number of items that are told in words.
        sampling: see `uem_task`.
        called: see `uem_task`.
    """
    name = f"{called}_text"
    return _register(name, history_length, sampling, preprocessors.text_history, _TEXT_FEATURES)


def _register(
    name: str,
    history_length: int,
    sampling: str,
    inputs: Preprocessor,
    features: dict[str, seqio.Feature],
) -> str:
    keep = history_sampling.named(sampling)
    name = f"{name}_{history_length}"
    if sampling != history_sampling.RECENT:
        name = f"{name}_{sampling}"
    if name in seqio.TaskRegistry.names():
        return name
    check_at_least(1, HISTORY_LENGTH=history_length)  # SeqIO refuses the name of a negative one
    steps: Sequence[Preprocessor | seqio.CacheDatasetPlaceholder] = [
        seqio.CacheDatasetPlaceholder(),
        preprocessors.crossed_histories,
        preprocessors.random_tastes,
        preprocessors.training_stretches,
        preprocessors.answer,
        functools.partial(keep, history_length=history_length),
        inputs,
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos_after_trim,
    ]
    seqio.TaskRegistry.add(
        name,
        source=data_sources.DatasetFolderSource(),
        preprocessors=steps,
        output_features=features,
        postprocess_fn=postprocessors.answer,
        metric_fns=[metrics.scores],
    )
    return name


def register(called: str) -> None:
    """Registers the tasks of the usual history lengths, which the paper has.

    Args:
        called: see `uem_task`.
    """
    for length in (5, 10, 20, 30, 50, 100):
        uem_task(length, called=called)
    for length in (5, 10, 20, 50):
        text_task(length, called=called)


register(_CALLED)
