"""Reading XLA's optimized programs (HLO text): instructions, shapes, loops.

Only what counting costs takes; see `program_costs`. The text is `compiled.as_text()`:

    %body (arg: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
      %arg = (s32[], f32[8,16]{1,0}) parameter(0)
      ...
      ROOT %result = (s32[], f32[8,16]{1,0}) tuple(%next, %value), metadata={...}
    }
"""

import dataclasses
import math
import re
from typing import NamedTuple

_ITEM_BITS = {"pred": 8, "token": 0, "opaque": 0}
_COMMENT = re.compile(r"/\*.*?\*/")
_LAYOUT = re.compile(r"\]\{[^{}]*\}")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*)$")
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,<=]*)\]")
_OPCODE = re.compile(r"\s*([\w-]+)\(")
_OPERAND = re.compile(r"%([\w.-]+)")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Shape(NamedTuple):
    """The type of one array."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of entries."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """The memory of its entries, without padding."""
        bits = _ITEM_BITS.get(self.dtype)
        if bits is None:
            # bf16, f32, s8, u4, f8e4m3fn, c64: the first number is the width.
            bits = int(re.search(r"\d+", self.dtype)[0])
        return -(-self.elements * bits // 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: without `%`.
      opcode: such as `convolution`, `fusion`, `while`.
      shapes: of the result; of each entry where it is a tuple.
      operands: names of instructions of the same computation.
      literal: what stands between the parentheses, such as the value of a constant.
      attributes: what stands after them.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str

    @property
    def elements(self) -> int:
        """The number of entries of the result."""
        return sum(shape.elements for shape in self.shapes)

    @property
    def bytes(self) -> int:
        """The memory of the result."""
        return sum(shape.bytes for shape in self.shapes)

    def attribute(self, name: str) -> str | None:
        """Returns an attribute's value, such as `calls=%f` or `dimensions={0,1}`."""
        match = re.search(rf"\b{name}=(?:{{([^}}]*)}}|%?([^\s,{{}}]+))", self.attributes)
        return match and (match[1] if match[1] is not None else match[2])

    def numbers(self, name: str) -> tuple[int, ...]:
        """Returns an attribute's value as numbers; none where it has no such attribute."""
        return tuple(map(int, re.findall(r"-?\d+", self.attribute(name) or "")))


@dataclasses.dataclass(frozen=True)
class Computation:
    """A function of a program; its instructions by name, in order."""

    name: str
    instructions: dict[str, Instruction]
    root: Instruction

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """Returns the instructions whose results another one reads."""
        return [self.instructions[name] for name in instruction.operands]

    def parameter(self, index: int) -> Instruction | None:
        """Returns a parameter by its number."""
        return next(
            (
                instruction
                for instruction in self.instructions.values()
                if instruction.opcode == "parameter" and instruction.literal == str(index)
            ),
            None,
        )

    def users(self, instruction: Instruction) -> list[Instruction]:
        """Returns the instructions that read a result."""
        return [user for user in self.instructions.values() if instruction.name in user.operands]


@dataclasses.dataclass(frozen=True)
class Program:
    """The computations of a program by name, and the one that runs."""

    computations: dict[str, Computation]
    entry: Computation

    def called(self, instruction: Instruction, attribute: str) -> Computation | None:
        """Returns the computation that an attribute names, such as `calls` or `body`."""
        return self.computations.get(instruction.attribute(attribute) or "")


def custom_call_target(instruction: Instruction) -> str | None:
    """Returns the name of the function that a custom call calls; None for other instructions."""
    if instruction.opcode != "custom-call":
        return None
    return instruction.attribute("custom_call_target").strip('"')


def parse(text: str) -> Program:
    """Reads `compiled.as_text()`.

    Raises:
      ValueError: if it holds no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry = name = None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name, instructions, root = header[2], {}, None
            entry = name if header[1] else entry
        elif name and line.startswith("}"):
            computations[name] = Computation(name, instructions, root)
            name = None
        elif name and (match := _INSTRUCTION.match(line)):
            instruction = _parse_instruction(match[2], match[3])
            instructions[instruction.name] = instruction
            root = instruction if match[1] else root
    if entry is None:
        raise ValueError("not the text of an HLO module: it has no ENTRY computation")
    return Program(computations, computations[entry])


def _parse_instruction(name: str, text: str) -> Instruction:
    text = _LAYOUT.sub("]", _COMMENT.sub("", text))
    end_of_type = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opcode = _OPCODE.match(text, end_of_type)
    end = _closing(text, opcode.end() - 1)
    literal = text[opcode.end() : end]
    return Instruction(
        name=name,
        opcode=opcode[1],
        shapes=tuple(
            Shape(dtype, tuple(int(size.lstrip("<=")) for size in dims.split(",") if size))
            for dtype, dims in _SHAPE.findall(text[:end_of_type])
        ),
        operands=() if opcode[1] == "constant" else tuple(_OPERAND.findall(literal)),
        literal=literal,
        attributes=text[end + 1 :],
    )


def _closing(text: str, start: int) -> int:
    """Returns where the parenthesis that opens at `start` closes."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return start + match.start()
    raise ValueError(f"unbalanced parentheses in HLO: {text[:80]}")


def trip_count(program: Program, computation: Computation, loop: Instruction) -> int | None:
    """Returns how often a `while` runs its body, where the text tells.

    Either XLA wrote it down (`known_trip_count`), or the loop counts: its condition is `i < n`, `i`
    starts at a constant and grows by a constant.

    Args:
      program: the program.
      computation: where the loop stands.
      loop: the `while`.
    """
    if known := _TRIP_COUNT.search(loop.attributes):
        return int(known[1])
    condition, body = program.called(loop, "condition"), program.called(loop, "body")
    start = computation.operands(loop)[0]
    if condition is None or body is None or start.opcode != "tuple" or body.root.opcode != "tuple":
        return None
    test = condition.root
    if test.opcode != "compare" or test.attribute("direction") != "LT":
        return None
    counter, limit = (_source(condition, side) for side in condition.operands(test))
    if counter.opcode != "get-tuple-element":
        return None
    index = counter.numbers("index")[0]
    first = _constant(computation, computation.operands(start)[index])
    last = _carried_constant(condition, limit, computation, start)
    step = _step(body, index, computation, start)
    if first is None or last is None or not step or step < 0:
        return None
    return max(0, -(-(last - first) // step))


def _source(computation: Computation, instruction: Instruction) -> Instruction:
    """Returns what a number was copied from."""
    while instruction.opcode in ("copy", "bitcast"):
        instruction = computation.operands(instruction)[0]
    return instruction


def _constant(computation: Computation, instruction: Instruction) -> int | None:
    instruction = _source(computation, instruction)
    is_number = instruction.opcode == "constant" and re.fullmatch(r"-?\d+", instruction.literal)
    return int(instruction.literal) if is_number else None


def _carried_constant(
    inner: Computation, instruction: Instruction, outer: Computation, start: Instruction
) -> int | None:
    """Returns a constant of a loop, or one that it was handed from outside."""
    if instruction.opcode == "get-tuple-element":
        return _constant(outer, outer.operands(start)[instruction.numbers("index")[0]])
    return _constant(inner, instruction)


def _step(body: Computation, index: int, outer: Computation, start: Instruction) -> int | None:
    """Returns what a loop's body adds to the counter at `index` of its tuple."""
    following = _source(body, body.operands(body.root)[index])
    if following.opcode != "add":
        return None
    sides = [_source(body, side) for side in body.operands(following)]
    is_counter = [
        side.opcode == "get-tuple-element" and side.numbers("index") == (index,) for side in sides
    ]
    if True not in is_counter:
        return None
    return _carried_constant(body, sides[1 - is_counter.index(True)], outer, start)
