"""Compiles a recipe for TPUs that are not there, and tells what it would take.

The real training step, or the real generation, goes through the TPU's own compiler (libtpu), which
says how much memory each device needs and what it computes and moves in a step. Times are those of
a device that is never idle: a real one is slower. No data, vocabulary or checkpoint is read.
"""

import dataclasses
import itertools
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uem_t5x.base.errors import InputError
from uem_t5x.tpu import topologies
from uem_t5x.tpu.rows import PREDICT, TRAIN, Row

if TYPE_CHECKING:
    import jax

    from uem_t5x.tpu.topologies import Topology
    from uem_t5x.training import partitioning

# Below this part of the FLOPs counted by hand, XLA's count is taken to miss something.
CREDIBLE_RATIO = 0.95
# `CompileTimeHbmOom: ... required ... (21.30G) exceeds available HBM (15.48G)`, and its like.
_OUT_OF_MEMORY = re.compile(r"([\d.]+)([KMGT])\)? ?(?:exceeds|of) [^\d]*([\d.]+)([KMGT])")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What shall be compiled: how the state and a batch lie on the devices."""

    partitioner: "partitioning.Partitioner"
    state_shape: Any
    batch: Mapping[str, Any]
    batch_size: int
    feature_lengths: Mapping[str, int]
    num_microbatches: int
    trained: Any  # the shapes of the parameters that have gradients

    @property
    def batch_parts(self) -> int:
        return self.partitioner.mesh.shape["data"]

    @property
    def argument_bytes(self) -> int:
        return _device_bytes(self.state_shape) + _device_bytes(self.batch)


def _plan(arguments: Mapping[str, Any], devices: Sequence[Any], what: str) -> _Plan:
    """Lays a recipe out over devices.

    Raises:
      InputError: if they cannot share the batch or the model.
    """
    import jax
    import numpy as np

    from uem_t5x.network import parameters
    from uem_t5x.training import partitioning, trainer

    model = arguments["model"]
    partitioner = partitioning.Partitioner(arguments["layout"], devices)
    if what == TRAIN:
        config, macro = arguments["train_dataset_cfg"], "BATCH_SIZE"
    else:
        config, macro = arguments["infer_eval_dataset_cfg"], "EVAL_BATCH_SIZE"
    num_microbatches = trainer.num_microbatches(arguments["trainer_cls"]) if what == TRAIN else 1
    partitioner.check_batch_size(config.batch_size, macro, num_microbatches)
    converter = model.FEATURE_CONVERTER_CLS(pack=False)
    lengths = converter.get_model_feature_lengths(config.task_feature_lengths)
    shapes = {name: (config.batch_size, length) for name, length in lengths.items()}
    state = trainer.TrainStateInitializer(
        model=model, input_shapes=shapes, partitioner=partitioner
    ).state_shape
    batch = {
        name: jax.ShapeDtypeStruct(shape, np.int32, sharding=partitioner.batch_sharding)
        for name, shape in shapes.items()
    }
    if what == PREDICT:
        state = state.replace(opt_state=())
    return _Plan(
        partitioner,
        state,
        batch,
        config.batch_size,
        lengths,
        num_microbatches,
        parameters.trained(state.params, model.trainable),
    )


def _lower(arguments: Mapping[str, Any], plan: _Plan, what: str) -> "jax.stages.Lowered":
    """Traces the recipe's step, or its generation."""
    import jax
    import numpy as np
    import seqio

    from uem_t5x.training.predictor import Predictor

    model = arguments["model"]
    if what == TRAIN:
        impl = "unsafe_rbg" if arguments["use_hardware_rng"] else None
        trainer = arguments["trainer_cls"](
            model=model,
            rng=jax.random.key(0, impl=impl),
            partitioner=plan.partitioner,
            state_shape=plan.state_shape,
        )
        return trainer.train_step.lower(plan.state_shape, plan.batch)
    # Only the end-of-sequence token is asked for: T5's is 1 in every vocabulary.
    model.output_vocabulary = seqio.PassThroughVocabulary(model.module.config.vocab_size, 1)
    predictor = Predictor(model, plan.partitioner, plan.batch_size)
    state = plan.state_shape
    key = np.zeros(2, np.uint32)  # of NumPy: a key of JAX's would lie on the CPU
    return predictor.predict_step.lower(state.params, state.flax_mutables, plan.batch, key)


def _device_bytes(shapes: Any) -> int:
    """Returns the bytes of a tree of sharded shapes on one device, without padding."""
    import jax
    import numpy as np

    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(shapes)
    )


def check(arguments: Mapping[str, Any], topology: "Topology", what: str) -> None:
    """Checks, without the minutes of compiling, that a topology can run a recipe.

    Args:
      arguments: what `recipe.recipe` gave.
      topology: the TPUs.
      what: `train` or `predict`.

    Raises:
      InputError: if its devices cannot share the batch or the model, or libtpu is not installed.
    """
    _plan(arguments, topologies.devices(topology), what)


def _training_flops(model: Any, plan: _Plan) -> int:
    """Counts the FLOPs of a step: by hand, or by a trace where one's own choice is trained."""
    import jax

    from uem_t5x.network import flops, parameters

    if model.trainable in (parameters.everything, parameters.soft_prompt_alone):
        is_trained = model.trainable is parameters.everything
        return flops.training_flops(model.module, plan.feature_lengths, plan.batch_size, is_trained)
    state = plan.state_shape
    _, frozen = parameters.split(state.params, model.trainable)

    def loss(trained: Any, frozen: Any, mutables: Any, batch: Any) -> jax.Array:
        return model.loss_fn(parameters.merge(trained, frozen), batch, None, mutables)[0]

    return flops.products(jax.grad(loss), plan.trained, frozen, state.flax_mutables, plan.batch)


def compile_for(arguments: Mapping[str, Any], topology: "Topology", what: str) -> Row:
    """Compiles a recipe for a topology.

    Args:
      arguments: what `recipe.recipe` gave.
      topology: the TPUs.
      what: `train` or `predict`.

    Raises:
      InputError: if its devices cannot share the batch or the model, or libtpu is not installed.
    """
    import jax

    from uem_t5x.network import flops as model_flops
    from uem_t5x.network import parameters

    plan = _plan(arguments, topologies.devices(topology), what)
    params = plan.state_shape.params
    counted = arguments["model"].module, plan.feature_lengths, plan.batch_size
    if what == TRAIN:
        flops = _training_flops(arguments["model"], plan)
    else:
        flops = model_flops.forward_flops(*counted)
    row = Row(
        topology=topology.name,
        devices=topology.devices,
        hosts=topology.hosts,
        mesh=dict(plan.partitioner.mesh.shape),
        what=what,
        batch_size=plan.batch_size,
        parameters=_size(params),
        uem_parameters=_size(parameters.split(params, parameters.soft_prompt_alone)[0]),
        frozen_parameters=_size(params) - _size(plan.trained),
        available_bytes=topology.usable_hbm_bytes,
        hbm_bytes=topology.hbm_bytes,
        argument_bytes=plan.argument_bytes,
        fits=False,
        peak_bytes=0,
        temporary_bytes=None,
        suggestion=None,
        compile_seconds=0.0,
        by_hand_flops=flops / topology.devices,
    )
    lowered = _lower(arguments, plan, what)
    start = time.monotonic()
    try:
        compiled, text = _compile(lowered)
    except jax.errors.JaxRuntimeError as error:
        row = _too_large(row, plan, str(error))
        return dataclasses.replace(row, compile_seconds=time.monotonic() - start)
    row = dataclasses.replace(row, compile_seconds=time.monotonic() - start)
    row = _with_memory(row, compiled.memory_analysis())
    trips = None if what == TRAIN else plan.feature_lengths["decoder_target_tokens"]
    return _with_costs(row, topology, compiled, text, arguments["total_steps"], trips)


def _compile(lowered: "jax.stages.Lowered") -> tuple["jax.stages.Compiled", str]:
    """Compiles; returns the program also as text.

    The text is what libtpu writes itself: `compiled.as_text()` goes through jaxlib's own XLA, which
    cannot read all that libtpu writes (operations on v5p and v6e that JAX 0.10.2 does not know).
    """
    with tempfile.TemporaryDirectory() as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        compiled = lowered.compile(compiler_options=options)
        (file,) = Path(folder).glob("*.after_optimizations.txt")
        return compiled, file.read_text()


def _size(shapes: Any) -> int:
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _too_large(row: Row, plan: _Plan, message: str) -> Row:
    """Reads off what a refused program would have needed, and estimates what would fit."""
    found = _OUT_OF_MEMORY.search(message)
    if "RESOURCE_EXHAUSTED" not in message or not found:
        line = message.partition("\n")[0]
        raise InputError(
            f"--topology {row.topology}: the TPU compiler refuses this program: {line}"
        )
    needed, available = (
        int(float(found[number]) * _UNITS[found[unit]]) for number, unit in ((1, 2), (3, 4))
    )
    return dataclasses.replace(
        row,
        peak_bytes=needed,
        available_bytes=available,
        suggestion=_suggestion(row, plan, needed, available),
    )


def _suggestion(row: Row, plan: _Plan, needed: int, available: int) -> str:
    """Estimates what would fit: all but the state and its gradients grows with the batch."""
    fixed = row.argument_bytes
    if row.what == TRAIN:
        fixed += _device_bytes(plan.trained)
    choices = [] if plan.partitioner.layout.fsdp else ["LAYOUT='fsdp'"]
    share = (available - fixed) / max(needed - fixed, 1)
    at_once = int(row.batch_size / plan.num_microbatches * share)
    at_once -= at_once % plan.batch_parts
    if at_once <= 0:
        choices += ["more devices", "a chip with more memory"]
    elif row.what == PREDICT:
        choices = [f"EVAL_BATCH_SIZE={at_once}"]
    else:
        more = range(plan.num_microbatches + 1, row.batch_size // plan.batch_parts + 1)
        parts = (
            f"NUM_MICROBATCHES={parts}"
            for parts in more
            if row.batch_size % (parts * plan.batch_parts) == 0
            and row.batch_size // parts <= at_once
        )
        smaller = f"BATCH_SIZE={at_once * plan.num_microbatches}"
        choices = [smaller, *itertools.islice(parts, 1), *choices]
    return f"{', or '.join(choices)} (estimate)"


def _with_memory(row: Row, memory: Any) -> Row:
    # `temp_size_in_bytes` may be more than there is of a program that fits: it does not say what
    # is held at the same time.
    held = memory.peak_memory_in_bytes
    return dataclasses.replace(
        row,
        fits=True,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=held - memory.argument_size_in_bytes,
        peak_bytes=held + memory.generated_code_size_in_bytes,
    )


def _with_costs(
    row: Row,
    topology: "Topology",
    compiled: "jax.stages.Compiled",
    text: str,
    steps: int,
    decoding_trips: int | None,
) -> Row:
    from uem_t5x.tpu import program_costs

    analysis = compiled.cost_analysis()
    notes = []
    ratio = None
    costs = program_costs.program_costs(text, analysis, decoding_trips)
    if costs.flops is None:
        notes.append("a loop's rounds are unknown: FLOPs by hand, no bytes, no collectives")
    else:
        ratio = costs.flops / row.by_hand_flops
        if ratio < CREDIBLE_RATIO:
            notes.append("XLA counts too few FLOPs: time by those counted by hand")
    if any(loop.assumed for loop in costs.loops or ()):
        notes.append(f"decoding is taken to run its full {decoding_trips} rounds")
    flops_seconds = max(costs.flops or 0, row.by_hand_flops) / topology.peak_flops
    bytes_seconds = None if costs.bytes is None else costs.bytes / topology.hbm_bandwidth
    # XLA adds -1 for each operation it cannot estimate, and counts loops once.
    estimate = analysis.get("optimal_seconds", 0.0)
    xla_seconds = estimate if estimate > 0 and not costs.loops else None
    seconds = None
    if bytes_seconds is not None:
        seconds = max(flops_seconds, bytes_seconds, xla_seconds or 0)
    return dataclasses.replace(
        row,
        flops=costs.flops,
        flops_ratio=ratio,
        bytes_accessed=costs.bytes,
        flops_seconds=flops_seconds,
        bytes_seconds=bytes_seconds,
        xla_seconds=xla_seconds,
        seconds=seconds,
        hours=seconds * steps / 3600 if seconds and row.what == TRAIN else None,
        collectives=costs.collectives,
        loops=costs.loops or (),
        notes=notes,
    )
