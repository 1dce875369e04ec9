"""What `uem-t5x compile` found, as tables for a terminal: a row a topology."""

from collections.abc import Callable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from uem_t5x.tpu.rows import Row

_GIB = 2**30


def show(rows: Sequence[Row], console: Console) -> None:
    """Prints memory, time and collectives, and what to know about them."""
    row = rows[0]
    frozen = ""
    if row.frozen_parameters and row.what == "train":
        is_language_model = row.frozen_parameters == row.parameters - row.uem_parameters
        whose = "the language model's " if is_language_model else ""
        frozen = f"; {whose}{row.frozen_parameters / 1e6:,.1f}M are frozen"
    console.print(
        f"{row.parameters / 1e6:,.1f}M parameters, {row.uem_parameters / 1e6:,.1f}M of them the "
        f"user embedding module{frozen}; batch {row.batch_size}, {row.what}; figures of one device",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_table("memory (GiB)", _MEMORY, rows))
    console.print(_table("a step, at best", _TIME, rows))
    if any(row.collectives for row in rows):
        console.print(_table("collectives, each with its bytes in all", _COLLECTIVES, rows))
    for row in rows:
        for note in [f"does not fit; nearest: {row.suggestion}"] if not row.fits else row.notes:
            console.print(f"{row.topology}: {note}", highlight=False, soft_wrap=True)


def _table(title: str, columns: Mapping[str, Callable[[Row], str]], rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.topology,
            *(cell(row) for cell in columns.values()),
            style="" if row.fits else "red",
        )
    return table


def _gib(count: int | float | None) -> str:
    return "" if count is None else f"{count / _GIB:,.2f}"


def _scaled(count: float | None, scale: float) -> str:
    """Three figures, however small."""
    if count is None:
        return ""
    value = count * scale
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def _ratio(row: Row) -> str:
    return "" if row.flops_ratio is None else f"{row.flops_ratio:.2f}"


def _collectives(row: Row) -> str:
    return "\n".join(
        f"{collective.count} {kind}, {collective.bytes / 1e6:,.1f} MB"
        for kind, collective in (row.collectives or {}).items()
    )


_MEMORY = {
    "devices": lambda row: str(row.devices),
    "hosts": lambda row: str(row.hosts),
    "mesh": lambda row: "x".join(map(str, row.mesh.values())),
    "args": lambda row: _gib(row.argument_bytes),
    "temp": lambda row: _gib(row.temporary_bytes),
    "peak": lambda row: _gib(row.peak_bytes),
    "of": lambda row: _gib(row.available_bytes),
    "fits": lambda row: "yes" if row.fits else "no",
}
_TIME = {
    "TFLOP": lambda row: _scaled(row.flops, 1e-12),
    "/ hand": _ratio,
    "GB": lambda row: _scaled(row.bytes_accessed, 1e-9),
    "ms FLOP": lambda row: _scaled(row.flops_seconds, 1e3),
    "ms GB": lambda row: _scaled(row.bytes_seconds, 1e3),
    "ms XLA": lambda row: _scaled(row.xla_seconds, 1e3),
    "hours": lambda row: "" if row.hours is None else f"{row.hours:,.2f}",
    "to compile": lambda row: f"{row.compile_seconds:,.0f}",
}
_COLLECTIVES = {"": _collectives}
