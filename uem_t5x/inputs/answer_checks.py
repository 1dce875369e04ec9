"""Whether answers can be written in the tokens of a vocabulary, and in how many."""

import functools
from collections.abc import Iterable, Sequence

import seqio
from absl import logging

from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.inputs import users
from uem_t5x.tastes import labels, verbalizer
from uem_t5x.tastes.verbalizer import USUAL, Wording

_NAMED = 10  # in a message
_LOOKED_AT = 1000  # questions


def check(
    genres: Sequence[str],
    targets: seqio.Feature,
    length: int | None,
    most: int = labels.PAPER.most,
    wording: Wording = USUAL,
) -> None:
    """Warns of genres and answers that a model could not learn to write.

    That is no error: the answers that can be written may be all that is asked for.

    Args:
        genres: the names that answers may have.
        targets: gives the vocabulary that they are written in.
        length: the tokens that an answer may have; None if any number.
        most: how many names an answer may have a side.
        wording: of the answers.
    """
    vocabulary = targets.vocabulary
    file = getattr(vocabulary, "sentencepiece_model_file", "the vocabulary")

    def is_written(liked: list[str], disliked: list[str]) -> bool:
        text = verbalizer.write_answer(liked, disliked, wording)
        written = vocabulary.decode(vocabulary.encode(text))
        if verbalizer.normalize(written) == verbalizer.normalize(text):
            return True  # reading takes longer
        return verbalizer.read_answer(written, genres, wording) == (liked, disliked)

    def lacks(texts: Iterable[str]) -> list[str]:
        """Returns the characters of texts that are unknown to the vocabulary."""
        unknown = [text for text in texts if vocabulary.unk_id in vocabulary.encode(text)]
        return [
            c for c in sorted(set("".join(unknown))) if vocabulary.unk_id in vocabulary.encode(c)
        ]

    mend = (
        "take a vocabulary that has them, such as one that `uem-t5x prepare --vocabulary-size N` "
        "trains"
    )
    lost = [name for name in genres if not (is_written([name], []) and is_written([], [name]))]
    sentences = [
        part for side in ((1, 0), (0, 1)) for part in verbalizer.answer_parts(*side, wording)
    ]
    if lost and (lacking := lacks(sentences)):
        _warn_once(
            f"{file}: no token for {_list(lacking)}, so that answers that hold it, whatever their "
            f"genres, cannot be read back; {mend}"
        )
        lost = [name for name in lost if lacks([name])]
    if lost:
        unknown = lacks(lost)
        why = f", which has none for {_list(unknown)}; {mend}, or" if unknown else ";"
        _warn_once(
            f"answers with {_list(lost)} cannot be read back from the tokens of {file}{why} spell "
            "these genres otherwise"
        )
    if length is None:
        return
    by_tokens = sorted(
        genres, key=lambda name: -len(vocabulary.encode(verbalizer.spell(name, wording)))
    )
    longest = by_tokens[: 2 * most]
    answers = [
        verbalizer.write_answer(longest[:liked], longest[liked:], wording)
        for liked in range(most + 1)
        if len(longest) - liked <= most  # few genres fit in several ways
    ]
    tokens = max(map(len, map(vocabulary.encode, answers))) + int(targets.add_eos)
    if tokens > length:
        _warn_once(
            f"answers have up to {tokens} tokens, and lose those beyond {length}; raise the length "
            "of 'targets' in TASK_FEATURE_LENGTHS"
        )


def check_questions(folder: DatasetFolder, inputs: seqio.Feature, length: int | None) -> None:
    """Warns of questions that lose their end, by some of those that are asked in training.

    Args:
        folder: the dataset folder; nothing is known of a catalogue's, or of one without questions.
        inputs: gives the vocabulary.
        length: the tokens that a question may have; None if any number.
    """
    _check_lengths(folder, "question", inputs, length)


def check_answers(folder: DatasetFolder, targets: seqio.Feature, length: int | None) -> None:
    """Warns of answers that lose their end, as `check_questions` does."""
    _check_lengths(folder, "answer", targets, length)


def _check_lengths(
    folder: DatasetFolder, name: str, feature: seqio.Feature, length: int | None
) -> None:
    if length is None or folder.is_catalogue or not folder.telling.has_questions:
        return
    tokens = [
        len(feature.vocabulary.encode(text)) + int(feature.add_eos)
        for text in users.read_texts(folder, "train", name, _LOOKED_AT)
    ]
    if too_long := sum(count > length for count in tokens):
        key = "inputs" if name == "question" else "targets"
        _warn_once(
            f"{too_long} of the first {len(tokens)} {name}s of training have more than {length} "
            f"tokens, up to {max(tokens)}, and lose those beyond; raise the length of {key!r} in "
            "TASK_FEATURE_LENGTHS"
        )


def _list(names: Sequence[str]) -> str:
    """Names the first few."""
    named = ", ".join(map(repr, names[:_NAMED]))
    return f"{named} and {len(names) - _NAMED} more" if len(names) > _NAMED else named


@functools.cache
def _warn_once(message: str) -> None:
    logging.warning("%s", message)
