"""What `uem-t5x compile` counts: by hand, on loops of known length, and for TPUs with libtpu."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from uem_t5x import cli, network
from uem_t5x.base.errors import InputError
from uem_t5x.commands import compile_tables
from uem_t5x.network import flops
from uem_t5x.tpu import compiling, hlo, program_costs, topologies
from uem_t5x.tpu.recipe import recipe
from uem_t5x.tpu.rows import TRAIN, Row

ROOT = Path(__file__).parents[2]
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: the extra tpu-compile"
)


class TestTopologies:
    @pytest.mark.parametrize(
        ("name", "devices", "hosts", "gib"),
        [
            ("v2-8", 8, 1, 8),
            ("v3-8", 8, 1, 16),
            ("v3-32", 32, 4, 16),
            ("v4-8", 4, 1, 32),
            ("v4-128", 64, 16, 32),
            ("v5litepod-4", 4, 1, 16),
            ("v5litepod-8", 8, 1, 16),
            ("v5litepod-256", 256, 64, 16),
            ("v5e-256", 256, 64, 16),
            ("v5p-8", 4, 1, 95),
            ("v6e-8", 8, 1, 32),
        ],
    )
    def test_names_of_google_cloud(self, name, devices, hosts, gib):
        topology = topologies.topology(name)
        assert (topology.devices, topology.hosts) == (devices, hosts)
        assert topology.hbm_bytes == gib * 2**30

    @pytest.mark.parametrize("name", ["v3-9", "v9-8", "v3", ""])
    def test_an_unknown_one_lists_the_known_ones(self, name):
        with pytest.raises(
            InputError, match=r"unknown; choose from v2-{8,32,.*v6e-{1,4,8"
        ) as error:
            topologies.topology(name)
        assert "\n" not in error.value.line

    @needs_libtpu
    @pytest.mark.parametrize("name", topologies.TOPOLOGIES)
    def test_the_compiler_knows_each_with_as_many_devices(self, name, monkeypatch):
        for variable in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
            monkeypatch.setenv(variable, "1")
        topology = topologies.topology(name)
        devices = topologies.devices(topology)
        assert len(devices) == topology.devices
        assert len({device.process_index for device in devices}) == topology.hosts


SMALL = network.T5Config(
    vocab_size=10,
    emb_dim=4,
    num_heads=1,
    head_dim=2,
    mlp_dim=3,
    num_encoder_layers=1,
    num_decoder_layers=1,
)


def test_flops_counted_by_hand():
    """Width 4, one head of 2, feed-forward 3, one layer of each kind, two and three positions."""
    # Query, key, value, output: 4 x 4 x 2 products for each of 2 positions; logits and sum of
    # values: 2 x 2 x 2 x 2; feed-forward: 3 x 4 x 3 for each position. Two FLOPs a product.
    assert flops.encoder_flops(SMALL, 2) == 2 * (2 * 32 + 16 + 2 * 36)
    # Self-attention over 3 targets, cross-attention of 3 targets to 2 positions, whose keys and
    # values are computed too, feed-forward, and logits over 10 tokens.
    self_attention = 3 * 32 + 2 * 3 * 3 * 2
    cross_attention = 3 * 2 * 8 + 2 * 2 * 8 + 2 * 3 * 2 * 2
    expected = self_attention + cross_attention + 3 * 36 + 3 * 4 * 10
    assert flops.decoder_flops(SMALL, 3, 2) == 2 * expected


@pytest.mark.parametrize(("kind", "summaries"), [("local", 0), ("transient_global", 2)])
def test_flops_of_long_attention_counted_by_hand(kind, summaries):
    """Five positions in three blocks of two, each of which sees three blocks."""
    config = network.T5Config(
        emb_dim=4,
        num_heads=1,
        head_dim=2,
        mlp_dim=3,
        num_encoder_layers=1,
        encoder_attention=kind,
        local_radius=1,
        global_block_size=2,
    )
    projections = 5 * 4 * 4 * 2 + summaries * 2 * 4 * 2  # a summary has no query, and no output
    attention = 6 * (3 * 2 + summaries) * 2 * 2  # the sixth query is padding
    assert flops.encoder_flops(config, 5) == 2 * (projections + attention + 5 * 36)


def test_flops_of_a_frozen_language_model_counted_by_hand():
    """The sizes of the first test, with two decoder layers.

    A product with a parameter is computed again for its input's gradient, one of activations for
    both gradients. The first layer of the decoder reads nothing that is trained before it looks at
    the encoder's output.
    """
    config = dataclasses.replace(SMALL, num_decoder_layers=2)
    encoder = 2 * (2 * 32 + 2 * 36) + 3 * 16
    assert flops.encoder_flops(config, 2, flops.FROZEN) == 2 * encoder == 640
    # Self-attention 96 + 36; query 24, output 24, keys and values 32; logits 12, of which only the
    # keys have a gradient, and sum of values 12; feed-forward 108; then the output layer 120.
    first = (96 + 36) + 24 + 2 * 24 + 2 * 32 + 2 * 12 + 3 * 12 + 2 * 108
    second = 2 * 96 + 3 * 36 + 2 * (24 + 24 + 32) + 3 * (12 + 12) + 2 * 108
    expected = 2 * (first + second + 2 * 120)
    assert flops.decoder_flops(config, 3, 2, flops.FROZEN) == expected == 3064

    # Without a user embedding there is nothing to train.
    text, lengths = (
        network.Transformer(config),
        {"encoder_input_tokens": 2, "decoder_target_tokens": 3},
    )
    forward = flops.forward_flops(text, lengths, 5)
    assert flops.training_flops(text, lengths, 5, trains_language_model=False) == forward
    assert flops.training_flops(text, lengths, 5) == 3 * forward


def test_a_frozen_language_model_is_told_and_counted(monkeypatch, capsys):
    """The training step of a recipe, compiled for this machine as if it were a TPU."""

    def compile_here(lowered):
        compiled = lowered.compile()
        return compiled, compiled.as_text()

    monkeypatch.setattr(topologies, "devices", lambda _: jax.devices()[:1])
    monkeypatch.setattr(compiling, "_compile", compile_here)
    bindings = ["UEM_LAYERS = 0", "BATCH_SIZE = 8", "FREEZE_LANGUAGE_MODEL = True"]
    with recipe(["gin/uem_tiny.gin"], bindings) as arguments:
        topology = topologies.topology("v5litepod-1")
        row = compiling.compile_for(arguments, topology, TRAIN)
    assert 1 < row.flops_ratio < 1.05
    assert not row.notes  # that the compiler counts too few
    assert row.frozen_parameters == row.parameters - row.uem_parameters > 0
    compile_tables.show([row], Console(width=200))
    told = f"the language model's {row.frozen_parameters / 1e6:.1f}M are frozen; batch 8"
    assert told in capsys.readouterr().out


class TestLoops:
    """A loop of seven products of 16 x 16 matrices, as the CPU's compiler writes it."""

    @pytest.fixture(scope="class")
    def compiled(self):
        def scanned(x, weights):
            return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

        return jax.jit(scanned).lower(jnp.zeros((16, 16)), jnp.zeros((7, 16, 16))).compile()

    def test_rounds_are_read_from_the_program(self, compiled):
        program = hlo.parse(compiled.as_text())
        trips = [
            hlo.trip_count(program, computation, instruction)
            for computation in program.computations.values()
            for instruction in computation.instructions.values()
            if instruction.opcode == "while"
        ]
        assert trips == [7]

    def test_every_round_is_counted(self, compiled):
        analysis = compiled.cost_analysis()
        product = 2 * 16**3
        assert product <= analysis["flops"] < 2 * product  # XLA counts one round
        costs = program_costs.program_costs(compiled.as_text(), analysis)
        assert 7 * product <= costs.flops < 7.5 * product
        assert [(loop.trips, loop.assumed) for loop in costs.loops] == [(7, False)]

    def test_what_nobody_knows_is_not_printed(self):
        def unknown(x, limit):
            return jax.lax.while_loop(
                lambda s: s[1] < limit, lambda s: (s[0] @ s[0], s[1] + 1), (x, 0)
            )

        compiled = jax.jit(unknown).lower(jnp.zeros((16, 16)), 3).compile()
        text, analysis = compiled.as_text(), compiled.cost_analysis()
        assert program_costs.program_costs(text, analysis).flops is None
        assumed = program_costs.program_costs(text, analysis, assumed_trips=5)
        assert 5 * 2 * 16**3 <= assumed.flops < 5.5 * 2 * 16**3
        assert [loop.assumed for loop in assumed.loops] == [True]


def test_a_collective_spread_over_fusions_counts_once():
    """An all-gather of 4 x 2 halves as a v5e runs it: started, carried on beside an add, ended."""
    text = (Path(__file__).parent / "hlo" / "spread_all_gather.hlo").read_text()
    costs = program_costs.program_costs(text, {"flops": 8.0, "bytes accessed": 0.0})
    assert costs.collectives == {"all-gather": program_costs.Collective(count=2, bytes=2 * 64)}
    totals = program_costs._Counter(hlo.parse(text), {}).totals(hlo.parse(text).entry)
    # Shard read, it and the whole handed on; 8 numbers read and written; shard and whole again.
    assert totals.bytes == (32 + 32 + 64) + (32 + 32) + (32 + 64)


def test_without_libtpu_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda _: None)
    assert cli.main(["compile", "--gin_file=gin/uem_tiny.gin", "--topology", "v3-8"]) == 2
    message = capsys.readouterr().err
    assert "pip install -e '.[tpu-compile]'" in message and message.count("\n") == 1


def test_what_would_fit_beside_the_gradients_of_what_is_trained():
    """Of 14 GiB one is for gradients; frozen parameters have none."""
    leaf = jax.ShapeDtypeStruct(
        (2**28,), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
    )
    plan = compiling._Plan(
        partitioner=mock.Mock(layout=mock.Mock(fsdp=True), mesh=mock.Mock(shape={"data": 8})),
        state_shape=mock.Mock(params={"user_embedding": leaf, "encoder": leaf, "decoder": leaf}),
        batch={},
        batch_size=128,
        feature_lengths={},
        num_microbatches=1,
        trained={"user_embedding": leaf},
    )
    row = mock.Mock(spec=Row, what=TRAIN, batch_size=128, argument_bytes=0)
    suggested = compiling._suggestion(row, plan, 27 * 2**30, 14 * 2**30)
    assert suggested == "BATCH_SIZE=64, or NUM_MICROBATCHES=2 (estimate)"  # (14 - 1) / (27 - 1)


@pytest.mark.parametrize(
    ("num_microbatches", "fsdp", "needed", "expected"),
    [
        (1, False, 20, "BATCH_SIZE=88, or NUM_MICROBATCHES=2, or LAYOUT='fsdp' (estimate)"),
        (1, True, 20, "BATCH_SIZE=88, or NUM_MICROBATCHES=2 (estimate)"),
        (4, True, 20, "BATCH_SIZE=64, or NUM_MICROBATCHES=8 (estimate)"),
        (16, True, 20, "more devices, or a chip with more memory (estimate)"),
        (1, False, 2000, "LAYOUT='fsdp', or more devices, or a chip with more memory (estimate)"),
    ],
)
def test_what_would_fit(num_microbatches, fsdp, needed, expected):
    layout = mock.Mock(fsdp=fsdp)
    plan = mock.Mock(
        spec=compiling._Plan,
        partitioner=mock.Mock(layout=layout),
        trained={},
        batch_parts=8,
        num_microbatches=num_microbatches,
    )
    row = mock.Mock(spec=Row, what=TRAIN, batch_size=128, argument_bytes=0)
    assert compiling._suggestion(row, plan, needed * 2**30, 14 * 2**30) == expected


def compile_tiny(*arguments):
    """Runs the command in a process of its own, which libtpu likes best."""
    command = [sys.executable, "-m", "uem_t5x.cli", "compile", "--gin_file=gin/uem_tiny.gin"]
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )


@needs_libtpu
class TestCompile:
    @pytest.fixture(scope="class")
    def rows(self):
        """Four layers a stack for v3-8: unrolled, scanned, and scanned under another layout."""
        found = {}
        depth = [f"--gin.network.T5Config.num_{stack}_layers=4" for stack in ("encoder", "decoder")]
        for name, macros in {
            "unrolled": [],
            "scanned": ["--gin.SCAN_LAYERS=True", "--gin.REMAT_POLICY=minimal"],
            "fsdp": ["--gin.SCAN_LAYERS=True", "--gin.LAYOUT=fsdp,model=2"],
        }.items():
            done = compile_tiny("--topology", "v3-8", "--json", "-", *depth, *macros)
            assert done.returncode == 0, done.stderr[-2000:]
            (found[name],) = json.loads(done.stdout)["rows"]
        return found

    def test_what_a_row_tells(self, rows):
        row = rows["unrolled"]
        assert (row["topology"], row["devices"], row["hosts"]) == ("v3-8", 8, 1)
        assert row["batch_size"] == 8 and row["mesh"] == {"data": 8, "model": 1}
        assert row["fits"] and row["suggestion"] is None
        assert row["argument_bytes"] < row["peak_bytes"] < row["available_bytes"] < row["hbm_bytes"]
        assert row["collectives"]["all-reduce"]["bytes"] >= 2 * row["parameters"]
        assert row["hours"] == pytest.approx(row["seconds"] * 16000 / 3600)
        assert row["seconds"] >= max(row["flops_seconds"], row["bytes_seconds"])

    def test_flops_agree_with_those_counted_by_hand(self, rows):
        for name, row in rows.items():
            assert 0.95 < row["flops_ratio"] < 1.35, name

    def test_loops_are_counted_in_full(self, rows):
        scanned, unrolled = rows["scanned"], rows["unrolled"]
        assert 4 in [loop["trips"] for loop in scanned["loops"]]
        assert not unrolled["loops"]
        assert 0.97 < scanned["flops"] / unrolled["flops"] < 1.25
        counted = [row["collectives"]["all-reduce"]["bytes"] for row in (scanned, unrolled)]
        assert 0.8 < counted[0] / counted[1] < 1.2

    def test_a_sharded_state_takes_less_memory(self, rows):
        row = rows["fsdp"]
        assert row["mesh"] == {"data": 4, "model": 2}
        assert row["argument_bytes"] < 0.5 * rows["scanned"]["argument_bytes"]
        assert {"all-gather", "all-reduce"} <= row["collectives"].keys()

    def test_generation_as_a_table(self):
        done = compile_tiny("--topology", "v4-8", "--what", "predict")
        assert done.returncode == 0, done.stderr[-2000:]
        assert "v4-8" in done.stdout and "yes" in done.stdout
        assert "decoding is taken to run its full 32 rounds" in done.stdout

    def test_a_model_that_does_not_fit(self):
        done = compile_tiny("--topology", "v5e-4", "--gin.BATCH_SIZE=131072")
        assert done.returncode == 0, done.stderr[-2000:]
        assert "does not fit; nearest: BATCH_SIZE=" in done.stdout

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["v3-8", "--gin.BATCH_SIZE=36"],
                "BATCH_SIZE=36 does not divide over 8 devices; use 32",
            ),
            (["v3-8", "--gin.LAYOUT=model=8"], "heads, which do not divide by 8; use 'model=2'"),
            (["v3-8", "--gin.SCAN_LAYER=True"], "gin/uem_tiny.gin has no macro SCAN_LAYER; it has"),
            (["v3-8", "v3-7"], "--topology v3-7: unknown; choose from"),
            (["v3-8", "--gin.TRAIN_STEPS=1", "--nonsense"], "unrecognized arguments: --nonsense"),
        ],
    )
    def test_refused(self, arguments, message, capsys):
        command = ["compile", "--gin_file=gin/uem_tiny.gin", "--topology", *arguments]
        with mock.patch.dict(os.environ):
            try:
                code = cli.main(command)
            except SystemExit as usage:
                code = usage.code
        assert code == 2
        stderr = capsys.readouterr().err
        assert message in stderr
        assert "Traceback" not in stderr
