"""Turns what `uem-t5x compile --json` wrote into the tables of docs/tpu.md.

python benchmarks/tpu_tables.py FILE.json ...
"""

import json
import sys
from pathlib import Path

_GIB = 2**30
_COLUMNS = (
    "batch",
    "layout",
    "remat",
    "TPU",
    "devices",
    "peak GiB",
    "of",
    "ms by FLOPs",
    "ms by bytes",
    "collectives MB",
    "10,000 steps",
    "compiled in",
)


def _line(macros: dict[str, str], row: dict) -> list[str]:
    def shown(key: str, scale: float, digits: int = 0) -> str:
        return "" if row[key] is None else f"{row[key] * scale:,.{digits}f}"

    moved = sum(collective["bytes"] for collective in (row["collectives"] or {}).values())
    return [
        str(row["batch_size"]),
        macros.get("LAYOUT", "data"),
        macros.get("REMAT_POLICY", "none"),
        row["topology"],
        str(row["devices"]),
        shown("peak_bytes", 1 / _GIB, 1) + ("" if row["fits"] else " **does not fit**"),
        shown("available_bytes", 1 / _GIB, 1),
        shown("flops_seconds", 1e3),
        shown("bytes_seconds", 1e3),
        f"{moved / 1e6:,.0f}" if row["collectives"] else "",
        f"{row['hours']:.2f} h" if row["hours"] else "",
        shown("compile_seconds", 1) + " s",
    ]


def main(files: list[str]) -> None:
    """Prints a table a recipe."""
    tables: dict[str, list[list[str]]] = {}
    for file in files:
        result = json.loads(Path(file).read_text())
        bindings = (binding.split(" = ", 1) for binding in result["macros"])
        macros = {name: value.strip("'\"") for name, value in bindings}
        (recipe,) = result["recipe"]
        for row in result["rows"]:
            heading = f"`{recipe}`, {row['parameters'] / 1e6:,.0f}M parameters"
            tables.setdefault(heading, []).append(_line(macros, row))
    for heading, lines in tables.items():
        print(f"\n### {heading}\n\n| {' | '.join(_COLUMNS)} |")
        print(f"| {' | '.join(['---:', '---', '---', '---'] + ['---:'] * (len(_COLUMNS) - 4))} |")
        for line in sorted(lines, key=lambda line: int(line[0])):
            print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
