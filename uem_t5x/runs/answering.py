"""What answering takes of a training recipe: its model, the task it is asked by, their settings.

It is a recipe, too, recorded when a run begins: that of training without `train` and what only
`train` refers to (the trainer, the learning rate, checkpoints, the layout over devices).
"""

from collections.abc import Iterable, Sequence
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

    @property
    def within(self) -> str:
        """The scope as it is referred to; empty without one."""
        return f"{self.scope}/" if self.scope else ""


def of_recipe(text: str, where: str) -> str:
    """Returns the recipe of answering.

    Args:
      text: a recipe as gin writes it, which includes no other.
      where: where it lies, for messages.

    Raises:
      InputError: if it is no training recipe's.
    """
    statements = _statements(text, where)
    trains, *others = {s.about for s in statements if s.parameter == "train_dataset_cfg"} or {""}
    if others:
        raise InputError(f"{where}: two functions train: {trains}, {', '.join(others)}; leave one")
    arguments = {s.parameter: s for s in statements if s.about == trains}
    asked = [arguments[name] for name in _ASKED if name in arguments]
    asked = [argument for argument in asked if argument.value != "None"]
    if "model" not in arguments or not asked:
        raise InputError(f"{where}: not the recipe of a training run: `train` gets no model")
    model, dataset_cfg = arguments["model"], asked[0]

    rest = [s for s in statements if s.about not in (trains, "__main__")]
    of_training = _reached(_referred(arguments.values()), rest)
    # What nothing of training refers to, a task's steps may read.
    by_itself = [s for s in rest if s.about not in of_training]
    kept = _reached(_referred([model, dataset_cfg, *by_itself]), rest)
    unused = of_training - kept
    chosen = [s.lines for s in rest if s.about not in unused and s.within not in unused]
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
        macro = recipe_text.macro_name(statement)
        statements.append(
            _Statement(
                own.strip() + "\n",
                f"%{macro}" if macro else statement.selector,
                "" if macro else statement.arg_name,
                "" if macro else statement.scope,
                own.partition("=")[2].strip().removeprefix("\\").strip(),
                refers_to,
            )
        )
    return statements


def _referred(statements: Iterable[_Statement]) -> frozenset[str]:
    return frozenset().union(*(statement.refers_to for statement in statements))


def _reached(roots: frozenset[str], statements: Sequence[_Statement]) -> frozenset[str]:
    """Returns what roots refer to, and what that does, with the roots."""
    reached = roots
    while True:
        found = [s for s in statements if s.about in reached and s.within in {"", *reached}]
        if (more := reached | _referred(found)) == reached:
            return reached
        reached = more
