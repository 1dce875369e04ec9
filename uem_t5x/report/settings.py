"""Settings: runs that differ in their seed alone, put together, and told from one another."""

import collections
import dataclasses
import functools
import itertools
import pprint
import statistics
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from uem_t5x.base.errors import InputError
from uem_t5x.report import paper_results
from uem_t5x.runs.finished import UEM, Run
from uem_t5x.tastes import uncertainty
from uem_t5x.tastes.label_numbers import LabelRule
from uem_t5x.tastes.uncertainty import Interval

HISTORY_LENGTH, UEM_LAYERS, LANGUAGE_MODEL = "HISTORY_LENGTH", "UEM_LAYERS", "LANGUAGE_MODEL"
CATALOGUE, SPLIT = "CATALOGUE", "SPLIT"
VOCABULARY, VOCAB_SIZE = "VOCABULARY", "VOCAB_SIZE"
# How runs were scored; a page says it even where all are alike.
_SCORED = ("TRAINED", "CHECKPOINT", "ANSWERS")
NOT_SET = "not set"
# `Setting.language_model` and `Setting.items` tell these already.
_TOLD = {LANGUAGE_MODEL, "LANGUAGE_MODEL_SIZE", HISTORY_LENGTH}
_LONG_PATH = 30


@dataclasses.dataclass(frozen=True)
class Summary:
    """A score over seeds.

    Attributes:
      mean: over the runs.
      spread: the sample standard deviation; None for a single run.
    """

    mean: float
    spread: float | None = None

    @classmethod
    def of(cls, scores: Sequence[float]) -> "Summary":
        """Summarizes one score of several runs."""
        return cls(statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else None)

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" ± {self.spread:.3f}"
        return f"{self.mean:.3f}{spread}"


class Words(NamedTuple):
    """What the data are called."""

    genre: str
    genres: str
    movies: str


_OF_MOVIELENS, _OF_OTHERS = Words("genre", "genres", "movies"), Words("class", "classes", "items")


def words_of(runs: Iterable[Run]) -> Words:
    """Returns what the data of runs are called: as MovieLens' own, if they are of no other."""
    is_movielens = all(run.manifest.source is None for run in runs)
    return _OF_MOVIELENS if is_movielens else _OF_OTHERS


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """Runs of the same settings.

    Attributes:
      runs: at least one, by their seeds, of which no two are the same.
    """

    runs: Sequence[Run]

    @property
    def values(self) -> Mapping[str, Any]:
        """What the runs share; see `Run.settings`."""
        return self.runs[0].settings

    @property
    def seeds(self) -> list[int]:
        """Those of the runs, in order."""
        return [run.seed for run in self.runs]

    @property
    def is_embedding(self) -> bool:
        """Whether the history goes in as embeddings, and not as text."""
        return self.runs[0].kind == UEM

    @property
    def history(self) -> str:
        """What the history goes in as, in the paper's words."""
        if self.is_embedding:
            return paper_results.EMBEDDING
        is_long = "longt5" in self.language_model.lower()
        return paper_results.LONG_TEXT if is_long else paper_results.TEXT

    @property
    def items(self) -> int:
        """The most recent items that the model may read."""
        return self.runs[0].metrics["history_length"]

    @property
    def items_read(self) -> Mapping[str, int | float]:
        """How many items it did read of a user: `least`, `mean` and `most`."""
        return self.runs[0].metrics["items_read"]

    @property
    def language_model(self) -> str:
        """Such as `Flan-T5 base`."""
        return self.runs[0].language_model

    @functools.cached_property
    def scores(self) -> Mapping[str, Summary]:
        """The model's own scores, such as `f1` and `liked_f1`."""
        return {
            name: Summary.of([run.scores[name] for run in self.runs])
            for name in self.runs[0].scores
        }

    @property
    def f1(self) -> Summary:
        """Of liked and disliked genres together."""
        return self.scores["f1"]

    @functools.cached_property
    def draws(self) -> Float64[np.ndarray, " resamples"] | None:
        """The mean F1 of the runs on every draw of users; None where an older version scored."""
        marks = [run.marks for run in self.runs]
        if None in marks:
            return None
        return np.mean([of_run.resampled()["f1"] for of_run in marks], axis=0)

    @property
    def interval(self) -> Interval | None:
        """The 95 % bootstrap interval of the mean F1 over users; None as `draws`."""
        return None if self.draws is None else uncertainty.interval(self.draws)

    @property
    def rule(self) -> Mapping[str, float]:
        """The scores of the label rule on the items that the model read."""
        return self.runs[0].metrics["methods"]["rule"]

    @property
    def rule_label(self) -> str:
        """Says in words what the rule read."""
        if self.is_embedding:
            return f"label rule on the {self.items} most recent items"
        return f"label rule on the items told ({self.items_read['mean']:.1f} a user)"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Settings that were scored on the same users.

    Attributes:
      settings: of at least one run.
    """

    settings: Sequence[Setting]

    @property
    def runs(self) -> list[Run]:
        """All of them."""
        return [run for setting in self.settings for run in setting.runs]

    @property
    def best(self) -> Setting:
        """The setting of the highest mean F1."""
        return max(self.settings, key=lambda setting: setting.f1.mean)

    @property
    def best_run(self) -> Run:
        """The run of the highest F1 of the best setting."""
        return max(self.best.runs, key=lambda run: run.scores["f1"])

    def behind_best(self, setting: Setting) -> tuple[float, Interval] | None:
        """Returns by how much the best setting is ahead in mean F1, with its paired interval.

        None of the best one itself, and where an older version of `evaluate` scored either.
        """
        if setting is self.best or setting.draws is None or self.best.draws is None:
            return None
        drawn = uncertainty.interval(self.best.draws - setting.draws)
        return self.best.f1.mean - setting.f1.mean, drawn

    @property
    def counting(self) -> Mapping[str, float]:
        """The scores of the counting baseline, which reads whole histories."""
        return self.runs[0].metrics["methods"]["counting"]

    @property
    def split(self) -> str:
        """The split that was scored."""
        return self.runs[0].metrics["split"]

    @property
    def users(self) -> int:
        """Users that were scored."""
        return self.runs[0].metrics["examples"]

    @property
    def training_users(self) -> list[int]:
        """How many users were learned from: each number that there is, in order."""
        return sorted({run.manifest.splits["train"].examples for run in self.runs})

    @property
    def scored(self) -> dict[str, list[str]]:
        """How far runs were trained, which checkpoint was scored, and how it answered."""
        return {name: sorted({run.settings[name] for run in self.runs}) for name in _SCORED}

    @property
    def not_recorded(self) -> dict[str, int]:
        """What older versions did not write down of runs, and of how many."""
        return dict(collections.Counter(name for run in self.runs for name in run.not_recorded))

    @property
    def label_rule(self) -> LabelRule:
        """What the labels were made by."""
        return self.runs[0].manifest.telling.rule

    @property
    def words(self) -> Words:
        """What the data are called."""
        return words_of(self.runs)

    @property
    def genres(self) -> Sequence[str]:
        """The classes."""
        return self.runs[0].manifest.genres

    @property
    def encoders(self) -> list[str]:
        """The sentence encoders."""
        encoders = {(run.manifest.encoder.name, run.manifest.encoder.width) for run in self.runs}
        return [f"{name} ({width} columns)" for name, width in sorted(encoders)]

    @functools.cached_property
    def labels(self) -> Mapping[Setting, str]:
        """A name for each setting that tells it from all others."""
        names = labels(self.settings, brief=True)
        return {
            setting: f"{setting.history}, {setting.items} items, {name}"
            for setting, name in names.items()
        }


def compare(runs: Iterable[Run]) -> list[Comparison]:
    """Puts runs together, first by the users that they were scored on, then by settings.

    Returns:
      A comparison for each set of users; the one of most runs first.

    Raises:
      InputError: if two runs of a setting have the same seed: one may be a copy of the other, and a
        mean would count it twice.
    """

    def users(run: Run) -> Hashable:
        # Counting reads nothing but the users: where its score differs, they do.
        counting = run.metrics["methods"]["counting"]["f1"]
        return run.settings[SPLIT], run.settings[CATALOGUE], round(counting, 6)

    comparisons = []
    for of_users in _grouped(runs, users):
        same = _grouped(of_users, lambda run: pprint.pformat(dict(run.settings)))
        settings = [Setting(_by_seed(group)) for group in same]
        comparisons.append(Comparison(sorted(settings, key=_order)))
    return sorted(comparisons, key=lambda comparison: -len(comparison.runs))


def _by_seed(runs: Iterable[Run]) -> list[Run]:
    """Sorts the runs of a setting."""
    ordered = sorted(runs, key=lambda run: run.seed)
    for run, other in itertools.pairwise(ordered):
        if run.seed == other.seed:
            raise InputError(
                f"{run.path} and {other.path}: the same settings and the same seed, {run.seed}, so "
                "that a mean would count a run twice; leave one of them out"
            )
    return ordered


def _order(setting: Setting) -> tuple[int, int]:
    return paper_results.HISTORIES.index(setting.history), setting.items


def families(
    settings: Iterable[Setting],
    may_differ: Callable[[str], bool],
    axis: Callable[[Setting], Hashable],
) -> list[list[Setting]]:
    """Finds the ablations: settings that are identical but for what is compared.

    Args:
      settings: to choose from.
      may_differ: says of the name of a macro or binding whether it belongs to what is compared.
      axis: what is compared.

    Returns:
      Groups of settings that hold at least two values of `axis`.
    """

    def rest(setting: Setting) -> str:
        return pprint.pformat(
            {name: value for name, value in setting.values.items() if not may_differ(name)}
        )

    return [family for family in _grouped(settings, rest) if len(set(map(axis, family))) > 1]


def differing(everything: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the names of macros and bindings whose values are not the same in all settings."""
    names = sorted({name for values in everything for name in values})

    def differs(name: str) -> bool:
        first = everything[0].get(name, NOT_SET)
        return any(values.get(name, NOT_SET) != first for values in everything)

    return [name for name in names if differs(name)]


def labels(
    settings: Sequence[Setting], hidden: Collection[str] = frozenset(), brief: bool = False
) -> dict[Setting, str]:
    """Names settings by their language model, and by what tells them from others of the same one.

    Args:
      settings: to be told from one another.
      hidden: macros and bindings that are told elsewhere.
      brief: leaves out what more than half of them share.
    """
    named = {}
    for alike in _grouped(settings, lambda s: (s.is_embedding, s.language_model)):
        names = differing([setting.values for setting in alike])
        values = {
            name: [value_text(setting.values, name) for setting in alike]
            for name in names
            if name not in _TOLD and name not in hidden
        }
        for index, setting in enumerate(alike):
            told = [
                f"{short_name(name)}={of_name[index]}"
                for name, of_name in values.items()
                if not (brief and of_name[index] == _usual(of_name))
            ]
            named[setting] = ", ".join([setting.language_model or "unnamed model", *told])
    return {setting: named[setting] for setting in settings}


def _usual(values: Sequence[str]) -> str | None:
    """Returns what goes without saying: the value that more than half have."""
    value, count = collections.Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else None


def short_name(name: str) -> str:
    """Returns a macro's name, or a binding's as `function.parameter`."""
    return ".".join(name.split(".")[-2:])


def value_text(values: Mapping[str, Any], name: str) -> str:
    """Writes the value of a macro or binding for people."""
    value = values.get(name, NOT_SET)
    if isinstance(value, str) and "/" in value and len(value) > _LONG_PATH:
        return "…/" + "/".join(value.rstrip("/").split("/")[-2:])
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {part}" for key, part in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _grouped(things: Iterable[Any], key: Callable[[Any], Hashable]) -> list[list[Any]]:
    """Puts together what has the same key, in order of first appearance."""
    groups: dict[Hashable, list[Any]] = {}
    for thing in things:
        groups.setdefault(key(thing), []).append(thing)
    return list(groups.values())
