"""The plots of a report. Wherever F1 is drawn, so are the counting baseline and the label rule."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int64
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from uem_t5x.metrics import KINDS
from uem_t5x.report import paper_results
from uem_t5x.report.figures import Plot, Theme
from uem_t5x.report.settings import Comparison, Setting, Summary
from uem_t5x.report.tables import Group, Header, Table

STANCES = (*KINDS, "neither")
_F1 = "weighted F1"
_COUNTING = "counting baseline"
_PAPER_MARKERS = dict(zip(paper_results.SIZES, "s^"))
_DASHED, _DOTTED, _DASH_DOTTED = "--", (0, (1, 1.5)), (0, (6, 2, 1, 2))
_CURVES_A_PLOT = 6
_WRAPPED = 30
_ITEMS = "items"
# Amounts of these are drawn to scale; others, such as learning rates, evenly spaced.
_TO_SCALE = (_ITEMS, "UEM layers")

Curve = Mapping[int, Sequence[float]]


def of_table(table: Table) -> Plot:
    """Draws F1 by what a table compares: as lines over numbers, else as bars."""
    draw, height = (_lines(table), 4.2) if table.is_numeric else _bars(table)
    ours = [
        f"{table.labels[setting]} {setting.f1} at {header_text(table, group.headers)}"
        for group in table.groups
        for setting in group.settings
    ]
    alt = f"Plot of the table: {_F1} by {table.axes[0]}. {'; '.join(ours) or 'None of ours'}. " + (
        f"{_COUNTING} {table.counting['f1']:.3f}."
    )
    return Plot(table.name, table.title, alt, draw, height)


def header_text(table: Table, headers: Sequence[Header]) -> str:
    """Writes the headers of a group as one, such as `embedding, 50 items`."""
    told = {_ITEMS: "{} items", "UEM layers": "{} layers"}
    return ", ".join(
        told.get(axis, "{}").format(f"{header:g}" if isinstance(header, float) else header)
        for axis, header in zip(table.axes, headers)
    )


def _lines(table: Table) -> Callable[[Figure, Theme], None]:
    axis = table.axes[0]
    values = sorted({group.headers[0] for group in table.groups})
    to_scale = axis in _TO_SCALE
    place = {value: value if to_scale else index for index, value in enumerate(values)}

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        for name, points in _series(table).items():
            xs, scores = zip(*((place[value], score) for value, score in points))
            axes.errorbar(
                xs,
                [score.mean for score in scores],
                [math.nan if score.spread is None else score.spread for score in scores],
                marker="o",
                label=name,
            )
        for size, marker in _PAPER_MARKERS.items():
            points = [(place[g.headers[0]], g.paper[size]) for g in table.groups if g.paper]
            if points:
                axes.plot(*zip(*points), **_papers(theme, size, marker), linestyle=_DASHED)
        for name, limits in _limits(table).items():
            xs, scores = [place[value] for value in limits], list(limits.values())
            style = {"color": theme.ink, "linestyle": _DASH_DOTTED, "linewidth": 1.2, "label": name}
            if len(set(scores)) > 1:
                axes.plot(xs, scores, **style)
            else:
                axes.axhline(scores[0], **style)
        _draw_counting(axes.axhline, table, theme)
        axes.set_xticks(list(place.values()), [f"{value:g}" for value in values])
        axes.set(xlabel=axis, ylabel=_F1, ylim=(0, None))
        _draw_legend(figure, table)

    return draw


def _series(table: Table) -> dict[str, list[tuple[Header, Summary]]]:
    """Returns our scores by setting but for what is compared."""
    others = {group.headers[1:] for group in table.groups if group.settings}
    series: dict[str, list[tuple[Header, Summary]]] = {}
    for group in table.groups:
        for setting in group.settings:
            name = table.labels[setting]
            if len(others) > 1:
                name += f", {_others_text(table, group)}"
            series.setdefault(name, []).append((group.headers[0], setting.f1))
    return series


def _others_text(table: Table, group: Group) -> str:
    return header_text(table, group.headers).partition(", ")[2]


def _limits(table: Table) -> dict[str, dict[Header, float]]:
    """Returns F1 of the label rule by what is compared; one line for each amount of items read."""
    limits: dict[str, dict[Header, float]] = {}
    for group in table.groups:
        for setting in group.settings:
            by_items = table.axes[0] == _ITEMS
            name = "label rule on the same items" if by_items else setting.rule_label
            limits.setdefault(name, {})[group.headers[0]] = setting.rule["f1"]
    return limits


def _papers(theme: Theme, size: str, marker: str) -> dict[str, object]:
    return {
        "color": theme.muted,
        "marker": marker,
        "markerfacecolor": theme.surface,
        "linewidth": 1.2,
        "label": f"paper, {size}",
    }


def _draw_counting(line: Callable[..., object], table: Table, theme: Theme) -> None:
    style = {"linestyle": _DOTTED, "linewidth": 1.6}
    line(table.counting["f1"], color=theme.ink, label=_COUNTING, **style)
    if table.has_paper:
        paper = paper_results.COUNTING[paper_results.SIZES[0]]
        line(paper, color=theme.muted, label=f"{_COUNTING}, paper", **style)


def _draw_legend(figure: Figure, table: Table) -> None:
    """Also says, to who sees the plot alone, what does not fit together in the paper's figures."""
    figure.legend(
        loc="outside lower center",
        ncols=2,
        title=textwrap.fill(paper_results.INCONSISTENCIES[0], 90) if _shows_clash(table) else None,
        title_fontsize=7,
    )


def _shows_clash(table: Table) -> bool:
    return any(group.paper and group.headers[-1] == 5 for group in table.groups)


def _bars(table: Table) -> tuple[Callable[[Figure, Theme], None], float]:
    """Returns how to draw a bar for each of our settings, and the height that this takes."""
    rows: list[tuple[Group, Setting | None]] = [
        (group, setting) for group in table.groups for setting in group.settings or [None]
    ]
    tell_settings = len(set(table.labels.values())) > 1

    def name(group: Group, setting: Setting | None) -> str:
        parts = [header_text(table, group.headers)]
        if setting and tell_settings and table.labels[setting] not in parts[0]:
            parts.append(table.labels[setting])
        return "\n".join(textwrap.fill(part, _WRAPPED, break_long_words=False) for part in parts)

    names = [name(*row) for row in rows]
    lines = sum(len(name.splitlines()) for name in names)

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        ours = [(y, setting) for y, (_, setting) in enumerate(rows) if setting]
        if ours:
            ys, scores = zip(*((y, setting.f1) for y, setting in ours))
            _draw_bars(axes, theme, ys, scores)
            axes.vlines(
                [setting.rule["f1"] for _, setting in ours],
                [y - 0.45 for y in ys],
                [y + 0.45 for y in ys],
                color=theme.ink,
                linewidth=1.6,
                label="label rule on the same items",
            )
        for size, marker in _PAPER_MARKERS.items():
            points = [(group.paper[size], y) for y, (group, _) in enumerate(rows) if group.paper]
            if points:
                axes.plot(*zip(*points), **_papers(theme, size, marker), linestyle="none")
        _draw_counting(axes.axvline, table, theme)
        axes.set_yticks(range(len(rows)), names)
        axes.set(xlabel=_F1, xlim=(0, None), ylim=(len(rows) - 0.4, -0.6))
        axes.grid(False, axis="y")
        _draw_legend(figure, table)

    return draw, 1.7 + 0.2 * lines + 0.16 * len(rows)


def _draw_bars(
    axes: Axes, theme: Theme, ys: Sequence[int], scores: Sequence[Summary], label: str = "ours"
) -> None:
    axes.barh(
        ys,
        [score.mean for score in scores],
        xerr=[score.spread or math.nan for score in scores],
        height=0.6,
        color=theme.series[0],
        ecolor=theme.ink,
        label=label,
    )


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
        plots.append(
            tuple(
                plot
                for plot in (
                    _validation_plot(comparison, validation, number) if validation else None,
                    _losses_plot(comparison, losses, number) if losses else None,
                )
                if plot
            )
        )
    return plots


def _validation(setting: Setting) -> Curve:
    rows = [(row["step"], row["f1"]) for run in setting.runs for row in run.validation_scores]
    return _by_step(rows)


def _losses(setting: Setting) -> Curve:
    return _by_step([row for run in setting.runs for row in run.training_losses])


def _by_step(rows: Sequence[tuple[int, float]]) -> Curve:
    by_step: dict[int, list[float]] = {}
    for step, value in rows:
        by_step.setdefault(step, []).append(value)
    return dict(sorted(by_step.items()))


def _draw_curves(axes: Axes, comparison: Comparison, curves: Mapping[Setting, Curve]) -> None:
    for setting, curve in curves.items():
        steps, values = list(curve), list(curve.values())
        (line,) = axes.plot(
            steps,
            [sum(of_step) / len(of_step) for of_step in values],
            marker="o" if len(steps) == 1 else "",
            label=_curve_label(comparison, setting),
        )
        lowest, highest = [min(of_step) for of_step in values], [max(of_step) for of_step in values]
        axes.fill_between(steps, lowest, highest, color=line.get_color(), alpha=0.18, linewidth=0)


def _curve_label(comparison: Comparison, setting: Setting) -> str:
    return textwrap.fill(comparison.labels[setting], 2 * _WRAPPED)


def _validation_plot(comparison: Comparison, curves: Mapping[Setting, Curve], number: str) -> Plot:
    limits = {setting.rule_label: setting.rule["f1"] for setting in curves}

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        _draw_curves(axes, comparison, curves)
        for index, (label, f1) in enumerate(sorted(limits.items(), key=lambda limit: limit[1])):
            axes.axhline(f1, color=theme.ink, linestyle=_DASH_DOTTED, linewidth=1.2)
            # Left and right by turns, for limits may lie close together.
            axes.annotate(
                label.removeprefix("label "),
                (index % 2, f1),
                (0, 2),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right" if index % 2 else "left",
                fontsize=8,
                bbox={"facecolor": theme.surface, "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            )
        counting = comparison.counting["f1"]
        label = f"{_COUNTING}, {comparison.split}"
        axes.axhline(counting, color=theme.ink, linestyle=_DOTTED, linewidth=1.6, label=label)
        axes.set(xlabel="step", ylabel=f"{_F1}, validation", ylim=(0, 1.1 * axes.get_ylim()[1]))
        figure.legend(loc="outside lower center")

    last = "; ".join(
        f"{comparison.labels[setting]} {np.mean(list(curve.values())[-1]):.3f}"
        for setting, curve in curves.items()
    )
    alt = f"F1 on validation users by step, mean and range over seeds. At the end: {last}."
    title = "F1 on validation users"
    return Plot(f"validation-f1{number}", title, alt, draw, _curves_height(len(curves) + 1))


def _losses_plot(comparison: Comparison, curves: Mapping[Setting, Curve], number: str) -> Plot:
    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        _draw_curves(axes, comparison, curves)
        axes.set(xlabel="step", ylabel="training loss")
        figure.legend(loc="outside lower center")

    last = "; ".join(
        f"{comparison.labels[setting]} {np.mean(list(curve.values())[-1]):.3f}"
        for setting, curve in curves.items()
    )
    alt = f"Training loss by step, mean and range over seeds. At the end: {last}."
    height = _curves_height(len(curves) + 1)
    return Plot(f"training-loss{number}", "Training loss", alt, draw, height)


def _curves_height(lines: int) -> float:
    return 3.2 + 0.2 * lines


def per_genre(comparison: Comparison) -> list[Plot]:
    """Draws F1 of each genre, liked and disliked, of the best setting."""
    return [_genres_plot(comparison, kind) for kind in KINDS]


def _genres_plot(comparison: Comparison, kind: str) -> Plot:
    best = comparison.best
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
        _draw_bars(axes, theme, range(len(genres)), scores, "F1 of the genre")
        over_all = {
            f"{_COUNTING}, all genres": (comparison.counting, _DOTTED),
            "label rule on the same items, all genres": (best.rule, _DASH_DOTTED),
        }
        for label, (of_method, style) in over_all.items():
            f1 = of_method[f"{kind}_f1"]
            axes.axvline(f1, color=theme.ink, linestyle=style, linewidth=1.4, label=label)
        axes.set_yticks(range(len(genres)), [f"{genre} ({support[genre]})" for genre in genres])
        axes.set(xlabel=f"F1, {kind}", xlim=(0, 1), ylim=(len(genres) - 0.4, -0.6))
        axes.grid(False, axis="y")
        figure.legend(loc="outside lower center")

    told = ", ".join(f"{genre} {score}" for genre, score in zip(genres, scores))
    title = f"{kind.capitalize()} genres, and how many users have them"
    return Plot(
        f"genres-{kind}", title, f"F1 of {kind} genres: {told}.", draw, 2 + 0.22 * len(genres)
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
