"""Plots of runs: how they learned, and what the best setting gets right by genre."""

import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int64
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uem_t5x.report import figures
from uem_t5x.report.figures import Plot, Theme
from uem_t5x.report.settings import Comparison, Setting, Summary
from uem_t5x.tastes.metrics import KINDS

STANCES = (*KINDS, "neither")
_CURVES_A_PLOT = 6
_WRAPPED = 60

# Values of each seed by step.
Curve = Mapping[int, Sequence[float]]


def learning_curves(comparison: Comparison) -> list[tuple[Plot, ...]]:
    """Draws validation F1 beside the training loss by step, for a few settings at a time."""
    curves = {setting: (_validation(setting), _losses(setting)) for setting in comparison.settings}
    shown = [setting for setting, (validation, losses) in curves.items() if validation or losses]
    count = math.ceil(len(shown) / _CURVES_A_PLOT)
    plots = []
    for index in range(count):
        part = shown[len(shown) * index // count : len(shown) * (index + 1) // count]
        number = f"-{index + 1}" if count > 1 else ""
        validation, losses = (
            {setting: curves[setting][which] for setting in part if curves[setting][which]}
            for which in (0, 1)
        )
        limits = _step_limits([*validation.values(), *losses.values()])
        drawn = ((_validation_plot, validation), (_losses_plot, losses))
        plots.append(
            tuple(plot(comparison, of_part, number, limits) for plot, of_part in drawn if of_part)
        )
    return plots


def _step_limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Returns the ends of an axis of steps: from 0, but for a run that began at a late step."""
    steps = sorted(set(itertools.chain.from_iterable(curves)))
    first, last = steps[0], steps[-1]
    start = float(first) if last / 2 < first < last else 0.0
    return start, last + 0.04 * (last - start)


def _validation(setting: Setting) -> Curve:
    rows = [(row["step"], row.get("f1")) for run in setting.runs for row in run.validation_scores]
    # Those of a task of one's own may lack it, or have one that is not a number.
    return _by_step([(step, f1) for step, f1 in rows if f1 is not None and math.isfinite(f1)])


def _losses(setting: Setting) -> Curve:
    return _by_step([row for run in setting.runs for row in run.training_losses])


def _by_step(rows: Sequence[tuple[int, float]]) -> Curve:
    by_step: dict[int, list[float]] = {}
    for step, value in rows:
        by_step.setdefault(step, []).append(value)
    return dict(sorted(by_step.items()))


def _validation_plot(
    comparison: Comparison,
    curves: Mapping[Setting, Curve],
    number: str,
    step_limits: tuple[float, float],
) -> Plot:
    limits = {setting.rule_label: setting.rule["f1"] for setting in curves}

    def draw_limits(axes: Axes, theme: Theme) -> None:
        for index, (label, f1) in enumerate(sorted(limits.items(), key=lambda limit: limit[1])):
            axes.axhline(f1, **figures.rule_style(theme))
            # Left and right by turns, for limits may lie close together.
            axes.annotate(
                f"{label.removeprefix('label ')}, {comparison.split}",
                (index % 2, f1),
                (0, 2),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right" if index % 2 else "left",
                fontsize=8,
                bbox={"facecolor": theme.surface, "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            )
        label = f"{figures.COUNTING}, {comparison.split}"
        axes.axhline(comparison.counting["f1"], label=label, **figures.counting_style(theme))
        axes.set(ylabel=f"{figures.F1}, validation", ylim=(0, 1.1 * axes.get_ylim()[1]))

    title = "F1 on validation users"
    name = f"validation-f1{number}"
    return _curves_plot(name, title, comparison, curves, step_limits, draw_limits)


def _losses_plot(
    comparison: Comparison,
    curves: Mapping[Setting, Curve],
    number: str,
    step_limits: tuple[float, float],
) -> Plot:
    def name_axis(axes: Axes, theme: Theme) -> None:
        axes.set(ylabel="training loss")

    name = f"training-loss{number}"
    return _curves_plot(name, "Training loss", comparison, curves, step_limits, name_axis)


def _curves_plot(
    name: str,
    title: str,
    comparison: Comparison,
    curves: Mapping[Setting, Curve],
    step_limits: tuple[float, float],
    finish: Callable[[Axes, Theme], None],
) -> Plot:
    """Draws the mean over seeds of each setting, in a band from the lowest to the highest."""
    labels = {
        setting: textwrap.fill(comparison.labels[setting], _WRAPPED, break_long_words=False)
        for setting in curves
    }

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        for setting, curve in curves.items():
            steps, values = list(curve), list(curve.values())
            # A single point is no line.
            marker = "o" if len(steps) == 1 else ""
            means = [np.mean(of_step) for of_step in values]
            (line,) = axes.plot(steps, means, marker=marker, label=labels[setting])
            axes.fill_between(
                steps,
                [min(of_step) for of_step in values],
                [max(of_step) for of_step in values],
                color=line.get_color(),
                alpha=0.18,
                linewidth=0,
            )
        axes.set(xlabel="step", xlim=step_limits)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
        finish(axes, theme)
        figure.legend(loc="outside lower center")

    last = "; ".join(
        f"{comparison.labels[setting]} {np.mean(list(curve.values())[-1]):.3f}"
        for setting, curve in curves.items()
    )
    alt = f"{title} by step, mean and range over seeds. At the end: {last}."
    legend_lines = 1 + sum(len(label.splitlines()) for label in labels.values())
    return Plot(name, title, alt, draw, height=3.2 + 0.2 * legend_lines)


def per_genre(comparison: Comparison) -> list[Plot]:
    """Draws F1 of each genre, liked and disliked, of the best setting."""
    return [_genres_plot(comparison, kind) for kind in KINDS]


def _genres_plot(comparison: Comparison, kind: str) -> Plot:
    best, words = comparison.best, comparison.words
    f1s: dict[str, list[float]] = {}
    labelled, support = {}, {}
    for row in (row for run in best.runs for row in run.metrics["per_genre"]):
        labelled.setdefault(row["genre"], {})[row["kind"]] = row["support"]
        if row["kind"] == kind:
            f1s.setdefault(row["genre"], []).append(row["f1"])
            support[row["genre"]] = row["support"]
    # Both kinds in the same order, so that a genre has its place.
    genres = sorted(f1s, key=lambda genre: (-sum(labelled[genre].values()), genre))
    scores = [Summary.of(f1s[genre]) for genre in genres]

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        figures.draw_bars(axes, theme, range(len(genres)), scores, f"F1 of the {words.genre}")
        over_all = {
            f"{figures.COUNTING}, all {words.genres}": (
                comparison.counting,
                figures.counting_style,
            ),
            f"label rule on the same items, all {words.genres}": (best.rule, figures.rule_style),
        }
        for label, (of_method, style) in over_all.items():
            f1 = of_method[f"{kind}_f1"]
            axes.axvline(f1, label=label, **style(theme))
        axes.set_yticks(range(len(genres)), [f"{genre} ({support[genre]})" for genre in genres])
        axes.set(xlabel=f"F1, {kind}", xlim=(0, 1), ylim=(len(genres) - 0.4, -0.6))
        axes.grid(False, axis="y")
        figure.legend(loc="outside lower center")

    told = ", ".join(f"{genre} {score}" for genre, score in zip(genres, scores))
    title = f"{kind.capitalize()} {words.genres}, and how many users have them"
    return Plot(
        f"genres-{kind}",
        title,
        f"F1 of {kind} {words.genres}: {told}.",
        draw,
        2 + 0.22 * len(genres),
    )


def confusion(comparison: Comparison) -> Int64[np.ndarray, "truth answer"]:
    """Counts genres of users, by what they are and what they are said to be, over all seeds."""
    tables = [run.metrics["confusion"] for run in comparison.best.runs]
    return np.array(
        [[sum(table[row][column] for table in tables) for column in STANCES] for row in STANCES]
    )


def row_shares(counts: Int64[np.ndarray, "rows columns"]) -> np.ndarray:
    """Returns the part of its row's sum that each count is; 0 in empty rows."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _brightness(color: object) -> float:
    return float(np.dot(to_rgb(color), (0.299, 0.587, 0.114)))


def confusion_plot(comparison: Comparison) -> Plot:
    """Draws the confusion of liked with disliked genres, as shares of each row."""
    counts = confusion(comparison)
    shares = row_shares(counts)

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        shades = LinearSegmentedColormap.from_list("shares", (theme.surface, theme.series[0]))
        places = range(len(STANCES))
        axes.pcolormesh(places, places, shares, cmap=shades, vmin=0, vmax=1, shading="nearest")
        axes.invert_yaxis()
        for (row, column), share in np.ndenumerate(shares):
            behind = _brightness(shades(share))
            inks = (theme.ink, theme.surface)
            ink = max(inks, key=lambda ink: abs(_brightness(ink) - behind))
            count = counts[row, column]
            axes.text(column, row, f"{share:.1%}\n{count:,}", ha="center", va="center", color=ink)
        axes.set_xticks(places, STANCES)
        axes.set_yticks(places, STANCES)
        axes.set(xlabel="in the answer", ylabel="in truth")
        axes.grid(False)

    told = "; ".join(
        f"{truth} answered as {answer} {shares[row, column]:.1%}"
        for row, truth in enumerate(STANCES)
        for column, answer in enumerate(STANCES)
    )
    return Plot("confusion", "Liked and disliked, confused", f"Share of rows: {told}.", draw, 3.2)
