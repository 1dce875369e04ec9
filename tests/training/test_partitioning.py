"""Layouts: what is split, what is refused, and that none of them changes what is learned."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import virtual_devices
from flax import linen as nn
from flax.linen import partitioning as flax_partitioning

from uem_t5x.base.errors import InputError
from uem_t5x.network.layouts import Layout
from uem_t5x.training.partitioning import Partitioner


class TestLayout:
    @pytest.mark.parametrize("text", ["data", "fsdp", "model=4", "fsdp,model=4"])
    def test_is_read_and_written(self, text):
        assert str(Layout.parse(text)) == text

    @pytest.mark.parametrize("text", ["", "fsdp,", "model=0", "model=", "model=2,fsdp", "DATA"])
    def test_what_is_no_layout(self, text):
        with pytest.raises(InputError, match=r"no such layout; use 'data', 'fsdp', 'model=N'"):
            Layout.parse(text)

    def test_a_kernel_and_an_activation(self):
        layout = Layout(model=2, fsdp=True)
        assert layout.spec(("embed", "mlp")) == jax.P("data", "model")
        assert layout.spec(("batch", "length", "embed")) == jax.P("data", None, None)
        assert Layout().spec(("embed", "mlp")) == jax.P(None, "model")

    def test_devices_that_do_not_come_out_even(self):
        with pytest.raises(InputError, match=r"8 devices are no multiple of 3; use .*'model=2'"):
            Layout(model=3).check_devices(8)


class Heads(nn.Module):
    """A parameter for each of 12 heads, and one of width 20."""

    @nn.compact
    def __call__(self):
        zeros, param = nn.initializers.zeros, flax_partitioning.param_with_axes
        param("bias", zeros, (12, 3), jnp.float32, axes=("heads", "kv"))
        param("scale", zeros, (20,), jnp.float32, axes=("embed",))


@pytest.mark.parametrize(
    ("layout", "devices", "message"),
    [
        ("model=8", 8, r"bias has 12 heads, which do not divide by 8; use 'model=4'"),
        ("fsdp,model=8", 32, r"bias has 12 heads, .* by 8; use 'model=4'"),
        ("fsdp", 8, r"scale has 20 embed, which do not divide by 8; use 'fsdp,model=2'"),
        ("fsdp", 7, r"scale has 20 embed, which do not divide by 7; use 'data'"),
    ],
)
def test_sizes_that_do_not_divide(layout, devices, message):
    variables = jax.eval_shape(Heads().init, jax.random.PRNGKey(0))
    with pytest.raises(InputError, match=message):
        Layout.parse(layout).check_variables(variables, devices)


def test_batches_that_do_not_divide():
    partitioner = Partitioner()
    partitioner.check_batch_size(32)
    with pytest.raises(InputError, match=r"BATCH_SIZE=33 does not divide over 2 devices; use 32"):
        partitioner.check_batch_size(33)
    with pytest.raises(InputError, match=r"EVAL_BATCH_SIZE=1 does not .* use 2"):
        partitioner.check_batch_size(1, "EVAL_BATCH_SIZE")


@pytest.mark.parametrize(("parts", "fitting"), [(3, 2), (5, 4), (9, 8), (-1, 1)])
def test_parts_of_a_batch_that_do_not_divide(parts, fitting):
    partitioner = Partitioner()
    partitioner.check_batch_size(16, num_microbatches=fitting)
    message = rf"NUM_MICROBATCHES={parts}: BATCH_SIZE=16 over 2 devices .* parts; use {fitting}"
    with pytest.raises(InputError, match=message):
        partitioner.check_batch_size(16, num_microbatches=parts)


def test_a_batch_lies_on_all_devices():
    batch = {"x": np.arange(12).reshape(4, 3)}
    partitioner = Partitioner()
    assert partitioner.data_share == (0, 1)
    for sharded in (partitioner.shard_batch(batch), partitioner.shard_local_batch(batch)):
        np.testing.assert_array_equal(sharded["x"], batch["x"])
        assert {shard.data.shape for shard in sharded["x"].addressable_shards} == {(2, 3)}


@pytest.fixture(scope="module")
def runs():
    """Twenty steps under each layout, on eight virtual devices."""
    script = Path(__file__).parents[1] / "eight_devices.py"
    environment = {
        **os.environ,
        "PYTHONPATH": str(script.parents[1]),
        "XLA_FLAGS": virtual_devices.xla_flags(8),
    }
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rematerialization" not in done.stderr  # arrays that take a detour between devices
    return {tuple(arguments): run for arguments, run in map(json.loads, done.stdout.splitlines())}


def test_every_layout_gives_the_losses_of_one_device(runs):
    for arguments, run in runs.items():
        expected = runs["data", 1, False, *arguments[3:]]["losses"]
        assert expected[-1] < (0.9 if "lora" in arguments else 0.6) * expected[0]
        np.testing.assert_allclose(run["losses"], expected, rtol=1e-5, err_msg=str(arguments))


def test_every_layout_compiles_its_step_once(runs):
    assert {run["programs"] for run in runs.values()} == {1}


@pytest.mark.parametrize(
    ("layout", "most"), [("data", 1), ("model=4", 0.35), ("fsdp", 0.2), ("fsdp,model=2", 0.2)]
)
def test_what_a_device_holds_of_the_state(runs, layout, most):
    assert runs[layout, 8, False]["part"] <= most
