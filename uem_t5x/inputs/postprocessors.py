"""From a written answer back to what is scored, for `seqio.Evaluator`."""

from collections.abc import Mapping
from typing import Any

from uem_t5x.inputs import data_sources
from uem_t5x.tastes import verbalizer
from uem_t5x.tastes.metrics import Taste


def genres(
    target_or_text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> Taste | None:
    """Reads the genres of a target or of what a model wrote.

    Args:
        target_or_text: the sentence.
        example: the example it answers; unused, SeqIO passes it.
        is_target: whether it is the target; unused, SeqIO passes it.

    Returns:
        The liked and the disliked genres; None if the text neither names any nor says that there
        are none.
    """
    del example, is_target
    folder = data_sources.dataset_folder()
    return verbalizer.read_taste(target_or_text, folder.genres, folder.telling.wording)


def answer(
    target_or_text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> Taste | str | None:
    """Reads an answer as the current dataset folder is scored: the text itself, or `genres`.

    Args:
        target_or_text: what is to be learned, or was written.
        example: the example it answers, which has the true `answer` to a question of its own.
        is_target: whether it is the target.
    """
    if not data_sources.dataset_folder().telling.has_questions:
        return genres(target_or_text)
    if is_target and example is not None and "answer" in example:
        # The target as the vocabulary spells it may lack characters.
        true = example["answer"]
        return true.decode() if isinstance(true, bytes) else str(true)
    return target_or_text
