"""What a program takes on TPUs that are not there."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

TRAIN, PREDICT = "train", "predict"


@dataclasses.dataclass(frozen=True)
class Row:
    """What a program takes on one topology. Bytes, FLOPs and collectives are those of one device.

    Attributes:
      topology: its Cloud name.
      devices: JAX devices.
      hosts: machines.
      mesh: devices along each of its axes.
      what: `train` (a step) or `predict` (generation for a batch).
      batch_size: examples, over all devices.
      parameters: of the model.
      uem_parameters: of them, those of the user embedding module and the task prompts.
      frozen_parameters: of them, those that training leaves as they are.
      available_bytes: memory that XLA lets a program have; the chip's is a little more.
      hbm_bytes: the chip's memory.
      argument_bytes: parameters, optimizer state, item table and batch.
      fits: whether the program fits into memory.
      peak_bytes: memory that it needs.
      temporary_bytes: of it, activations and gradients; None for a program that does not fit.
      suggestion: what would fit, by estimate, if this does not.
      compile_seconds: how long compiling took.
      by_hand_flops: the model's matrix products; see `network.flops`.
      flops: as XLA counts, loops in full; None where a loop's rounds are unknown.
      flops_ratio: of `flops` to `by_hand_flops`.
      bytes_accessed: as XLA counts, loops in full; an upper bound of the traffic to memory.
      flops_seconds: FLOPs (the larger count) at the chip's peak rate in bfloat16.
      bytes_seconds: `bytes_accessed` at the chip's memory bandwidth.
      xla_seconds: XLA's own estimate, where it has one.
      seconds: the largest of these.
      hours: so long for the recipe's TRAIN_STEPS; None for generation.
      collectives: `count` and `bytes` by kind.
      loops: `name`, `trips` and whether they are `assumed`.
      notes: what to know about the figures.
    """

    topology: str
    devices: int
    hosts: int
    mesh: Mapping[str, int]
    what: str
    batch_size: int
    parameters: int
    uem_parameters: int
    frozen_parameters: int
    available_bytes: int
    hbm_bytes: int
    argument_bytes: int
    fits: bool
    peak_bytes: int
    temporary_bytes: int | None
    suggestion: str | None
    compile_seconds: float
    by_hand_flops: float
    flops: float | None = None
    flops_ratio: float | None = None
    bytes_accessed: float | None = None
    flops_seconds: float | None = None
    bytes_seconds: float | None = None
    xla_seconds: float | None = None
    seconds: float | None = None
    hours: float | None = None
    collectives: Mapping[str, Any] | None = None
    loops: Sequence[Any] = ()
    notes: Sequence[str] = ()
