"""Writes a report: the page, its plots as PNGs, its tables in Markdown, and all runs as CSV.

`files.json` lists them with their checksums: a folder that holds these files, as they were written,
and nothing else is a report that another may replace.
"""

import csv
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from uem_t5x.base import atomic, checksums
from uem_t5x.base.errors import InputError
from uem_t5x.base.version import VERSION
from uem_t5x.report import (
    difficulty_plot,
    figures,
    paper_results,
    run_plots,
    table_plots,
    tables,
)
from uem_t5x.report import settings as settings_lib
from uem_t5x.report.columns import COLUMNS
from uem_t5x.report.figures import Picture
from uem_t5x.report.settings import Comparison, Summary
from uem_t5x.report.tables import Table
from uem_t5x.tastes.uncertainty import Interval

PAGE, TABLES, RUNS, FILES = "report.html", "tables.md", "runs.csv", "files.json"
_FORMAT = "uem-t5x report"
# In the page's first lines, also of versions that wrote no `files.json`.
_GENERATOR = b'<meta name="generator" content="uem-t5x report'
_HEAD_BYTES = 1000
_F1_COLUMNS = ("f1", "liked_f1", "disliked_f1")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# What Markdown does not take as it is; an underscore within a word it does.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])")


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
      difficulty: the plot of where the best setting and the rule part; None of older scores.
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
    difficulty: Picture | None
    counts: np.ndarray
    shares: np.ndarray

    @classmethod
    def draw(cls, comparison: Comparison, prefix: str) -> "Section":
        """Makes the tables and draws the plots."""

        def with_plots(found: Sequence[Table]) -> list[tuple[Table, Picture]]:
            return [(table, figures.draw(table_plots.of_table(table))) for table in found]

        counts = run_plots.confusion(comparison)
        difficulty = difficulty_plot.of_best(comparison)
        return cls(
            comparison=comparison,
            prefix=prefix,
            paper=with_plots(tables.paper_tables(comparison)),
            other=with_plots(tables.other_tables(comparison)),
            curves=[list(map(figures.draw, few)) for few in run_plots.learning_curves(comparison)],
            genres=[figures.draw(plot) for plot in run_plots.per_genre(comparison)],
            confusion=figures.draw(run_plots.confusion_plot(comparison)),
            difficulty=figures.draw(difficulty) if difficulty else None,
            counts=counts,
            shares=run_plots.row_shares(counts),
        )

    @property
    def pictures(self) -> list[Picture]:
        """All of them."""
        of_tables = [picture for _, picture in (*self.paper, *self.other)]
        of_curves = [picture for few in self.curves for picture in few]
        of_best = [*self.genres, self.confusion, *filter(None, [self.difficulty])]
        return [*of_tables, *of_curves, *of_best]

    @property
    def way_to_rule(self) -> tuple[str, str] | None:
        """How far the best setting is from counting to the rule, in words; None without a way."""
        counting, rule = self.comparison.counting["f1"], self.comparison.best.rule["f1"]
        f1 = self.comparison.best.f1.mean
        if rule <= counting:
            return None
        if f1 <= counting:
            return "none", f"of the way: the best setting is {counting - f1:.3f} below counting"
        if f1 >= rule:
            return "all", f"of the way: the best setting is {f1 - rule:.3f} above the rule"
        return f"{(f1 - counting) / (rule - counting):.0%}", "of the way, by the best setting"


def write(
    folder: Path, comparisons: Sequence[Comparison], skipped: Mapping[str, Sequence[str]]
) -> None:
    """Writes a report.

    Args:
      folder: an empty folder.
      comparisons: at least one.
      skipped: folders of the runs that are left out, by why.
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
    sums = checksums.of_files(folder, [file.name for file in folder.iterdir()])
    listed = checksums.signed({"format": _FORMAT, "files": sums})
    atomic.write_text(folder / FILES, json.dumps(listed, indent=1) + "\n")


def is_report(folder: Path) -> bool:
    """Whether a folder holds a report as it was written and nothing else.

    Raises:
      InputError: if it holds a report, but it cannot be told that nobody has put anything into it.
    """
    if not _has_page(folder):
        return False
    sums = _listed(folder / FILES)
    if sums is None:
        raise InputError(
            f"{folder}: is not a report that lists its files ({FILES}), as one of an older version "
            "is not; delete the folder if nothing in it is yours, or give --output another name"
        )
    for file in sorted(folder.iterdir()):
        is_plain = file.is_file() and not file.is_symlink()
        if not is_plain or (file.name != FILES and sums.get(file.name) != checksums.sha256(file)):
            raise InputError(
                f"{file}: was put there, or changed, after the report was written, so that the "
                "folder is not a report alone; move the file, or give --output another name"
            )
    return True


def _has_page(folder: Path) -> bool:
    page = folder / PAGE
    if not page.is_file():
        return False
    with page.open("rb") as file:
        return _GENERATOR in file.read(_HEAD_BYTES)


def _listed(file: Path) -> Mapping[str, str] | None:
    """Returns the checksums of a report's files by name; None if it does not list them."""
    try:
        listed = json.loads(file.read_bytes())
        is_ours = checksums.is_signed(listed) and listed["format"] == _FORMAT
        return listed["files"] if is_ours else None
    except (OSError, ValueError, LookupError, AttributeError, RecursionError):
        return None


def _render(
    template: str, sections: Sequence[Section], skipped: Mapping[str, Sequence[str]]
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("uem_t5x.report", "."),
        autoescape=template.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = _score
    environment.filters["interval"] = _interval
    environment.filters["header"] = _header
    environment.filters["in_words"] = _in_words
    environment.filters["markdown"] = _markdown
    return environment.get_template(template).render(
        sections=sections,
        words=settings_lib.words_of(run for s in sections for run in s.comparison.runs),
        skipped=skipped,
        paper=paper_results,
        columns=COLUMNS,
        f1_columns={name: COLUMNS[name] for name in _F1_COLUMNS},
        stances=run_plots.STANCES,
        runs_file=RUNS,
        tables_file=TABLES,
        files_file=FILES,
        version=VERSION,
    )


def _score(score: Summary | float) -> str:
    return str(score) if isinstance(score, Summary) else f"{score:.3f}"


def _interval(interval: Interval | None) -> str:
    dash = "\N{EN DASH}"
    return dash if interval is None else f"{interval.low:.3f}{dash}{interval.high:.3f}"


def _header(value: tables.Header) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _in_words(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)


def _markdown(text: str) -> str:
    """Writes text on one line so that Markdown shows it as it is, also within a table."""
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))


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
        for name, (low, high) in run.metrics.get("intervals", {}).get(run.kind, {}).items():
            row |= {f"{name}_low": low, f"{name}_high": high}
        for baseline in ("counting", "rule"):
            scores = run.metrics["methods"][baseline]
            row |= {f"{baseline}_{name}": score for name, score in scores.items()}
        rows.append(row)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
