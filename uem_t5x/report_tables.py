"""Scores as tables for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

COLUMNS = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "liked_f1": "liked F1",
    "disliked_f1": "disliked F1",
}


def method_label(name: str, history_length: int) -> str:
    """Says in words what a method of `metrics.json` is."""
    return {
        "uem": f"UEM, {history_length} items",
        "text": f"text history, {history_length} items",
        "counting": "counting baseline, all items",
        "rule": f"label rule, {history_length} items (the limit)",
    }[name]


def methods_table(result: Mapping[str, Any]) -> Table:
    """Returns a row for each method: weighted F1, precision and recall."""
    table = Table(
        title=f"{result['examples']} users of the {result['split']} split, step {result['step']}"
    )
    table.add_column("method")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    for name, scores in result["methods"].items():
        table.add_row(
            method_label(name, result["history_length"]),
            *(f"{scores[column]:.3f}" for column in COLUMNS),
            style="bold" if name in ("uem", "text") else "",
        )
    return table


def genres_table(result: Mapping[str, Any]) -> Table:
    """Returns a row for each genre: F1 and support as liked and as disliked."""
    table = Table(title="the model by genre")
    table.add_column("genre")
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
