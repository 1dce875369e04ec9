"""What both engines share: T5X's optimizer semantics and the choice of types."""

import importlib.util
from pathlib import Path
from unittest import mock

import numpy as np
import optax
import pytest

from uem_t5x import engine
from uem_t5x.base.errors import InputError
from uem_t5x.inputs import batches
from uem_t5x.network import layouts
from uem_t5x.runs import recipes
from uem_t5x.training import checkpoint_manager, optimizers, partitioning

GOLDEN = Path(__file__).parent / "golden/adafactor_t5x.npz"


def draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


def test_adafactor_equals_t5x():
    rng = np.random.default_rng(0)
    params = {
        "matrix": draw(rng, 128, 160).astype(np.float32),  # factored
        "small": draw(rng, 16, 200).astype(np.float32) * 0.1,  # not factored
        "vector": np.ones(12, np.float32),
        "tiny": np.full((4,), 1e-5, np.float32),  # below the least scale of a parameter
    }
    shapes = {name: value.shape for name, value in params.items()}
    optimizer = optimizers.adafactor()
    state = optimizer.init(params)
    for step in range(3):
        gradients = {
            name: (draw(rng, *shape) * 10.0**-step).astype(np.float32)
            for name, shape in shapes.items()
        }
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, {k: -0.05 * v for k, v in updates.items()})

    golden = np.load(GOLDEN)
    close = {"rtol": 2e-5, "atol": 1e-7}
    np.testing.assert_allclose(params["matrix"][:4], golden["matrix"], **close)
    np.testing.assert_allclose(params["small"][:, :8], golden["small"], **close)
    np.testing.assert_allclose(params["vector"], golden["vector"], **close)
    np.testing.assert_allclose(params["tiny"], golden["tiny"], **close)
    np.testing.assert_allclose(state[0].v_row["matrix"], golden["v_row"], **close)
    np.testing.assert_allclose(state[0].v_col["matrix"], golden["v_col"], **close)
    np.testing.assert_allclose(state[0].v["small"][:, :8], golden["v_small"], **close)


@pytest.mark.parametrize(
    ("model", "bounds", "block"),
    [
        (1, (16, 16, 1, 1), (1, 1, 1, 1)),
        (4, (16, 16, 1, 1), (2, 2, 1, 1)),  # a host's
        (2, (2, 2, 4, 1), (1, 2, 1, 1)),
        (4, (2, 2, 4, 1), (2, 2, 1, 1)),
        (8, (2, 2, 4, 1), (2, 2, 2, 1)),
        (6, (6, 2, 1, 1), (3, 2, 1, 1)),
    ],
)
def test_devices_that_share_a_model_lie_together(model, bounds, block):
    """Blocks by hand: the devices of each are the fewest steps apart."""
    assert engine.compact_block(layouts.Layout(model), bounds) == block


def test_no_block_of_so_many_devices():
    with pytest.raises(InputError, match=r"LAYOUT='model=8': no block of 8 devices .* 2x2x1x1"):
        engine.compact_block(layouts.Layout(8), (2, 2, 1, 1))


def test_macros_to_no_effect_are_told_of(tmp_path, monkeypatch):
    """Of a recipe that T5X's scripts have read."""
    recipe = tmp_path / "mine.gin"
    recipe.write_text("STEPS = 1\nHISTORY_LENGHT = %STEPS\nHISTORY_LENGTH = 2\nA = %HISTORY_LENGTH")
    recipes.parse([recipe])
    told = []
    monkeypatch.setattr(engine.logging, "warning", lambda text, *words: told.append(text % words))
    monkeypatch.setattr(engine.model_dir_lib, "write", lambda *_: "")
    monkeypatch.setattr(engine.data_sources, "dataset_folder", lambda: None)
    monkeypatch.setattr(engine.vocabularies, "sentencepiece_model_file", lambda: "")
    engine.summarize_config("model", mock.Mock(), 0)
    assert "Nothing refers to the macro HISTORY_LENGHT; there is HISTORY_LENGTH" in told
    assert len(told) == 2


def test_inside_the_built_in_engine_its_types_are_made():
    with engine.built_in():
        assert isinstance(engine.partitioner(), partitioning.Partitioner)
        config = engine.dataset_config("task", {"inputs": 4}, "train", 8)
        assert isinstance(config, batches.DatasetConfig)
        assert isinstance(engine.checkpoint_config(10), checkpoint_manager.CheckpointConfig)
        assert engine.adafactor().saved_as == optimizers.ADAFACTOR


@pytest.mark.skipif(importlib.util.find_spec("t5x") is not None, reason="T5X is installed")
def test_whoever_hands_in_no_engine_is_taken_for_t5x():
    with pytest.raises(ModuleNotFoundError, match="t5x"):
        engine.adafactor()
