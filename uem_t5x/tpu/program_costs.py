"""What a compiled program costs: FLOPs, bytes and collectives, with loops counted as often as run.

XLA's own cost analysis counts the body of a loop once, whatever its trip count. Here the missing
rounds are counted from the program's text and added.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from uem_t5x.tpu import hlo

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)
# One FLOP an entry, as XLA counts; transcendental functions are not FLOPs.
_ELEMENTWISE = frozenset(
    "add subtract multiply divide remainder maximum minimum negate abs sign compare select clamp "  # noqa: SIM905
    "and or xor not shift-left shift-right-logical shift-right-arithmetic floor ceil convert "
    "round-nearest-afz round-nearest-even is-finite".split()
)
# They move nothing, or what they move is counted where it is read or written.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all partition-id replica-id while "  # noqa: SIM905
    "call conditional opt-barrier iota copy-done slice-done async-start async-update "
    "async-done".split()
)
# The first and the last of the fusions over which a collective is spread.
_SPLIT_START, _SPLIT_END = "AsyncCollectiveStart", "AsyncCollectiveDone"


@dataclasses.dataclass(frozen=True)
class Collective:
    """The collectives of one kind in a step.

    Attributes:
      count: how often they run.
      bytes: what one device hands in or gets back, whichever is more, in all of them.
    """

    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Loop:
    """A `while` of a program.

    Attributes:
      name: of the instruction.
      trips: rounds.
      assumed: whether the text does not tell, so that the caller's number was taken.
    """

    name: str
    trips: int
    assumed: bool


@dataclasses.dataclass(frozen=True)
class ProgramCosts:
    """What one run of a program costs a device.

    Attributes:
      flops: floating-point operations, as XLA counts, loops in full; None if a loop's rounds are
        unknown.
      bytes: what its operations read and write, as XLA counts (also where they read each other's
        results in on-chip memory: an upper bound of the traffic to HBM), loops in full; or None.
      collectives: by kind; None if a loop's rounds are unknown.
      loops: every `while`, with its rounds; None if those of one are unknown.
    """

    flops: float | None
    bytes: float | None
    collectives: Mapping[str, Collective] | None
    loops: tuple[Loop, ...] | None


@dataclasses.dataclass
class _Totals:
    flops: float = 0.0
    bytes: float = 0.0
    collectives: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    collective_bytes: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def add(self, other: "_Totals", times: int = 1) -> None:
        self.flops += times * other.flops
        self.bytes += times * other.bytes
        for kind, count in other.collectives.items():
            self.collectives[kind] += times * count
            self.collective_bytes[kind] += times * other.collective_bytes[kind]


def program_costs(
    text: str, cost_analysis: Mapping[str, Any], assumed_trips: int | None = None
) -> ProgramCosts:
    """Corrects XLA's cost analysis by the rounds of loops, and counts collectives.

    Args:
      text: `compiled.as_text()`.
      cost_analysis: `compiled.cost_analysis()`.
      assumed_trips: rounds of loops whose number the text does not tell; `None` if nobody knows.
    """
    program = hlo.parse(text)
    loops = _loops(program, assumed_trips)
    if loops is None:
        return ProgramCosts(None, None, None, None)
    in_full = _Counter(program, {loop.name: loop.trips for loop in loops}).totals(program.entry)
    once = _Counter(program, {}).totals(program.entry)
    xla_bytes = float(cost_analysis["bytes accessed"])
    # XLA counts up to an eighth more than is counted here (copies, paddings): so do the rounds.
    scale = max(1.0, xla_bytes / once.bytes) if once.bytes else 1.0
    return ProgramCosts(
        flops=float(cost_analysis["flops"]) + in_full.flops - once.flops,
        bytes=xla_bytes + scale * (in_full.bytes - once.bytes),
        collectives={
            kind: Collective(count, in_full.collective_bytes[kind])
            for kind, count in sorted(in_full.collectives.items())
        },
        loops=loops,
    )


def _loops(program: hlo.Program, assumed_trips: int | None) -> tuple[Loop, ...] | None:
    loops = []
    for computation in program.computations.values():
        for instruction in computation.instructions.values():
            if instruction.opcode != "while":
                continue
            trips = hlo.trip_count(program, computation, instruction)
            known = trips is not None
            if not known and assumed_trips is None:
                return None
            loops.append(Loop(instruction.name, trips if known else assumed_trips, not known))
    return tuple(loops)


def _repeats(program: hlo.Program) -> frozenset[tuple[str, str]]:
    """Finds the collectives that repeat one which is under way, as (computation, instruction).

    The TPU's compiler spreads a collective over fusions: one starts it, some carry it on beside
    work of their own, one ends it. Each names it again, on the same channel.
    """
    starts, channels = set(), set()
    collectives = []
    for computation in program.computations.values():
        for instruction in computation.instructions.values():
            if instruction.opcode in COLLECTIVES:
                collectives.append((computation, instruction))
            elif hlo.custom_call_target(instruction) == _SPLIT_START:
                for operand in computation.operands(instruction):
                    starts.add((computation.name, operand.name))
                    channels.add(operand.attribute("channel_id"))
    channels.discard(None)
    return frozenset(
        key
        for computation, instruction in collectives
        if instruction.attribute("channel_id") in channels
        and (key := (computation.name, instruction.name)) not in starts
    )


class _Counter:
    """Counts a program's computations, each once; loops in it run `trips` by name, or once."""

    def __init__(self, program: hlo.Program, trips: Mapping[str, int]) -> None:
        self._program = program
        self._trips = trips
        self._repeats = _repeats(program)
        self._done: dict[tuple[str, bool], _Totals] = {}

    def totals(self, computation: hlo.Computation, fused: bool = False) -> _Totals:
        """Counts a computation; within a fusion nothing but its edges touches memory."""
        key = (computation.name, fused)
        if key not in self._done:
            totals = _Totals()
            for instruction in computation.instructions.values():
                self._count(totals, computation, instruction, fused)
            self._done[key] = totals
        return self._done[key]

    def _count(
        self,
        totals: _Totals,
        computation: hlo.Computation,
        instruction: hlo.Instruction,
        fused: bool,
    ) -> None:
        totals.flops += flops(computation, instruction)
        if not fused:
            totals.bytes += self._bytes(computation, instruction)
        kind = instruction.opcode.removesuffix("-start")
        if kind in COLLECTIVES and (computation.name, instruction.name) not in self._repeats:
            totals.collectives[kind] += 1
            totals.collective_bytes[kind] += _collective_bytes(computation, instruction)
        if instruction.opcode == "while":
            trips = self._trips.get(instruction.name, 1)
            for part in ("body", "condition"):
                if called := self._program.called(instruction, part):
                    totals.add(self.totals(called), trips)
        elif instruction.opcode == "conditional":
            totals.add(self._dearest_branch(instruction, fused))
        elif called := self._callee(instruction):
            totals.add(self.totals(called, fused or instruction.opcode == "fusion"))

    def _callee(self, instruction: hlo.Instruction) -> hlo.Computation | None:
        if instruction.opcode in ("fusion", "async-start"):
            return self._program.called(instruction, "calls")
        if instruction.opcode == "call":
            return self._program.called(instruction, "to_apply")
        return None

    def _dearest_branch(self, instruction: hlo.Instruction, fused: bool) -> _Totals:
        names = re.findall(r"%([\w.-]+)", instruction.attribute("branch_computations") or "") or [
            instruction.attribute(f"{value}_computation") for value in ("true", "false")
        ]
        branches = [self.totals(self._program.computations[name], fused) for name in names]
        return max(branches, key=lambda branch: branch.flops)

    def _bytes(self, computation: hlo.Computation, instruction: hlo.Instruction) -> int:
        """Counts what one instruction reads and writes."""
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith("-done"):
            return 0
        operands = computation.operands(instruction)
        if opcode == "copy-start":
            return 2 * operands[0].bytes
        if opcode in ("dynamic-slice", "slice", "slice-start"):
            return 2 * instruction.shapes[0].bytes
        if opcode == "gather":
            return 2 * instruction.bytes + operands[1].bytes
        if opcode == "dynamic-update-slice":
            return 2 * operands[1].bytes
        if opcode == "fusion" and (fused := self._program.called(instruction, "calls")):
            return self._written(fused) + sum(
                self._read(fused, index, operand) for index, operand in enumerate(operands)
            )
        return instruction.bytes + sum(operand.bytes for operand in operands)

    def _read(self, fused: hlo.Computation, index: int, operand: hlo.Instruction) -> int:
        """Counts what a fusion reads of an operand: all, the slices it takes, or nothing."""
        parameter = fused.parameter(index)
        users = fused.users(parameter) if parameter else []
        read = 0
        for user in users:
            if user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name:
                continue
            if user.opcode in ("dynamic-slice", "gather") and user.operands[0] == parameter.name:
                read += user.bytes
            elif not self._hands_through(fused, user):
                return operand.bytes
        return min(read, operand.bytes)

    def _hands_through(self, fused: hlo.Computation, user: hlo.Instruction) -> bool:
        """Says whether a user within a fusion only passes on what another fusion moves."""
        is_result = user is fused.root and user.opcode == "tuple"
        is_end = hlo.custom_call_target(user) == _SPLIT_END
        return is_result or is_end or (fused.name, user.name) in self._repeats

    def _written(self, fused: hlo.Computation) -> int:
        """Counts what a fusion writes: its results, or the slice that it puts into one in place."""
        results = fused.operands(fused.root) if fused.root.opcode == "tuple" else [fused.root]
        return sum(
            fused.operands(result)[1].bytes
            if result.opcode == "dynamic-update-slice"
            else result.bytes
            for result in results
            if result.opcode != "parameter" and not self._hands_through(fused, result)
        )


def flops(computation: hlo.Computation, instruction: hlo.Instruction) -> int:
    """Counts the floating-point operations of one instruction, without what it calls."""
    if instruction.opcode in _ELEMENTWISE:
        return instruction.elements
    if instruction.opcode == "reduce":
        return computation.operands(instruction)[0].elements
    if instruction.opcode == "dot":
        left = computation.operands(instruction)[0].shapes[0]
        summed = 1
        for axis in instruction.numbers("lhs_contracting_dims"):
            summed *= left.dims[axis]
        return 2 * instruction.elements * summed
    if instruction.opcode == "convolution":
        return _convolution_flops(computation, instruction)
    return 0


def _convolution_flops(computation: hlo.Computation, instruction: hlo.Instruction) -> int:
    """Counts a convolution, which is also how a TPU writes a matrix product.

    Two for each pair of an output entry and a kernel entry that meets the input, and not its
    padding or the holes of its dilation.
    """
    inputs, kernel = (operand.shapes[0] for operand in computation.operands(instruction))
    output = instruction.shapes[0]
    in_labels, kernel_labels, out_labels = re.split("_|->", instruction.attribute("dim_labels"))
    pairs = output.dims[out_labels.index("b")] * output.dims[out_labels.index("f")]
    pairs *= kernel.dims[kernel_labels.index("i")]
    # A grouped batch is spread over the output's features.
    pairs //= (instruction.numbers("batch_group_count") or (1,))[0]
    window = instruction.attribute("window") or ""
    for axis in range(len(in_labels) - 2):
        label = str(axis)
        pairs *= _meeting_positions(
            inputs.dims[in_labels.index(label)],
            kernel.dims[kernel_labels.index(label)],
            output.dims[out_labels.index(label)],
            stride=_window(window, "stride", axis, 1),
            low=_window(window, "pad", axis, 0),
            input_dilation=_window(window, "lhs_dilate", axis, 1),
            kernel_dilation=_window(window, "rhs_dilate", axis, 1),
        )
    return 2 * pairs


def _window(window: str, name: str, axis: int, default: int) -> int:
    match = re.search(rf"\b{name}=(\S+)", window)
    return int(match[1].split("x")[axis].split("_")[0]) if match else default


def _meeting_positions(
    size: int,
    kernel: int,
    output: int,
    *,
    stride: int,
    low: int,
    input_dilation: int,
    kernel_dilation: int,
) -> int:
    """Counts the pairs of output and kernel positions, along one axis, that meet an input."""
    meeting = 0
    for at in range(output):
        for tap in range(kernel):
            position = at * stride - low + tap * kernel_dilation
            meeting += position % input_dilation == 0 and 0 <= position // input_dilation < size
    return meeting


def _collective_bytes(computation: hlo.Computation, instruction: hlo.Instruction) -> int:
    handed_in = sum(operand.bytes for operand in computation.operands(instruction))
    returned = instruction.bytes
    if instruction.opcode.endswith("-start") and returned > handed_in:
        returned -= handed_in  # The start of a collective returns its operands too.
    return max(handed_in, returned)
