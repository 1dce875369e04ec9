"""Writes a report: the page, its plots as PNGs, its tables in Markdown, and all runs as CSV."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from uem_t5x import __version__, report_tables
from uem_t5x.report import figures, paper_results, run_plots, table_plots, tables
from uem_t5x.report import settings as settings_lib
from uem_t5x.report.figures import Picture
from uem_t5x.report.settings import Comparison, Summary
from uem_t5x.report.tables import Table

PAGE, TABLES, RUNS = "report.html", "tables.md", "runs.csv"
# In the page's first lines.
_GENERATOR = b'<meta name="generator" content="uem-t5x report'
_HEAD_BYTES = 1000
_F1_COLUMNS = ("f1", "liked_f1", "disliked_f1")
_FILES = {".html", ".md", ".csv", ".png"}


@dataclasses.dataclass(frozen=True)
class Section:
    """What the page shows of one comparison.

    Attributes:
      comparison: what was compared.
      prefix: of links and file names, so that two sections do not share any.
      paper: the paper's tables, each with its plot.
      other: all further tables, each with its plot.
      curves: validation F1 and training loss, for a few settings at a time.
      genres: liked and disliked.
      confusion: the plot of it.
      counts: how often a genre that is (rows) was said to be (columns) `run_plots.STANCES`.
      shares: of each row's sum.
    """

    comparison: Comparison
    prefix: str
    paper: Sequence[tuple[Table, Picture]]
    other: Sequence[tuple[Table, Picture]]
    curves: Sequence[Sequence[Picture]]
    genres: Sequence[Picture]
    confusion: Picture
    counts: np.ndarray
    shares: np.ndarray

    @classmethod
    def draw(cls, comparison: Comparison, prefix: str) -> "Section":
        """Makes the tables and draws the plots."""

        def with_plots(found: Sequence[Table]) -> list[tuple[Table, Picture]]:
            return [(table, figures.draw(table_plots.of_table(table))) for table in found]

        counts = run_plots.confusion(comparison)
        return cls(
            comparison=comparison,
            prefix=prefix,
            paper=with_plots(tables.paper_tables(comparison)),
            other=with_plots(tables.other_tables(comparison)),
            curves=[list(map(figures.draw, few)) for few in run_plots.learning_curves(comparison)],
            genres=[figures.draw(plot) for plot in run_plots.per_genre(comparison)],
            confusion=figures.draw(run_plots.confusion_plot(comparison)),
            counts=counts,
            shares=run_plots.row_shares(counts),
        )

    @property
    def pictures(self) -> list[Picture]:
        """All of them."""
        of_tables = [picture for _, picture in (*self.paper, *self.other)]
        of_curves = [picture for few in self.curves for picture in few]
        return [*of_tables, *of_curves, *self.genres, self.confusion]

    @property
    def way_to_rule(self) -> float | None:
        """How far from counting (0) to the rule (1) the best setting is; None without a way."""
        counting, rule = self.comparison.counting["f1"], self.comparison.best.rule["f1"]
        if rule <= counting:
            return None
        return (self.comparison.best.f1.mean - counting) / (rule - counting)


def write(folder: Path, comparisons: Sequence[Comparison], skipped: Sequence[str]) -> None:
    """Writes a report.

    Args:
      folder: an empty folder.
      comparisons: at least one.
      skipped: folders of runs that have no scores.
    """
    sections = [
        Section.draw(comparison, prefix=f"data-{number}-" if len(comparisons) > 1 else "")
        for number, comparison in enumerate(comparisons, start=1)
    ]
    for section in sections:
        for picture in section.pictures:
            (folder / f"{section.prefix}{picture.plot.name}.png").write_bytes(picture.png)
    for name in (PAGE, TABLES):
        (folder / name).write_text(_render(name, sections, skipped), encoding="utf-8")
    _write_runs(folder / RUNS, comparisons)


def is_report(folder: Path) -> bool:
    """Whether a folder holds a report and nothing else, so that another may replace it."""
    page = folder / PAGE
    if not page.is_file() or {file.suffix for file in folder.iterdir()} - _FILES:
        return False
    with page.open("rb") as file:
        return _GENERATOR in file.read(_HEAD_BYTES)


def _render(template: str, sections: Sequence[Section], skipped: Sequence[str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("uem_t5x.report", "."),
        autoescape=template.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = _score
    environment.filters["header"] = _header
    return environment.get_template(template).render(
        sections=sections,
        skipped=skipped,
        paper=paper_results,
        columns=report_tables.COLUMNS,
        f1_columns={name: report_tables.COLUMNS[name] for name in _F1_COLUMNS},
        stances=run_plots.STANCES,
        runs_file=RUNS,
        tables_file=TABLES,
        version=__version__,
    )


def _score(score: Summary | float) -> str:
    return str(score) if isinstance(score, Summary) else f"{score:.3f}"


def _header(value: tables.Header) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_reference(value: Any) -> bool:
    """Whether a setting says nothing by itself: gin's references, and what is not set."""
    return value is None or (isinstance(value, str) and value.startswith(("%", "@")))


def _write_runs(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Writes a row for each run: where it is, the settings that differ, its seed, all scores."""
    runs = [run for comparison in comparisons for run in comparison.runs]
    everything = [run.settings for run in runs]
    names = [
        name
        for name in settings_lib.differing(everything)
        if not all(_is_reference(values.get(name)) for values in everything)
    ]
    rows: list[dict[str, Any]] = []
    for run in runs:
        row = {"run": str(run.path), "kind": run.kind, "language_model": run.language_model}
        row |= {name: run.settings.get(name, "") for name in names}
        row |= {"seed": run.seed, "step": run.metrics["step"], "split": run.metrics["split"]}
        row |= {"users": run.metrics["examples"], "items": run.metrics["history_length"]}
        row |= {f"items_read_{name}": items for name, items in run.metrics["items_read"].items()}
        row |= run.scores
        for baseline in ("counting", "rule"):
            scores = run.metrics["methods"][baseline]
            row |= {f"{baseline}_{name}": score for name, score in scores.items()}
        rows.append(row)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
