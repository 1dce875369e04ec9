"""One look for all plots, on light and on dark pages, and how they become images."""

import base64
import dataclasses
import io
import math
from collections.abc import Callable, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uem_t5x.report.settings import Summary

# What they all call the same, and draw alike.
F1, COUNTING = "weighted F1", "counting baseline"
_DOTTED, _DASH_DOTTED = (0, (1.0, 1.5)), (0, (6.0, 2.0, 1.0, 2.0))
_PNG_DPI = 200
_CSS_PIXELS_PER_INCH = 96


@dataclasses.dataclass(frozen=True)
class Theme:
    """The colours of a plot.

    Attributes:
      ink: text.
      muted: the paper's figures, and limits.
      line: axes and grids.
      surface: what the plot lies on.
      series: ours, one after the other.
    """

    ink: str
    muted: str
    line: str
    surface: str
    series: tuple[str, ...]


# The surfaces are those of `style.css`; every colour has a contrast of 3 to its surface, text 4.5.
LIGHT = Theme(
    ink="#1d2430",
    muted="#5b6472",
    line="#d5dae1",
    surface="#ffffff",
    series=("#1c5fc4", "#b9460b", "#0d7466", "#7a3fc9", "#8a6100", "#b0276c"),
)
DARK = Theme(
    ink="#e7eaf0",
    muted="#a3adbb",
    line="#3a4351",
    surface="#1a1f28",
    series=("#7fb2ff", "#ff9d6e", "#5fd0bf", "#c3a5ff", "#e2c15c", "#ff93c2"),
)


@dataclasses.dataclass(frozen=True)
class Plot:
    """A plot that can be drawn in any theme.

    Attributes:
      name: of its file, without an ending.
      title: what it shows.
      alt: the same for who cannot see it, with the numbers that matter.
      draw: draws it.
      height: in inches.
      width: in inches.
    """

    name: str
    title: str
    alt: str
    draw: Callable[[Figure, Theme], None]
    height: float = 3.7
    width: float = 5.6


@dataclasses.dataclass(frozen=True)
class Picture:
    """A plot, drawn.

    Attributes:
      plot: what was drawn.
      light: a data URI of SVG.
      dark: the same for dark pages.
      png: the bytes of a PNG, light.
      width: in CSS pixels.
      height: in CSS pixels.
    """

    plot: Plot
    light: str
    dark: str
    png: bytes
    width: int
    height: int


def draw(plot: Plot) -> Picture:
    """Draws a plot in all its forms."""
    return Picture(
        plot=plot,
        light=_data_uri(_image(plot, LIGHT, "svg")),
        dark=_data_uri(_image(plot, DARK, "svg")),
        png=_image(plot, LIGHT, "png"),
        width=round(plot.width * _CSS_PIXELS_PER_INCH),
        height=round(plot.height * _CSS_PIXELS_PER_INCH),
    )


def counting_style(theme: Theme) -> dict[str, object]:
    """Returns how the line of the counting baseline is drawn."""
    return _limit_style(theme, _DOTTED)


def rule_style(theme: Theme) -> dict[str, object]:
    """Returns how the line of the label rule is drawn."""
    return _limit_style(theme, _DASH_DOTTED)


def _limit_style(theme: Theme, linestyle: tuple[int, tuple[float, ...]]) -> dict[str, object]:
    # Unclipped and above the axes: a score of 0 is seen too.
    style = {"linestyle": linestyle, "linewidth": 1.4, "clip_on": False, "zorder": 3}
    return {"color": theme.ink, **style}


def draw_bars(
    axes: Axes, theme: Theme, ys: Sequence[int], scores: Sequence[Summary], label: str = "ours"
) -> None:
    """Draws a horizontal bar for each score, with its spread."""
    axes.barh(
        ys,
        [score.mean for score in scores],
        xerr=[score.spread or math.nan for score in scores],
        height=0.6,
        color=theme.series[0],
        ecolor=theme.ink,
        label=label,
    )


def _image(plot: Plot, theme: Theme, kind: str) -> bytes:
    with mpl.rc_context(_style(theme, plot.name)):
        figure = Figure(figsize=(plot.width, plot.height), layout="constrained")
        plot.draw(figure, theme)
        image = io.BytesIO()
        # Without a date, the same runs make the same file.
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(image, format=kind, dpi=_PNG_DPI, metadata=metadata)
    return image.getvalue()


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _style(theme: Theme, salt: str) -> dict[str, object]:
    return {
        "figure.facecolor": theme.surface,
        "axes.facecolor": theme.surface,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "xtick.color": theme.line,
        "ytick.color": theme.line,
        "axes.edgecolor": theme.line,
        "grid.color": theme.line,
        "grid.linewidth": 0.6,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": mpl.cycler(color=theme.series),
        "font.size": 10,
        "axes.labelsize": 10,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "errorbar.capsize": 3,
        "svg.hashsalt": salt,
        "text.parse_math": False,  # names from files are names
    }
