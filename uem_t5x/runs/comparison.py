"""In what settings a run differs from one that was recorded."""

import os
from collections.abc import Collection, Mapping
from typing import Any

from uem_t5x.runs.recipes import follow, read

# They say where, how often to look, or how to lay a run out, not what was run.
CIRCUMSTANCES = frozenset(
    "MODEL_DIR DATA_DIR SENTENCEPIECE_MODEL_FILE USE_CACHED_TASKS LAYOUT SCAN_LAYERS REMAT_POLICY "  # noqa: SIM905
    "NUM_MICROBATCHES NUM_DATA_SHARDS USE_HARDWARE_RNG EVAL_STEPS EVAL_BATCH_SIZE EVAL_PERIOD "
    "CHECKPOINT_PERIOD CHECKPOINTS_KEPT STATS_PERIOD WELL_FORMED_ANSWERS".split()
)


def other_macros(
    recipe: str | os.PathLike[str], macros: Mapping[str, Any], but: Collection[str] = ()
) -> str | None:
    """Says in what a run differs from one that was recorded.

    Args:
      recipe: of the run that was.
      macros: of the run that is to be. Those that one of the two does not have are not compared:
        they may be of another version.
      but: names that may differ besides `CIRCUMSTANCES`.

    Returns:
      Part of a sentence, such as `A = 1, and not 2, B = 'x', and not 'y'`; None if in nothing.

    Raises:
      InputError: if the recipe cannot be read.
    """
    before, _ = read(recipe)
    compared = sorted(before.keys() & macros.keys() - CIRCUMSTANCES - set(but))
    others = (
        f"{name} = {before[name]!r}, and not {macros[name]!r}"
        for name in compared
        if _without_module(before[name]) != _without_module(macros[name])
    )
    return ", ".join(others) or None


def other_parameters(
    recipe: str | os.PathLike[str],
    macros: Mapping[str, Any],
    parameters: Mapping[str, Any],
    asked_for: Collection[str],
) -> str | None:
    """Says in what parameters, which are no macros, a run differs from one that was recorded.

    Args:
      recipe: of the run that was.
      macros: of the run that is to be.
      parameters: of the run that is to be, as `read` returns them.
      asked_for: those of them that its recipe does not bind by itself. Others that the recorded
        run lacks are not compared: its recipe may be of another version.

    Returns:
      Part of a sentence, as of `other_macros`; None if in nothing.

    Raises:
      InputError: if the recipe cannot be read.
    """
    macros_before, parameters_before = read(recipe)
    before, now = _by_own_name(parameters_before), _by_own_name(parameters)

    def is_same(own_name: str) -> bool:
        if own_name not in before or own_name not in now:
            return False
        (_, old), (_, new) = before[own_name], now[own_name]
        # Where both are the same macro, the macro is what is compared.
        return _without_module(old) == _without_module(new) or (
            _without_module(follow(old, macros_before)) == _without_module(follow(new, macros))
        )

    compared = before.keys() | (now.keys() & _by_own_name(dict.fromkeys(asked_for)).keys())
    others = []
    for own_name in sorted(name for name in compared if not is_same(name)):
        name, _ = before.get(own_name) or now[own_name]
        was, is_to_be = (
            repr(bound[own_name][1]) if own_name in bound else "its default"
            for bound in (before, now)
        )
        others.append(f"{name} = {was}, and not {is_to_be}")
    return ", ".join(others) or None


def _by_own_name(parameters: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Returns names and values of parameters by `scope/function.parameter`.

    How much gin says of the module depends on the imports, and modules have moved.
    """
    by_own_name = {}
    for name, value in parameters.items():
        scope, slash, selector = name.rpartition("/")
        by_own_name[scope + slash + ".".join(selector.split(".")[-2:])] = name, value
    return by_own_name


def _without_module(value: Any) -> Any:
    """Returns a value; of a function its own name, as how much gin says depends on the imports."""
    if isinstance(value, str) and value.startswith("@"):
        scope, slash, selector = value[1:].rpartition("/")
        return f"@{scope}{slash}{selector.rpartition('.')[2]}"
    if isinstance(value, list | tuple):
        return type(value)(map(_without_module, value))
    if isinstance(value, dict):
        return {key: _without_module(part) for key, part in value.items()}
    return value
