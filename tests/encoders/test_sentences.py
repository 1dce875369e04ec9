import hashlib
import io
import itertools
import math
import shutil
import sys

import numpy as np
import pytest
import splitmix64

from uem_t5x.base.errors import InputError
from uem_t5x.encoders.sentences import make_encoder
from uem_t5x.tastes import sentences
from uem_t5x.tastes.telling import Telling

TEXTS = ["A dragon guards the ring.", "a DRAGON guards the ring", "", "Trench warfare, 1917."]


def title_genres_sentence(title, genres):
    return sentences.write(sentences.OF_MOVIES["title_genres"], {"title": title, "classes": genres})


class TestHashing:
    def test_vectors_have_unit_length_and_the_asked_width(self):
        vectors = make_encoder("hashing", 32).encode(TEXTS)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0, 1], rtol=1e-6)
        assert vectors.shape == (4, 32)
        assert make_encoder("hashing").encode([]).shape == (0, 256)

    def test_a_vector_depends_on_its_own_text_alone(self):
        together = make_encoder("hashing").encode(TEXTS * 3000)
        for text, vector in zip(TEXTS, together[-4:]):
            np.testing.assert_array_equal(make_encoder("hashing").encode([text])[0], vector)

    def test_vectors_are_the_same_on_every_machine(self):
        # Written down when the encoder was: folders and checkpoints rely on it.
        (vector,) = make_encoder("hashing", 4).encode(["one sci-fi film of 1999"])
        golden = [-0.92521930, 0.32878327, -0.11730459, 0.14869596]
        np.testing.assert_allclose(vector, golden, atol=1e-6)

    def test_a_vector_is_what_plain_python_makes_of_its_words(self):
        words = {"one": 0.1, "sci-fi": 1.0, "film": 0.1, "of": 0.1, "1999": 1.0}
        digests = [hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words]
        hashes = [int.from_bytes(digest, "little") for digest in digests]
        features = [*zip(hashes, words.values())]
        for (one, weight), (other, other_weight) in itertools.pairwise(features[:]):
            pair = splitmix64.output((3 * one + other) % splitmix64.WORD)
            features.append((pair, 0.5 * weight * other_weight))
        sums = [0.0, 0.0, 0.0, 0.0]
        for feature, weight in features:
            for draw in range(1, 9):
                bits = splitmix64.output((feature + draw) % splitmix64.WORD)
                sums[(bits >> 1) % 4] += -weight if bits & 1 else weight
        (vector,) = make_encoder("hashing", 4).encode(["One sci-fi film, of 1999."])
        np.testing.assert_allclose(vector, np.divide(sums, math.hypot(*sums)), atol=1e-6)

    def test_what_is_shared_is_close(self):
        encode = make_encoder("hashing").encode
        crime, also_crime, musical = encode(
            [
                title_genres_sentence("Heat (1995)", ["Action", "Crime"]),
                title_genres_sentence("Ronin (1998)", ["Action", "Crime"]),
                title_genres_sentence("Cats (2019)", ["Musical"]),
            ]
        )
        assert crime @ also_crime > 0.4
        assert abs(crime @ musical) < 0.25

    def test_ratings_can_be_told_apart(self):
        vectors = make_encoder("hashing").encode(
            Telling().rating_sentences(sentences.OF_MOVIES["rating"])[1:]
        )
        similarity = vectors @ vectors.T - np.eye(10)
        assert similarity.max() < 0.5

    def test_width_must_be_positive(self):
        with pytest.raises(InputError, match="--encoder-width 0"):
            make_encoder("hashing", 0)


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    """A SavedModel of SentenceT5's shape: a SentencePiece tokenizer, embeddings, their mean."""
    import sentencepiece
    import tensorflow as tf
    import tensorflow_text

    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=proto,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )

    class Encoder(tf.Module):
        def __init__(self):
            self.tokenizer = tensorflow_text.SentencepieceTokenizer(proto.getvalue())
            table = tf.random.stateless_normal([self.tokenizer.vocab_size(), 24], seed=(0, 1))
            self.table = tf.Variable(table)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, texts):
            tokens = self.tokenizer.tokenize(texts).to_tensor(default_value=-1)
            mask = tf.cast(tokens >= 0, tf.float32)[..., None]
            sums = tf.reduce_sum(tf.gather(self.table, tf.maximum(tokens, 0)) * mask, axis=1)
            return [tf.math.l2_normalize(sums, axis=-1)]  # a list of one, as the hub's modules

    path = tmp_path_factory.mktemp("sentence-t5")
    module = Encoder()
    tf.saved_model.save(module, str(path))
    return path, module([*TEXTS])[0].numpy()


class TestSentenceT5:
    def test_runs_a_local_model(self, saved_model):
        path, expected = saved_model
        encoder = make_encoder("sentence-t5-base", source=str(path))
        assert (encoder.width, encoder.source) == (24, str(path))
        done = []
        # 400 texts of different lengths: more than a batch, and encoded in another order.
        vectors = encoder.encode(TEXTS * 100, done.append)
        np.testing.assert_allclose(vectors, np.tile(expected, (100, 1)), atol=1e-5)
        assert sum(done) == 400

    def test_is_told_by_its_weights_and_not_by_their_place(self, saved_model, tmp_path):
        path = saved_model[0]
        sha256 = make_encoder("sentence-t5-base", source=str(path)).sha256
        copy = shutil.copytree(path, tmp_path / "copy")
        (copy / "README").write_text("says nothing of the weights")
        assert make_encoder("sentence-t5-base", 24, str(copy), sha256).sha256 == sha256
        (weights,) = copy.glob("variables/*.data*")
        weights.write_bytes(weights.read_bytes() + b"?")
        with pytest.raises(InputError, match="another sentence-t5-base than the one that made"):
            make_encoder("sentence-t5-base", 24, str(copy), sha256)

    def test_a_width_that_is_not_the_models(self, saved_model):
        with pytest.raises(InputError, match="writes 24 columns, not 768"):
            make_encoder("sentence-t5-base", 768, str(saved_model[0]))

    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(InputError) as error:
            make_encoder("sentence-t5-large", source=str(tmp_path / "nowhere"))
        assert str(error.value).count("\n") == 0
        assert "sentence-t5/st5-large" in str(error.value)
        assert "--encoder sentence-t5-large=FOLDER" in str(error.value)

    def test_a_damaged_model(self, tmp_path):
        (tmp_path / "saved_model.pb").write_bytes(b"junk")
        with pytest.raises(InputError, match="cannot be loaded") as error:
            make_encoder("sentence-t5-base", source=str(tmp_path))
        assert "\n" not in str(error.value)

    def test_no_network(self):
        with pytest.raises(InputError, match="cannot be loaded") as error:
            make_encoder("sentence-t5-base", source="http://localhost:1/st5-base")
        assert "\n" not in str(error.value)

    def test_a_missing_package(self, monkeypatch, tmp_path):
        (tmp_path / "saved_model.pb").touch()
        monkeypatch.setitem(sys.modules, "tensorflow_hub", None)
        with pytest.raises(InputError, match=r"install uem-t5x\[sentence-t5\]"):
            make_encoder("sentence-t5-base", source=str(tmp_path))


def test_an_unknown_encoder():
    with pytest.raises(InputError, match="choose one of hashing, sentence-t5-base"):
        make_encoder("bert")
