"""Scores as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from uem_t5x.report.columns import COLUMNS

UNCERTAINTY = "below scores, 95 % of draws of users"


def method_label(name: str, history_length: int) -> str:
    """Says in words what a method of `metrics.json` is."""
    return {
        "uem": f"UEM, last {history_length} items",
        "text": f"text, up to {history_length} last items",
        "counting": "counting, whole history",
        "rule": "rule on the same items",
        "most_frequent": "the most frequent answer",
        "median": "the median answer",
    }[name]


def methods_table(result: Mapping[str, Any]) -> Table:
    """Returns a row for each method: weighted F1 with its interval, precision and recall.

    Of questions it has the metrics that they are scored by.
    """
    read = result["items_read"]
    columns, of_whom = COLUMNS, f"{result['examples']} users"
    if "metrics" in result:
        columns = {name: name.replace("_", " ") for name in result["metrics"]}
        of_whom = f"{result['examples']} questions"
        if result["unknown"]:
            of_whom += f", {result['unknown']} of them without a known answer,"
    table = Table(
        show_edge=False,
        title=f"{of_whom} of the {result['split']} split, step {result['step']}",
        caption=f"the model reads {read['least']} to {read['most']} items of a user, "
        f"{read['mean']:.1f} on average; {UNCERTAINTY}",
    )
    table.add_column("method")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for name, scores in result["methods"].items():
        table.add_row(
            method_label(name, result["history_length"]),
            *(_cell(scores[column], result["intervals"][name].get(column)) for column in columns),
            style="bold" if name in ("uem", "text") else "",
        )
    return table


def _cell(score: float, interval: Sequence[float] | None) -> str:
    if interval is None:
        return f"{score:.3f}"
    low, high = interval
    return f"{score:.3f}\n{low:.2f}-{high:.2f}"


def against_table(result: Mapping[str, Any]) -> Table:
    """Returns a row for each model that was compared with: how much better this one is."""
    table = Table(title="differences on the same users", caption=UNCERTAINTY)
    table.add_column("to the model of")
    names = [*result["against"][0]["differences"]]
    for name in names:
        table.add_column(COLUMNS.get(name, name.replace("_", " ")), justify="right")
    for other in result["against"]:
        cells = []
        for name in names:
            difference = other["differences"][name]
            low, high = difference["interval"]
            cells.append(f"{difference['value']:+.3f}\n{low:+.3f} to {high:+.3f}")
        table.add_row(other["scores"], *cells)
    return table


def genres_table(result: Mapping[str, Any]) -> Table:
    """Returns a row for each genre, or class: F1 and support as liked and as disliked."""
    called = result.get("classes_called", "genre")
    table = Table(title=f"the model by {called}")
    table.add_column(called)
    for kind in ("liked", "disliked"):
        table.add_column(f"{kind} F1", justify="right")
        table.add_column("users", justify="right")
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in result["per_genre"]:
        rows.setdefault(row["genre"], {})[row["kind"]] = row
    for genre, kinds in rows.items():
        cells = []
        for kind in ("liked", "disliked"):
            cells += [f"{kinds[kind]['f1']:.3f}", str(kinds[kind]["support"])]
        table.add_row(genre, *cells)
    return table
