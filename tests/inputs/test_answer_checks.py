"""What cannot be written in the tokens of `targets` is warned of, and written all the same."""

from unittest import mock

import pytest
import seqio
import tensorflow as tf

from uem_t5x.data import vocabulary
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.inputs import answer_checks, preprocessors
from uem_t5x.tastes import verbalizer

pytestmark = pytest.mark.usefixtures("current_folder")
GENRES = ("Drama", "\u041a\u043e\u043c\u0435\u0434\u0438\u044f", "War")


@pytest.fixture
def warned(monkeypatch):
    """What is logged, from now on."""
    monkeypatch.setattr(DatasetFolder, "genres", GENRES)
    answer_checks._warn_once.cache_clear()
    said = []
    log = mock.Mock(warning=lambda text, *values: said.append(text % values))
    monkeypatch.setattr(answer_checks, "logging", log)
    return said


def write(tmp_path, texts=(), length=None, genres=GENRES):
    file = tmp_path / "vocabulary/spm.model"
    texts = [verbalizer.write_answer(["Drama"], ["War"]), *texts] * 9
    vocabulary.train_vocabulary(file, texts, genres[::2], size=64)
    features = {"targets": seqio.Feature(seqio.SentencePieceVocabulary(str(file)))}
    example = {"liked": tf.constant(genres[:1]), "disliked": tf.constant(genres[1:])}
    dataset = tf.data.Dataset.from_tensors(example)
    for _ in range(2):
        written = preprocessors.answer(dataset, features, length and {"targets": length})
    (target,) = written.as_numpy_iterator()
    assert target["targets"].decode() == verbalizer.write_answer(genres[:1], genres[1:])
    return len(features["targets"].vocabulary.encode(target["targets"].decode()))


def test_a_script_that_the_vocabulary_lacks(warned, tmp_path):
    write(tmp_path)
    (message,) = warned
    assert f"answers with {GENRES[1]!r} cannot be read back from the tokens of" in message
    letters = ", ".join(map(repr, sorted(GENRES[1])))
    assert f"{tmp_path}/vocabulary/spm.model, which has none for {letters}; take" in message


def test_a_vocabulary_without_an_apostrophe(warned, tmp_path):
    """That is no fault of the genres."""
    file = tmp_path / "vocabulary/spm.model"
    likes = verbalizer.write_answer(["Drama"], [])
    vocabulary.train_vocabulary(file, [likes, f"{likes[:-1]} doesn, t"] * 9, ["Drama"], 64)
    features = {"targets": seqio.Feature(seqio.SentencePieceVocabulary(str(file)))}
    example = {"liked": tf.constant(["Drama"]), "disliked": tf.constant(["War"])}
    preprocessors.answer(tf.data.Dataset.from_tensors(example), features)
    told, of_genres = warned
    assert told.startswith(f'{file}: no token for "\'", so that answers that hold it')
    assert f"answers with {GENRES[1]!r}, 'War' cannot" in of_genres


def test_a_genre_that_no_vocabulary_writes(warned, tmp_path):
    """SentencePiece keeps this sign for itself."""
    genres = ("Drama", "A\u2585b", "War")
    with mock.patch.object(DatasetFolder, "genres", genres):
        write(tmp_path, genres, genres=genres)
    (message,) = warned
    assert f"answers with {genres[1]!r} cannot be read back" in message


def test_answers_that_are_too_long(warned, tmp_path):
    tokens = write(tmp_path, GENRES)
    assert warned == []
    write(tmp_path, GENRES, length=tokens + 1)  # with the token at its end
    assert warned == []
    write(tmp_path, GENRES, length=tokens)
    assert warned == [
        f"answers have up to {tokens + 1} tokens, and lose those beyond {tokens}; raise the "
        "length of 'targets' in TASK_FEATURE_LENGTHS"
    ]
