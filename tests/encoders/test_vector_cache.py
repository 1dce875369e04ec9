"""Each text is encoded once, also by the next `prepare`."""

import numpy as np
import pytest

from uem_t5x.base import kept
from uem_t5x.encoders import sentences
from uem_t5x.encoders.vector_cache import CachedEncoder

MODULE = """
import numpy as np


class Letters:
    width, source, sha256 = 3, None, "0" * 64
    asked = []

    def encode(self, texts, on_progress=None):
        self.asked.extend(texts)
        if on_progress:
            on_progress(len(texts))
        return np.array([[len(t), t.count("a"), 1] for t in texts], np.float32).reshape(-1, 3)


class Lacking:
    width = 3


class Wanting:
    def __init__(self, size):
        pass
"""


@pytest.fixture
def letters(tmp_path, monkeypatch):
    """An encoder of one's own, by its name."""
    monkeypatch.setenv("UEM_T5X_CACHE", str(tmp_path / "cache"))
    (tmp_path / "letter_encoders.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    name, source = sentences.split_name("letter_encoders:Letters")
    encoder = sentences.make_encoder(name, source=source)
    encoder.asked.clear()
    return CachedEncoder(encoder, name)


def expected(texts):
    return [[len(text), text.count("a"), 1] for text in texts]


def test_a_text_is_asked_for_once(letters):
    told = []
    texts = ["an apple", "b", "an apple", ""]
    np.testing.assert_array_equal(letters.encode(texts, told.append), expected(texts))
    assert letters._encoder.asked == ["an apple", "b", ""]
    assert sum(told) == len(texts)
    # In the next run, in any order, with others.
    again = CachedEncoder(letters._encoder, "letter_encoders:Letters")
    letters._encoder.asked.clear()
    texts = ["", "banana", "b"]
    np.testing.assert_array_equal(again.encode(texts), expected(texts))
    assert letters._encoder.asked == ["banana"]
    assert again.encode([]).shape == (0, 3)


def test_other_weights_keep_other_vectors(letters):
    letters.encode(["a"])
    letters._encoder.asked.clear()
    letters._encoder.sha256 = "1" * 64
    other = CachedEncoder(letters._encoder, "letter_encoders:Letters")
    other.encode(["a"])
    assert letters._encoder.asked == ["a"]


def test_parts_that_are_damaged_are_left_out(letters):
    letters.encode(["a", "b"])
    (part,) = kept.folder().rglob("*.safetensors")
    part.write_bytes(part.read_bytes()[:20])
    letters._encoder.asked.clear()
    np.testing.assert_array_equal(letters.encode(["b"]), expected(["b"]))
    assert letters._encoder.asked == ["b"]


def test_a_cache_that_cannot_be_written_is_none(letters, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UEM_T5X_CACHE", str(tmp_path / "file"))
    encoder = CachedEncoder(letters._encoder, "letter_encoders:Letters")
    np.testing.assert_array_equal(encoder.encode(["aa"]), expected(["aa"]))


def test_without_weights_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("UEM_T5X_CACHE", str(tmp_path / "cache"))
    encoder = CachedEncoder(sentences.make_encoder("hashing", 8), "hashing")
    assert encoder.encode(["a"]).shape == (1, 8)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("letter_encoders:Nobody", "no encoder can be made .*Nobody"),
        ("no_such_module:Letters", "no encoder can be made .*no_such_module"),
        ("letter_encoders:Lacking", "lacks width, source, sha256 or encode"),
        ("letter_encoders:Wanting", "a class of it that takes no arguments"),
        ("lettres", "no such sentence encoder; choose one of hashing, sentence-t5-base"),
        ("hashing:8", "it needs no weights; leave 8 out"),
    ],
)
def test_encoders_that_are_none(letters, name, message):
    from uem_t5x.base.errors import InputError

    name, source = sentences.split_name(name)
    with pytest.raises(InputError, match=message):
        sentences.make_encoder(name, source=source)
