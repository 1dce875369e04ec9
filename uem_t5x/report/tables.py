"""The paper's tables with our scores beside its own, and tables of whatever else was compared."""

import dataclasses
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeAlias

from uem_t5x.report import paper_results
from uem_t5x.report import settings as settings_lib
from uem_t5x.report.settings import Comparison, Setting
from uem_t5x.runs.finished import UNKNOWN

Header: TypeAlias = str | int | float | bool | None
Paper: TypeAlias = Mapping[tuple[Header, ...], paper_results.Scores]

_ITEMS = "items"
_NO_SCORES: paper_results.Scores = {}
# A language model is its name, its size, its weights and its network; one rarely changes alone.
_LANGUAGE_MODEL = {
    settings_lib.LANGUAGE_MODEL,
    "LANGUAGE_MODEL_SIZE",
    "INITIAL_CHECKPOINT_PATH",
    "NETWORK_CONFIG",
    settings_lib.VOCAB_SIZE,
    settings_lib.VOCABULARY,
    "ENCODER_ATTENTION",
}
_NETWORK = "network."
# The paper's tables are theirs.
_NOT_OTHER = {settings_lib.HISTORY_LENGTH, settings_lib.UEM_LAYERS, settings_lib.LANGUAGE_MODEL}
# What cannot but differ with a macro is no other difference.
_FOLLOWS = {settings_lib.VOCAB_SIZE: {settings_lib.VOCABULARY}}
# As the paper orders what is no number.
_ORDER = (*paper_results.HISTORIES, *paper_results.LANGUAGE_MODELS)


@dataclasses.dataclass(frozen=True)
class Rule:
    """The label rule on what a model read: the limit of what could be known.

    Attributes:
      label: what it read, in words.
      scores: such as `f1` and `liked_f1`.
    """

    label: str
    scores: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Group:
    """What a table has for one value of what it compares.

    Attributes:
      headers: one for each axis of the table.
      paper: the paper's F1 by size of its language model; empty where it reports none.
      settings: ours; may be none.
      rules: the limits of these, where they are not those of the whole table.
    """

    headers: tuple[Header, ...]
    paper: paper_results.Scores
    settings: Sequence[Setting]
    rules: Sequence[Rule]


@dataclasses.dataclass(frozen=True)
class Table:
    """F1 by what is compared.

    Attributes:
      name: for file names and links.
      title: what is compared.
      axes: names of the headers.
      groups: in order.
      labels: of our settings.
      counting: the scores of the counting baseline.
      rules: the limits of all our settings, where they share them.
      has_paper: whether the paper has this table.
    """

    name: str
    title: str
    axes: tuple[str, ...]
    groups: Sequence[Group]
    labels: Mapping[Setting, str]
    counting: Mapping[str, float]
    rules: Sequence[Rule]
    has_paper: bool

    @property
    def is_numeric(self) -> bool:
        """Whether what is compared is a number, of which there are several."""
        values = {group.headers[0] for group in self.groups}
        numbers = all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        return numbers and len(values) > 1


def paper_tables(comparison: Comparison) -> list[Table]:
    """Returns the paper's four tables, with our settings where they have a place in them."""
    return [
        _history_inputs(comparison),
        _history_lengths(comparison),
        _language_models(comparison),
        _uem_layers(comparison),
    ]


def other_tables(comparison: Comparison) -> list[Table]:
    """Returns a table for everything else by which alone some of our settings differ."""
    names = settings_lib.differing([setting.values for setting in comparison.settings])
    tables = (_other_table(comparison, name) for name in names if name not in _NOT_OTHER)
    return [table for table in tables if table]


def _other_table(comparison: Comparison, name: str) -> Table | None:
    def text(setting: Setting) -> str:
        return settings_lib.value_text(setting.values, name)

    def headers(setting: Setting) -> tuple[Header, ...]:
        value = setting.values.get(name)
        is_number = isinstance(value, int | float)
        return value if is_number else text(setting), setting.history, setting.items

    together = {name} | _FOLLOWS.get(name, set())
    known = [s for s in comparison.settings if s.values.get(name) != UNKNOWN]
    found = settings_lib.families(known, lambda other: other in together, text)
    if not found:
        return None
    title = settings_lib.short_name(name)
    return _table(
        comparison,
        name="other-" + "".join(c if c.isalnum() else "-" for c in name.lower()),
        title=title,
        axes=(title, "history", _ITEMS),
        settings=_flat(found),
        headers=headers,
        hidden=together,
    )


def _history_inputs(comparison: Comparison) -> Table:
    texts = [setting for setting in comparison.settings if not setting.is_embedding]
    return _table(
        comparison,
        name="history-inputs",
        title="History inputs",
        axes=("history", _ITEMS),
        settings=[*texts, *_of_lengths(comparison)],
        headers=lambda setting: (setting.history, setting.items),
        paper=paper_results.HISTORY_INPUTS,
    )


def _history_lengths(comparison: Comparison) -> Table:
    return _table(
        comparison,
        name="history-length",
        title="History length, as embeddings",
        axes=(_ITEMS,),
        settings=_of_lengths(comparison),
        headers=lambda setting: (setting.items,),
        paper={(items,): scores for items, scores in paper_results.HISTORY_LENGTHS.items()},
    )


def _language_models(comparison: Comparison) -> Table:
    def name(setting: Setting) -> str:
        return str(setting.values.get(settings_lib.LANGUAGE_MODEL, settings_lib.NOT_SET))

    def is_language_model(macro: str) -> bool:
        return macro in _LANGUAGE_MODEL or macro.startswith(_NETWORK)

    return _table(
        comparison,
        name="language-model",
        title="Language model, embeddings of 50 items",
        axes=("language model", _ITEMS),
        settings=_ablation(_at_the_papers_items(comparison), is_language_model, name),
        headers=lambda setting: (name(setting), setting.items),
        paper=_at_items(paper_results.LANGUAGE_MODELS),
    )


def _uem_layers(comparison: Comparison) -> Table:
    def layers(setting: Setting) -> Header:
        return setting.values.get(settings_lib.UEM_LAYERS, settings_lib.NOT_SET)

    return _table(
        comparison,
        name="uem-layers",
        title="Depth of the user embedding module, 50 items",
        axes=("UEM layers", _ITEMS),
        settings=_ablation(
            _at_the_papers_items(comparison),
            lambda macro: macro == settings_lib.UEM_LAYERS,
            layers,
        ),
        headers=lambda setting: (layers(setting), setting.items),
        hidden={settings_lib.UEM_LAYERS},
        paper=_at_items(paper_results.UEM_LAYERS),
    )


def _of_lengths(comparison: Comparison) -> list[Setting]:
    return _ablation(
        [setting for setting in comparison.settings if setting.is_embedding],
        lambda macro: macro == settings_lib.HISTORY_LENGTH,
        lambda setting: setting.items,
    )


def _ablation(
    settings: Sequence[Setting],
    may_differ: Callable[[str], bool],
    axis: Callable[[Setting], Hashable],
) -> list[Setting]:
    """Returns the settings of an ablation; where there is none, the best setting by itself."""
    found = _flat(settings_lib.families(settings, may_differ, axis))
    return found or sorted(settings, key=lambda setting: -setting.f1.mean)[:1]


def _at_the_papers_items(comparison: Comparison) -> list[Setting]:
    """Returns the embedding settings of as many items as the paper's; without any, all."""
    embedding = [setting for setting in comparison.settings if setting.is_embedding]
    return [s for s in embedding if s.items == paper_results.ITEMS] or embedding


def _at_items(scores: Mapping[Header, paper_results.Scores]) -> Paper:
    return {(value, paper_results.ITEMS): of_value for value, of_value in scores.items()}


def _table(
    comparison: Comparison,
    name: str,
    title: str,
    axes: tuple[str, ...],
    settings: Sequence[Setting],
    headers: Callable[[Setting], tuple[Header, ...]],
    hidden: Collection[str] = frozenset(),
    paper: Paper | None = None,
) -> Table:
    """Sorts settings into groups, beside the paper's scores."""
    paper = paper or {}
    cells: dict[tuple[Header, ...], list[Setting]] = {group: [] for group in paper}
    for setting in settings:
        cells.setdefault(headers(setting), []).append(setting)
    labels = settings_lib.labels(settings, hidden)
    shared = _rules(settings)
    if len(shared) > 1:
        shared = []
    return Table(
        name=name,
        title=title,
        axes=axes,
        groups=[
            Group(
                group,
                paper.get(group, _NO_SCORES),
                settings=sorted(cells[group], key=labels.__getitem__),
                rules=[] if shared else _rules(cells[group]),
            )
            for group in sorted(cells, key=_order)
        ],
        labels=labels,
        counting=comparison.counting,
        rules=shared,
        has_paper=bool(paper),
    )


def _rules(settings: Iterable[Setting]) -> list[Rule]:
    """Returns the rule on what the settings read, once for those that read the same."""
    return list(
        {
            (setting.rule_label, setting.rule["f1"]): Rule(setting.rule_label, setting.rule)
            for setting in settings
        }.values()
    )


def _order(headers: tuple[Header, ...]) -> list[tuple[int, float, str]]:
    """Sorts headers: as the paper does, numbers by size, also within names."""

    def key(header: Header) -> tuple[int, float, str]:
        if header in _ORDER:
            return 0, float(_ORDER.index(header)), ""
        if isinstance(header, int | float):
            return 0, float(header), ""
        return 1, 0.0, re.sub(r"\d+", lambda number: number[0].zfill(12), str(header))

    return [key(header) for header in headers]


def _flat(families: Iterable[Sequence[Setting]]) -> list[Setting]:
    return [setting for family in families for setting in family]
