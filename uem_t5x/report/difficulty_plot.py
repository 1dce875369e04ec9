"""Where the best setting and the label rule part: by margin and count."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uem_t5x.report import figures
from uem_t5x.report.figures import Plot, Theme
from uem_t5x.report.settings import Comparison
from uem_t5x.tastes.metrics import KINDS

_AXES = {
    "by_margin": "margin in stars: how far the mean lies within the labels, or without",
    "by_count": "how often the {genre} of a label occurs",
}
_SHARE = "said, share"
_WIDTH, _HEIGHT = 9.0, 6.2


def of_best(comparison: Comparison) -> Plot | None:
    """Draws what share of the genres is said, right or wrong, by margin and by count.

    Returns:
      None where an older version of `evaluate` scored the best setting.
    """
    runs = comparison.best.runs
    if any(not run.metrics.get(name) for run in runs for name in _AXES):
        return None
    tables = {name: [run.metrics[name] for run in runs] for name in _AXES}

    def draw(figure: Figure, theme: Theme) -> None:
        grid = figure.subplots(len(_AXES), len(KINDS), sharey=True)
        for row, (name, rows_of_runs) in zip(grid, tables.items()):
            for axes, kind in zip(row, KINDS):
                _draw_shares(axes, theme, kind, rows_of_runs, runs[0].kind)
                axes.set(title=kind if name == "by_margin" else "", ylim=(0, 1))
            row[0].set(ylabel=_SHARE)
            row[0].set_xlabel(_AXES[name].format(genre=comparison.words.genre), loc="left")
        handles, names = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2)

    return Plot(
        "difficulty",
        "What is said, by margin and by count",
        _told(tables, runs[0].kind),
        draw,
        _HEIGHT,
        _WIDTH,
    )


def _draw_shares(
    axes: Axes,
    theme: Theme,
    kind: str,
    rows_of_runs: Sequence[Sequence[Mapping[str, Any]]],
    method: str,
) -> None:
    labels, model, rule = _shares(rows_of_runs, kind, method)
    places = range(len(labels))
    axes.plot(places, model, marker="o", color=theme.series[0], label="the model")
    axes.plot(
        places, rule, marker=".", **figures.rule_style(theme), label="the rule on what it read"
    )
    axes.set_xticks(places, labels, rotation=45, ha="right", fontsize=8)


def _shares(
    rows_of_runs: Sequence[Sequence[Mapping[str, Any]]], kind: str, method: str
) -> tuple[list[str], list[float], list[float]]:
    """Returns the groups that hold any: their names, what the model says, and the rule."""
    labels, model, rule = [], [], []
    for rows in zip(*rows_of_runs):
        if rows[0]["kind"] == kind and rows[0]["genres"]:
            labels.append(f"{_span(rows[0])} ({rows[0]['genres']})")
            model.append(float(np.mean([row["said"][method] for row in rows])))
            rule.append(rows[0]["said"]["rule"])
    return labels, model, rule


def _span(row: Mapping[str, Any]) -> str:
    low, high = row["low"], row["high"]
    if low is None:
        return f"below {high:g}"
    return f"{low:g} or more" if high is None else f"{low:g} to {high:g}"


def _told(tables: Mapping[str, Any], method: str) -> str:
    parts = []
    for (name, rows_of_runs), kind in itertools.product(tables.items(), KINDS):
        shares = zip(*_shares(rows_of_runs, kind, method))
        told = ", ".join(f"{span} {model:.2f} (rule {rule:.2f})" for span, model, rule in shares)
        parts.append(f"{kind}, {name.replace('_', ' ')}: {told}.")
    return "The share that the best setting says. " + " ".join(parts)
