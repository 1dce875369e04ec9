import dataclasses
import pickle
import re
import time

import gin
import pytest
import seqio
import tensorflow as tf
from sentencepiece import sentencepiece_model_pb2

from uem_t5x.base.errors import InputError
from uem_t5x.data.vocabulary import train_vocabulary
from uem_t5x.inputs import data_sources, vocabularies
from uem_t5x.tastes import verbalizer

LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 791656\n"
)
TEXT = "The user likes Drama and doesn't like Horror."


@pytest.fixture
def vocabulary(dataset_folder):
    with data_sources.use_dataset_folder(dataset_folder):
        yield vocabularies.TaskVocabulary()


@pytest.fixture
def sentencepiece(dataset_folder):
    return seqio.SentencePieceVocabulary(str(dataset_folder.vocabulary_path))


def test_is_the_vocabulary_of_the_folder(vocabulary, sentencepiece):
    ids = vocabulary.encode(TEXT)

    assert ids == sentencepiece.encode(TEXT)
    assert vocabulary.decode(ids) == sentencepiece.decode(ids)
    assert vocabulary.decode([*ids, 1, 5, 5]) == vocabulary.decode([*ids, 1])
    assert vocabulary.encode_tf(tf.constant(TEXT)).numpy().tolist() == ids
    assert vocabulary.decode_tf(tf.constant(ids)) == sentencepiece.decode_tf(tf.constant(ids))
    assert vocabulary.vocab_size == sentencepiece.vocab_size
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    assert vocabulary.bos_id == sentencepiece.bos_id


def test_equality_is_that_of_the_model_file(vocabulary, sentencepiece):
    assert vocabulary == vocabularies.TaskVocabulary()
    assert vocabulary == sentencepiece
    assert sentencepiece == vocabulary
    assert vocabulary != seqio.SentencePieceVocabulary("elsewhere.model")
    assert vocabulary != seqio.ByteVocabulary()


def test_a_model_file_that_is_written_anew_is_read_anew(tmp_path):
    """SeqIO itself reads a file once in the life of a process."""
    file = tmp_path / "spm.model"
    train_vocabulary(file, [TEXT] * 9, ["Drama"], size=32)
    before = vocabularies.load(str(file))
    assert vocabularies.load(str(file)) is before
    time.sleep(0.02)  # a clock tick of the file system
    train_vocabulary(file, [TEXT] * 9, ["Drama", "Horror"], size=32)
    assert vocabularies.load(str(file)).encode(" Horror") != before.encode(" Horror")
    assert len(vocabularies.load(str(file)).encode(" Horror")) == 1


def test_pickles(vocabulary):
    assert pickle.loads(pickle.dumps(vocabulary)).encode(TEXT) == vocabulary.encode(TEXT)


def test_needs_no_folder_before_it_is_used(monkeypatch):
    monkeypatch.delenv(data_sources.DATA_DIR_VARIABLE, raising=False)
    vocabulary = vocabularies.TaskVocabulary()

    assert vocabulary == vocabularies.TaskVocabulary()
    with pytest.raises(InputError, match="no dataset folder is set"):
        vocabulary.encode(TEXT)


class TestModelFile:
    def test_a_recipe_may_bind_another(self, vocabulary, tmp_path, dataset_folder):
        copy = tmp_path / "copy.model"
        copy.write_bytes(dataset_folder.vocabulary_path.read_bytes())
        gin.parse_config(
            "from __gin__ import dynamic_registration\n"
            "from uem_t5x.inputs import vocabularies\n"
            f"vocabularies.sentencepiece_model_file.path = {str(copy)!r}"
        )

        assert vocabularies.sentencepiece_model_file() == str(copy)
        assert vocabulary == seqio.SentencePieceVocabulary(str(copy))

    def test_a_missing_file_is_named(self, vocabulary):
        gin.bind_parameter(
            "uem_t5x.inputs.vocabularies.sentencepiece_model_file.path", "/none.model"
        )

        with pytest.raises(InputError, match=r"^/none\.model: no such SentencePiece model"):
            vocabulary.encode(TEXT)

    def test_a_bucket_that_cannot_be_read_is_named(self, vocabulary, monkeypatch):
        def unreachable(*_, **__):
            raise tf.errors.UnavailableError(None, None, "{{x}} no network")

        monkeypatch.setattr(tf.io.gfile.GFile, "read", unreachable)
        file = "gs://bucket/sentencepiece.model"
        gin.bind_parameter("uem_t5x.inputs.vocabularies.sentencepiece_model_file.path", file)
        with pytest.raises(InputError, match=r"^gs://bucket/.*: cannot be read \(no network\); do"):
            vocabulary.encode(TEXT)

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (LFS_POINTER, "a git-lfs pointer, for which `git lfs pull` fetches the file"),
            (b'{\n  "version": "1.0",\n  "truncation": null}', "JSON"),
            (b"\n<!DOCTYPE html>\n<html>", "an HTML page, such as one of a failed download"),
            (b"<pad>\t0\n</s>\t0\n", "a text"),
            (b"", None),
        ],
    )
    def test_what_is_no_model_is_told_from_one(self, vocabulary, tmp_path, content, kind):
        file = tmp_path / "spiece.model"
        file.write_bytes(content)
        gin.bind_parameter("uem_t5x.inputs.vocabularies.sentencepiece_model_file.path", str(file))
        seems = f"it seems to be {kind}" if kind else "it is empty"
        message = f"{file}: not a SentencePiece model: {seems}; download"
        with pytest.raises(InputError, match=f"^{re.escape(message)}"):
            vocabulary.encode(TEXT)

    def test_a_model_that_was_cut_off_is_refused_wherever(self, dataset_folder, tmp_path):
        """Between two pieces, too: it was read as a vocabulary of fewer."""
        whole = dataset_folder.vocabulary_path.read_bytes()
        pieces = sentencepiece_model_pb2.ModelProto.FromString(whole).pieces
        after = [2 + pieces[0].ByteSize()]  # a byte for the field, a byte for the length
        for piece in pieces[1:]:
            after.append(after[-1] + 2 + piece.ByteSize())
        for size in (after[0], after[99], after[99] + 1, after[-1], len(whole) // 2):
            file = tmp_path / f"{size}.model"
            file.write_bytes(whole[:size])
            with pytest.raises(InputError, match=r"not a SentencePiece model: it seems to be dam"):
                vocabularies.load(str(file))

    def test_a_folder_without_one_falls_back_to_the_public_model(self, dataset_folder):
        manifest = dataclasses.replace(dataset_folder.manifest, has_vocabulary=False)
        without = dataclasses.replace(dataset_folder, manifest=manifest)

        with data_sources.use_dataset_folder(without):
            assert vocabularies.sentencepiece_model_file() == vocabularies.PUBLIC_MODEL_FILE


def sentencepiece_model(path, pieces, sentinels=0):
    """Writes a model of made-up pieces; with sentinels in the file if there are any."""
    proto = sentencepiece_model_pb2.ModelProto()
    kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
    for name, kind in (("<pad>", kinds.CONTROL), ("</s>", kinds.CONTROL), ("<unk>", kinds.UNKNOWN)):
        proto.pieces.add(piece=name, type=kind)
    for number in range(pieces - 3):
        proto.pieces.add(piece=f"{path.stem}{number}", score=-float(number))
    for number in reversed(range(sentinels)):
        proto.pieces.add(piece=f"<extra_id_{number}>", type=kinds.USER_DEFINED)
    proto.normalizer_spec.name = "identity"
    proto.trainer_spec.pad_id, proto.trainer_spec.eos_id, proto.trainer_spec.unk_id = 0, 1, 2
    path.write_bytes(proto.SerializeToString())
    return path


class TestPublicVocabularies:
    def use(self, file):
        gin.bind_parameter("uem_t5x.inputs.vocabularies.sentencepiece_model_file.path", str(file))
        return vocabularies.TaskVocabulary()

    @pytest.mark.parametrize("sentinels", [0, 100])
    def test_t5s_vocabulary_has_its_sentinels_in_either_form(self, sentinels, tmp_path):
        file = sentencepiece_model(tmp_path / "spiece.model", 32_000, sentinels)
        vocabulary = self.use(file)
        assert vocabulary.vocab_size == 32_100
        assert vocabulary.extra_ids == 100 - sentinels
        assert "<extra_id_0>" in vocabulary.tokenizer.id_to_piece(32_099)
        # The public checkpoints' rows.
        vocabularies.check_rows(vocabulary, 32_128, str(tmp_path))

    def test_other_vocabularies_get_none(self, tmp_path):
        assert self.use(sentencepiece_model(tmp_path / "own.model", 300)).vocab_size == 300

    @pytest.mark.parametrize("rows", [200, 32_128])
    def test_a_checkpoint_of_another_vocabulary_is_refused(self, rows, tmp_path):
        file = sentencepiece_model(tmp_path / "own.model", 300)
        message = rf"own.model: 300 tokens, but the embedding in flan has {rows} rows; give"
        with pytest.raises(InputError, match=message):
            vocabularies.check_rows(self.use(file), rows, "flan")

    def test_a_checkpoint_that_holds_other_pieces_is_refused(self, tmp_path):
        ours = self.use(sentencepiece_model(tmp_path / "own.model", 300))
        sentencepiece_model(tmp_path / "spiece.model", 300)
        with pytest.raises(InputError, match=r"own.model: token 3 is another one in .*spiece"):
            vocabularies.check_rows(ours, 300, str(tmp_path))

    def test_a_run_tells_its_vocabulary_whatever_its_rows(self, tmp_path):
        checkpoint = tmp_path / "run/checkpoint_6"
        folder = tmp_path / "run/catalogue/vocabulary"
        for path in (checkpoint, folder):
            path.mkdir(parents=True)
        own = sentencepiece_model(folder / "sentencepiece.model", 300)
        vocabularies.check_rows(self.use(own), 1024, str(checkpoint))
        fewer = sentencepiece_model(folder.with_name("sentencepiece.model"), 200)
        with pytest.raises(InputError, match=r"sentencepiece.model: token 200 is another one in"):
            vocabularies.check_rows(self.use(fewer), 1024, str(checkpoint))


def test_a_name_of_several_encodings_is_one_token_and_read_back(tmp_path):
    decomposed = "Come\u0301die"
    answer = verbalizer.write_answer([decomposed], ["War"])
    train_vocabulary(tmp_path / "vocabulary/spm.model", [answer] * 9, [decomposed, "War"], size=64)
    vocabulary = seqio.SentencePieceVocabulary(str(tmp_path / "vocabulary/spm.model"))

    ids = vocabulary.encode(answer)

    assert "\N{LOWER ONE EIGHTH BLOCK}Com\u00e9die" in map(vocabulary.tokenizer.id_to_piece, ids)
    read = verbalizer.read_answer(vocabulary.decode(ids), [decomposed, "War"])
    assert read == ([decomposed], ["War"])


def test_the_rarest_character_is_a_piece(tmp_path):
    """SentencePiece leaves out 1 letter in 2,000: there was no apostrophe, and `doesn ⁇ t`."""
    texts = ["The user likes Party and Drama."] * 999 + ["The user doesn't like Party."]
    train_vocabulary(tmp_path / "vocabulary/spm.model", texts, ["Party", "Drama"], size=64)
    vocabulary = vocabularies.load(str(tmp_path / "vocabulary/spm.model"))
    assert vocabulary.decode(vocabulary.encode(texts[-1])) == texts[-1]


def test_a_size_that_has_no_room_for_the_characters_is_refused(tmp_path):
    """3 special tokens, 2 words, the space and a, b, c, d and the French e."""
    file = tmp_path / "vocabulary/spm.model"
    more = ["a\u200cd \u2581\u2585\0", "e\u0301"]
    with pytest.raises(InputError, match=r"^--vocabulary-size 10: too small: .* give 11 or more"):
        train_vocabulary(file, ["ab c"] * 9, ["ab d", "d"], size=10, spelled=more)
    assert not file.parent.exists()
    train_vocabulary(file, ["ab c"] * 9, ["ab d", "d"], size=11, spelled=more)
    vocabulary = vocabularies.load(str(file))
    assert vocabulary.vocab_size == 11
    assert vocabulary.unk_id not in vocabulary.encode("abcd \u00e9")


def test_no_token_crosses_a_space(tmp_path):
    """`Folk an` was a token, and the beginning of `Folk and Drama`."""
    texts = [verbalizer.write_answer(["Folk", "Drama"], ["Folk an"])] * 9
    train_vocabulary(tmp_path / "vocabulary/spm.model", texts, ["Folk", "Folk an"], size=64)
    vocabulary = vocabularies.load(str(tmp_path / "vocabulary/spm.model"))
    apart = [token for word in texts[0].split(" ") for token in vocabulary.encode(word)]
    assert vocabulary.encode(texts[0]) == apart


def test_a_genre_with_a_zero_width_non_joiner_is_written_and_read_back(tmp_path):
    genres = ["\u0627\u0646\u06cc\u200c\u0645\u0647", "Auf\u200clage"]
    answer = verbalizer.write_answer(*([genre] for genre in genres))
    train_vocabulary(tmp_path / "vocabulary/spm.model", [answer] * 9, genres, size=64)
    vocabulary = vocabularies.load(str(tmp_path / "vocabulary/spm.model"))
    read = verbalizer.read_answer(vocabulary.decode(vocabulary.encode(answer)), genres)
    assert read == (genres[:1], genres[1:])
