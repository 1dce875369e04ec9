"""The MovieLens genre tasks: which genres a user likes and does not like, from rated movies.

`movielens_genres_uem_{p}` gives the p most recent items as ids, for the user embedding module;
`movielens_genres_text_{p}` tells them in words, for a language model by itself. Both ask for the
same answer and are scored alike.

Importing this module needs no dataset folder: see `uem_t5x.data_sources.dataset_folder` for how
one is named. Another history length is one line: `register_uem(200)`.
"""

import functools
from collections.abc import Callable, Sequence

import seqio
import tensorflow as tf

from uem_t5x import data_sources, metrics, postprocessors, preprocessors, vocabularies

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


def register_uem(*history_lengths: int) -> None:
    """Registers `movielens_genres_uem_{p}` for each history length p that has no such task yet."""
    for p in history_lengths:
        _register(f"movielens_genres_uem_{p}", p, preprocessors.instruction, _UEM_FEATURES)


def register_text(*history_lengths: int) -> None:
    """Registers `movielens_genres_text_{p}` for each history length p that has no such task yet."""
    for p in history_lengths:
        _register(f"movielens_genres_text_{p}", p, preprocessors.text_history, _TEXT_FEATURES)


def _register(
    name: str, history_length: int, inputs: Preprocessor, features: dict[str, seqio.Feature]
) -> None:
    if name in seqio.TaskRegistry.names():
        return
    steps: Sequence[Preprocessor | seqio.CacheDatasetPlaceholder] = [
        seqio.CacheDatasetPlaceholder(),
        preprocessors.training_stretches,
        preprocessors.answer,
        functools.partial(preprocessors.most_recent_items, history_length=history_length),
        inputs,
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos_after_trim,
    ]
    seqio.TaskRegistry.add(
        name,
        source=data_sources.DatasetFolderSource(),
        preprocessors=steps,
        output_features=features,
        postprocess_fn=postprocessors.genres,
        metric_fns=[metrics.genre_scores],
    )


register_uem(5, 10, 20, 30, 50, 100)
register_text(5, 10, 20, 50)
