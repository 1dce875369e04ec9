"""SentenceT5 by our own encoder, beside sentence-transformers on the same folder."""

import json
import shutil

import numpy as np
import pytest
from encoder_texts import TEXTS

from uem_t5x.base.errors import InputError
from uem_t5x.encoders import sentences
from uem_t5x.encoders.sentence_t5 import SentenceT5Encoder

torch = pytest.importorskip("torch", reason="PyTorch is no part of this project's set")
transformers = pytest.importorskip("transformers", reason="Transformers is no part of this set")
library = pytest.importorskip("sentence_transformers", reason="is no part of this set")


def save(folder, spiece, feed_forward, dense, most=32):
    """Writes a small random SentenceT5, as sentence-transformers does."""
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=140,
        d_model=24,
        d_kv=8,
        d_ff=40,
        num_layers=2,
        num_heads=3,
        feed_forward_proj=feed_forward,
    )
    t5 = folder.parent / f"{folder.name}-t5"
    transformers.T5EncoderModel(config).save_pretrained(t5)
    shutil.copy(spiece, t5 / "spiece.model")
    tokenizer = transformers.T5Tokenizer.from_pretrained(str(t5), extra_ids=0)
    tokenizer.save_pretrained(t5)
    models = library.sentence_transformer.modules
    modules = [models.Transformer(str(t5), max_seq_length=most), models.Pooling(24, "mean")]
    if dense:
        modules.append(models.Dense(24, dense, bias=False, activation_function=torch.nn.Identity()))
    model = library.SentenceTransformer(modules=[*modules, models.Normalize()], device="cpu")
    model.save(str(folder))
    shutil.copy(spiece, folder / "spiece.model")
    return model


@pytest.mark.parametrize(
    ("feed_forward", "dense"), [("relu", 16), ("gated-gelu", 16), ("relu", None)]
)
def test_vectors_are_the_librarys(tmp_path, spiece, feed_forward, dense):
    theirs = save(tmp_path / "model", spiece, feed_forward, dense)
    name, source = sentences.split_name(f"sentence-t5-base:{tmp_path / 'model'}")
    ours = sentences.make_encoder(name, source=source)
    assert isinstance(ours, SentenceT5Encoder)
    assert ours.width == (dense or 24)
    told = []
    found = ours.encode(TEXTS, told.append)
    expected = theirs.encode(TEXTS, show_progress_bar=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert sum(told) == len(TEXTS)
    # Whatever else is encoded beside it.
    np.testing.assert_allclose(ours.encode(TEXTS[3:4])[0], found[3], atol=1e-6)
    assert ours.encode([]).shape == (0, ours.width)


def test_weights_are_told_apart_wherever_they_lie(tmp_path, spiece):
    save(tmp_path / "model", spiece, "relu", 16)
    first = SentenceT5Encoder(str(tmp_path / "model")).sha256
    copy = shutil.copytree(tmp_path / "model", tmp_path / "copy")
    assert SentenceT5Encoder(str(copy)).sha256 == first
    with pytest.raises(InputError, match="writes 16 columns, not 24"):
        sentences.make_encoder("sentence-t5-base", 24, str(copy))
    weights = next(copy.glob("2_Dense/*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="another sentence-t5-base than the one that made"):
        sentences.make_encoder("sentence-t5-base", 16, str(copy), first)


def _change(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "modules.json").unlink(), r"modules\.json: missing"),
        (lambda f: (f / "modules.json").write_text("{"), r"modules\.json: damaged"),
        (lambda f: (f / "spiece.model").unlink(), r"spiece\.model: cannot be read"),
        (lambda f: (f / "spiece.model").write_bytes(b"x"), r"spiece\.model: cannot be read"),
        (lambda f: _change(f / "config.json", d_ff=48), "not those of the network"),
        (lambda f: _change(f / "config.json", model_type="bert"), "'bert' is not T5's"),
        (
            lambda f: _change(next(f.glob("1_*/config.json")), pooling_mode="cls"),
            r"pools by cls; SentenceT5 takes the mean",
        ),
        (
            lambda f: _change(
                next(f.glob("2_*/config.json")), activation_function="torch.nn.modules.Tanh"
            ),
            r"Tanh: a SentenceT5's layer has none",
        ),
        (
            lambda f: next(f.glob("2_*/*.safetensors")).write_bytes(b"x"),
            r"safetensors: cannot be read",
        ),
        (
            lambda f: (f / "modules.json").write_text(
                (f / "modules.json").read_text().replace('Pooling"', 'Weights"')
            ),
            "not a SentenceT5's modules; use it as --encoder sentence-transformers:",
        ),
    ],
)
def test_folders_that_are_none(tmp_path, spiece, damage, message):
    save(tmp_path / "model", spiece, "relu", 16)
    damage(tmp_path / "model")
    with pytest.raises(InputError, match=message) as error:
        SentenceT5Encoder(str(tmp_path / "model"))
    assert "\n" not in str(error.value)
