"""A soft prompt of one's own, a class in a module beside its recipe: all commands take it."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest
import tiny_recipe
from safetensors.numpy import load_file

from uem_t5x import checkpoints, cli, network, train
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.inputs import data_sources
from uem_t5x.tpu import compiling, topologies
from uem_t5x.tpu.recipe import recipe
from uem_t5x.tpu.rows import TRAIN
from uem_t5x.training import validation

MODULE = """
from flax import linen as nn

from uem_t5x import network
from uem_t5x.network.item_table import ItemTable


class ScaledPrompt(network.SoftPromptModule):
    channels: tuple
    scale: float = 1.0

    @nn.compact
    def __call__(self, features, embed_dim, *, enable_dropout=True):
        items = features["history_items"]
        vectors = ItemTable(self.channels, name="item_table")(items, features["history_ratings"])
        prompt = self.scale * nn.Dense(embed_dim, name="only")(vectors)
        return network.SoftPrompt(prompt, items > 0)
"""
RECIPE = """
from __gin__ import dynamic_registration
import scaled_prompt
from uem_t5x.inputs import data_sources
include 'gin/uem_tiny.gin'
SOFT_PROMPT = @scaled_prompt.ScaledPrompt()
scaled_prompt.ScaledPrompt.channels = @data_sources.channels()
scaled_prompt.ScaledPrompt.scale = 0.5
"""
OF_THE_UEM = ("UEM_LAYERS", "user_embedding.")
TINY = [binding for binding in tiny_recipe.BINDINGS if not binding.startswith(OF_THE_UEM)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the module and its recipe lie, which Python finds."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "scaled_prompt.py").write_text(MODULE)
    (folder / "own.gin").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder
    sys.modules.pop("scaled_prompt", None)


@pytest.fixture(scope="module")
def model_dir(folder, dataset_folder):
    """A run of two steps, without the evaluation at its end, which takes the longest."""
    places = tiny_recipe.places(folder / "run", dataset_folder.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation.Validation, "measure", lambda *_: {})
        steps = ["TRAIN_STEPS = 2", "CHECKPOINT_PERIOD = 1"]
        train.run_recipe([folder / "own.gin"], [*TINY, *steps, *places])
    return folder / "run"


@pytest.fixture(scope="module")
def scored(model_dir):
    """The run with its scores beside it, as `evaluate` writes them."""
    arguments = ["--model-dir", str(model_dir), "--split", "validation", "--batch-size", "8"]
    assert cli.main(["evaluate", *arguments, "--output", str(model_dir / "metrics.json")]) == 0
    return model_dir


def test_it_is_trained_as_the_papers_is(model_dir, dataset_folder):
    first, last = (TrainedModel.load(model_dir, step) for step in (1, 2))
    assert set(last.params) == {*network.LANGUAGE_MODEL, "only"}
    assert not np.array_equal(first.params["only"]["kernel"], last.params["only"]["kernel"])
    (table,) = last.flax_mutables["item_table"].values()
    jax.tree.map(np.testing.assert_array_equal, table, dict(dataset_folder.embeddings()))


def test_it_answers_by_what_it_was_given(model_dir):
    """The history reaches the language model, and reaches it scaled as the recipe says."""
    trained = TrainedModel.load(model_dir)
    assert trained.reads_embeddings
    ratings = {"history_ratings": [9] * 3}
    users = [{"user_id": "u", "history_items": items, **ratings} for items in ([5, 6, 7], [8] * 3)]
    features = trained.ask(users).features
    module, variables = trained.model.module, {"params": trained.params, **trained.flax_mutables}
    prompt = module.apply(variables, features, enable_dropout=False, method="prompt")
    assert np.asarray(prompt.mask).sum(axis=1).tolist() == [3, 3]
    assert not np.allclose(prompt.embeddings[0], prompt.embeddings[1])
    double = module.clone(soft_prompt=module.soft_prompt.clone(scale=1.0))
    twice = double.apply(variables, features, enable_dropout=False, method="prompt")
    np.testing.assert_allclose(twice.embeddings, 2 * prompt.embeddings, rtol=1e-6)


def test_it_is_scored(scored):
    scores = json.loads((scored / "metrics.json").read_text())
    assert list(scores["methods"]) == ["uem", "counting", "rule"]
    assert (scores["step"], scores["history_length"], scores["examples"]) == (2, 20, 10)


def test_it_is_reported(scored, tmp_path, capsys):
    assert cli.main(["report", str(scored), "--output", str(tmp_path / "report")]) == 0
    f1 = json.loads((scored / "metrics.json").read_text())["methods"]["uem"]["f1"]
    tables = (tmp_path / "report/tables.md").read_text()
    assert f"{f1:.3f}" in tables


def test_it_is_exported_by_name(model_dir, dataset_folder, tmp_path, capsys):
    """With its settings, and not described."""
    places = ["--model-dir", str(model_dir), "--output", str(tmp_path / "out")]
    assert cli.main(["export", *places, "--format", "huggingface"]) == 0
    told = "user_embedding is of scaled_prompt.ScaledPrompt: its config.json names the class"
    assert told in capsys.readouterr().out
    config = json.loads((tmp_path / "out/user_embedding/config.json").read_text())
    assert config["class"] == "scaled_prompt.ScaledPrompt"
    with data_sources.use_dataset_folder(dataset_folder):
        channels = [dataclasses.asdict(channel) for channel in data_sources.channels()]
    assert config["settings"] == {"channels": channels, "scale": 0.5}
    # No Transformer that is not there, nor anything else that only our own class says.
    known = {"format", "format_version", "step", "task", "embed_dim", "history_length"}
    assert set(config) == known | {"class", "settings", "sentence_encoder", "genres"}
    tensors = load_file(tmp_path / "out/user_embedding/model.safetensors")
    table = {f"item_table/{channel}" for channel in dataset_folder.embeddings()}
    assert set(tensors) == {"only/kernel", "only/bias"} | table
    checkpoints.load_language_model(tmp_path / "out")


def test_its_training_step_is_compiled_and_counted(folder, monkeypatch):
    """For this machine, as if it were a TPU."""

    def compile_here(lowered):
        compiled = lowered.compile()
        return compiled, compiled.as_text()

    monkeypatch.setattr(topologies, "devices", lambda _: jax.devices()[:1])
    monkeypatch.setattr(compiling, "_compile", compile_here)
    with recipe([str(folder / "own.gin")], [*TINY, "BATCH_SIZE = 8"]) as arguments:
        module = arguments["model"].module
        lengths = arguments["train_dataset_cfg"].task_feature_lengths
        width = sum(channel.width for channel in module.soft_prompt.channels)
        topology = topologies.topology("v5litepod-1")
        row = compiling.compile_for(arguments, topology, TRAIN)
        # A product an item, and a token an item.
        embed_dim, history = module.config.emb_dim, lengths["history_items"]
        assert module.soft_prompt.flops(lengths, embed_dim) == 2 * history * width * embed_dim
        assert module.soft_prompt.length(lengths, embed_dim) == history
    assert row.uem_parameters == (width + 1) * embed_dim
    assert 0.95 < row.flops_ratio < 1.35
