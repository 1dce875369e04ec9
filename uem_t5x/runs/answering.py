"""What answering takes of a training recipe: its model, the task it is asked by, their settings.

It is a recipe, too, recorded when a run begins: that of training without `train` and what only
`train` refers to (the trainer, the learning rate, checkpoints, the layout over devices).
"""

import collections
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gin import config_parser

from uem_t5x.base.errors import InputError
from uem_t5x.runs import recipe_text
from uem_t5x.runs.recipe_text import AsText

_ASKED = ("infer_eval_dataset_cfg", "train_eval_dataset_cfg", "train_dataset_cfg")
_ENGINE = "from uem_t5x import engine\n"


class _Statement(NamedTuple):
    """A line of a recipe, or several.

    Attributes:
      lines: its text.
      about: what it binds: a macro, `%NAME`, or the parameter's function or class; of an import,
        the module.
      parameter: of a function or class.
      scope: of the parameter.
      value: as it is written.
      refers_to: what the value refers to: macros, functions and classes, scopes (`name/`).
    """

    lines: str
    about: str
    parameter: str = ""
    scope: str = ""
    value: str = ""
    refers_to: frozenset[str] = frozenset()


def of_recipe(text: str, where: str) -> str:
    """Returns the recipe of answering.

    Args:
      text: a recipe as gin writes it, which includes no other.
      where: where it lies, for messages.

    Raises:
      InputError: if it is no training recipe's.
    """
    statements = _statements(text, where)
    (trains,) = {s.about for s in statements if s.parameter == "train_dataset_cfg"} or {""}
    arguments = {s.parameter: s for s in statements if s.about == trains}
    asked = [arguments[name] for name in _ASKED if name in arguments]
    asked = [argument for argument in asked if argument.value != "None"]
    if "model" not in arguments or not asked:
        raise InputError(f"{where}: not the recipe of a training run: `train` gets no model")
    model, dataset_cfg = arguments["model"], asked[0]

    referred = collections.defaultdict(set)
    for statement in statements:
        if statement.about != trains:
            referred[statement.about] |= statement.refers_to
    kept = _reached(model.refers_to | dataset_cfg.refers_to, referred)
    of_training = _reached(frozenset().union(*(s.refers_to for s in arguments.values())), referred)
    unused = of_training - kept
    chosen = [
        statement.lines
        for statement in statements
        if statement.about not in {trains, "__main__"} | unused
        and not (statement.scope and f"{statement.scope}/" in unused)
    ]
    if _ENGINE not in chosen:
        chosen.insert(1, _ENGINE)  # behind the line that has gin register what it is shown
    return (
        "".join(chosen)
        + f"engine.answering.model = {model.value}\n"
        + f"engine.answering.dataset_cfg = {dataset_cfg.value}\n"
    )


def _statements(text: str, where: str) -> list[_Statement]:
    references = AsText()
    parsed = []
    with recipe_text.refusing(where):
        for statement in config_parser.ConfigParser(text, references):
            parsed.append((statement, references.take()))
    lines = text.splitlines(keepends=True)
    starts = [statement.location.line_num - 1 for statement, _ in parsed]
    statements = []
    for (statement, refers_to), start, end in zip(parsed, starts, [*starts[1:], len(lines)]):
        own = "".join(line for line in lines[start:end] if not line.startswith("#"))
        if not isinstance(statement, config_parser.BindingStatement):
            statements.append(_Statement(own.strip() + "\n", statement.module))
            continue
        is_macro = not statement.arg_name
        statements.append(
            _Statement(
                own.strip() + "\n",
                f"%{statement.selector}" if is_macro else statement.selector,
                statement.arg_name or "",
                statement.scope or "",
                own.partition("=")[2].strip().removeprefix("\\").strip(),
                refers_to,
            )
        )
    return statements


def _reached(roots: Iterable[str], referred: Mapping[str, set[str]]) -> frozenset[str]:
    """Returns what roots refer to, and what that does, with the roots."""
    reached: set[str] = set()
    left = list(roots)
    while left:
        if (node := left.pop()) not in reached:
            reached.add(node)
            left.extend(referred.get(node, ()))
    return frozenset(reached)
