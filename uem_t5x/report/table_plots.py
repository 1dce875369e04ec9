"""Plots of tables: F1 by what is compared, beside the paper's, counting and the label rule."""

import math
import textwrap
from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from uem_t5x.report import figures, paper_results
from uem_t5x.report.figures import Plot, Theme
from uem_t5x.report.settings import Setting, Summary
from uem_t5x.report.tables import Group, Header, Table

_PAPER_MARKERS = dict(zip(paper_results.SIZES, "s^"))
_WRAPPED = 30
_ITEMS = "items"
# Amounts of these are drawn to scale; others, such as learning rates, evenly spaced.
_TO_SCALE = (_ITEMS, "UEM layers")


def of_table(table: Table) -> Plot:
    """Draws F1 by what a table compares: as lines over numbers, else as bars."""
    draw, height = (_lines(table), 4.2) if table.is_numeric else _bars(table)
    ours = [
        f"{table.labels[setting]}, {_told(table.axes, group.headers)}: {setting.f1}"
        for group in table.groups
        for setting in group.settings
    ]
    counting = f"{figures.COUNTING}: {table.counting['f1']:.3f}"
    alt = f"{table.title}: {figures.F1}, as in the table. {'; '.join([*ours, counting])}."
    return Plot(table.name, table.title, alt, draw, height)


def _told(axes: Sequence[str], headers: Sequence[Header]) -> str:
    """Writes headers as one, such as `embedding, 50 items`."""
    units = {_ITEMS: " items", "UEM layers": " layers"}
    return ", ".join(f"{header}{units.get(axis, '')}" for axis, header in zip(axes, headers))


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
                axes.plot(*zip(*points), **_papers(theme, size, marker), linestyle="--")
        for name, limits in _limits(table).items():
            xs, scores = [place[value] for value in limits], list(limits.values())
            style = {"label": name, **figures.rule_style(theme)}
            if len(set(scores)) > 1:
                axes.plot(xs, scores, **style)
            else:
                axes.axhline(scores[0], **style)
        _draw_counting(axes.axhline, table, theme)
        axes.set_xticks(list(place.values()), [f"{value:g}" for value in values])
        axes.set(xlabel=axis, ylabel=figures.F1, ylim=(0, None))
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
                name += f", {_told(table.axes[1:], group.headers[1:])}"
            series.setdefault(name, []).append((group.headers[0], setting.f1))
    return series


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
    style = figures.counting_style(theme)
    line(table.counting["f1"], label=figures.COUNTING, **style)
    if table.has_paper:
        paper = paper_results.COUNTING[paper_results.SIZES[0]]
        line(paper, label=f"{figures.COUNTING}, paper", **style | {"color": theme.muted})


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
        parts = [_told(table.axes, group.headers)]
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
            figures.draw_bars(axes, theme, ys, scores)
            axes.vlines(
                [setting.rule["f1"] for _, setting in ours],
                [y - 0.45 for y in ys],
                [y + 0.45 for y in ys],
                color=theme.ink,
                linewidth=1.6,
                clip_on=False,
                zorder=3,
                label="label rule on the same items",
            )
        for size, marker in _PAPER_MARKERS.items():
            points = [(group.paper[size], y) for y, (group, _) in enumerate(rows) if group.paper]
            if points:
                axes.plot(*zip(*points), **_papers(theme, size, marker), linestyle="none")
        _draw_counting(axes.axvline, table, theme)
        axes.set_yticks(range(len(rows)), names)
        axes.set(xlabel=figures.F1, xlim=(0, None), ylim=(len(rows) - 0.4, -0.6))
        axes.grid(False, axis="y")
        _draw_legend(figure, table)

    return draw, 1.7 + 0.2 * lines + 0.16 * len(rows)
