"""The file of a sweep, a list of runs over recipes and macros: read into the runs that it means."""

import functools
import itertools
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from uem_t5x.base.errors import InputError
from uem_t5x.runs import recipe_text, recipes
from uem_t5x.runs.planned_runs import FOLDER, PlannedRun

_KEYS = {"seeds", "runs", "recipes"}
_RUN_KEYS = {"recipes", "macros"}
_SEED = "RANDOM_SEED"
_OF_THE_SWEEP = {_SEED: "list seeds = [0, 1, 2]", FOLDER: "give --output"}


def read_sweep(path: str, output: str, bindings: Sequence[str] = ()) -> list[PlannedRun]:
    """Reads a sweep.

    Args:
      path: a TOML file; `gin/sweeps/NAME.toml` is found from any folder.
      output: the folder of the runs' folders.
      bindings: lines of gin for all runs, such as `DATA_DIR = 'runs/movielens'`.

    Returns:
      The runs, those of the first seed first.

    Raises:
      InputError: a file that cannot be read, a recipe or a macro that there is not, one that is
        left unbound, or is bound both by `bindings` and for some runs, or two runs of one name.
    """
    sweep = _read_toml(path)
    common = dict(binding.split(" = ", 1) for binding in bindings)
    _check_names("--gin", common)
    of_runs = {name for entry in sweep["runs"] for name in entry.get("macros", {})}
    if twice := sorted(of_runs & common.keys()):
        raise InputError(f"--gin.{twice[0]}: {path} has runs that set it; change it there")
    of_recipes = _by_file(path, sweep)
    planned: dict[str, PlannedRun] = {}

    def of_all(file: str) -> dict[str, str]:
        return _literals(of_recipes.get(_place(file), {})) | common

    @functools.cache
    def usual(file: str) -> dict[str, Any]:
        macros, _ = _bind(path, file, of_all(file))
        return macros

    for seed, entry in itertools.product(sweep.get("seeds", [0]), sweep["runs"]):
        for recipe, chosen in itertools.product(entry["recipes"], _combinations(entry)):
            file = _file(recipe)
            bound = {**of_all(file), **_literals(chosen), _SEED: str(seed)}
            macros, parameters = _bind(path, file, bound)
            if missing := sorted(recipes.unbound(macros) - {FOLDER}):
                raise InputError(f"{path}: {file} needs {missing[0]}; add --gin.{missing[0]}=VALUE")
            # What is so anyway makes no other run.
            special = [n for n in chosen if n not in macros or macros[n] != usual(file).get(n)]
            name = _name(Path(file).stem, {name: bound[name] for name in special}, seed)
            folder = f"{output.rstrip('/')}/{name}"
            asked = PlannedRun(name, folder, file, bound, macros, parameters)
            _check_is_same(path, planned.setdefault(name, asked), asked)
    return list(planned.values())


def _check_is_same(path: str, first: PlannedRun, second: PlannedRun) -> None:
    """Refuses two runs that are not one, and would go into one folder."""
    if _place(first.recipe) != _place(second.recipe):
        raise InputError(
            f"{path}: runs of {first.recipe} and of {second.recipe} would both be {first.name}; "
            "rename one of the recipes"
        )
    if (first.macros, first.parameters) != (second.macros, second.parameters):
        raise InputError(
            f"{path}: two runs of {first.recipe} would both be {first.name}, as their macros "
            "differ in signs that a folder's name leaves out; put them into two sweeps"
        )


def _by_file(path: str, sweep: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the macros of each recipe by its place, for `gin/NAME.gin` may be called `NAME`."""
    run = {_place(_file(recipe)) for entry in sweep["runs"] for recipe in entry["recipes"]}
    macros: dict[str, Mapping[str, Any]] = {}
    for name, of_recipe in sweep.get("recipes", {}).items():
        file = _file(name)
        place = _place(file)
        if place not in run:
            raise InputError(f"{path}: [recipes.{name}]: no run is of this recipe; leave it out")
        if place in macros:
            raise InputError(f"{path}: {file} has two tables of macros; make them one")
        macros[place] = of_recipe
    return macros


def _read_toml(path: str) -> dict[str, Any]:
    found = next((f for p in recipe_text.SEARCH_PATHS if (f := p / path).is_file()), None)
    if found is None:
        raise InputError(f"{path}: no such sweep; see the folder gin/sweeps/ for those there are")
    try:
        sweep = tomllib.loads(found.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error
    entries = sweep.get("runs")
    if not isinstance(entries, list) or not entries or not all(map(_is_entry, entries)):
        raise InputError(
            f'{path}: needs [[runs]], each with recipes = ["NAME", ...], and macros.NAME = VALUE'
        )
    seeds = sweep.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise InputError(f"{path}: seeds = {seeds!r}: give a list of numbers, such as [0, 1, 2]")
    of_recipes = sweep.get("recipes", {})
    if not isinstance(of_recipes, dict) or not all(
        isinstance(macros, dict) for macros in of_recipes.values()
    ):
        raise InputError(f"{path}: recipes: give tables, [recipes.NAME], with the macros of each")
    of_runs = [entry.get("macros", {}) for entry in entries]
    for macros in (*of_recipes.values(), *of_runs):
        _check_names(path, macros)
    for name in (name for macros in of_runs for name, value in macros.items() if value == []):
        raise InputError(f"{path}: {name} = []: give it a value")
    unknown = sweep.keys() - _KEYS
    unknown |= {key for entry in entries for key in entry.keys() - _RUN_KEYS}
    if unknown:
        raise InputError(f"{path}: unknown keys {', '.join(sorted(unknown))}")
    if not all(entry["recipes"] for entry in entries):
        raise InputError(f"{path}: [[runs]] with recipes = []: name one")
    return sweep


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("macros", {}), dict):
        return False
    recipes = entry.get("recipes")
    return isinstance(recipes, list) and all(isinstance(recipe, str) for recipe in recipes)


def _check_names(where: str, macros: Mapping[str, Any]) -> None:
    """Refuses macros that a sweep itself binds."""
    for name in macros:
        if mend := _OF_THE_SWEEP.get(name):
            raise InputError(f"{where}: {name} is the sweep's own; {mend}")


def _file(recipe: str) -> str:
    return recipe if recipe.endswith(".gin") else f"gin/{recipe}.gin"


def _place(file: str) -> str:
    """Returns what is the same for all ways to write a recipe's path.

    Raises:
      InputError: if there is no such file.
    """
    return os.path.realpath(recipe_text.find(file))


def _combinations(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields every choice of one value a macro; what is no list is one value."""
    choices = {
        name: values if isinstance(values, list) else [values]
        for name, values in entry.get("macros", {}).items()
    }
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values))


def _literals(macros: Mapping[str, Any]) -> dict[str, str]:
    return {name: repr(value) for name, value in macros.items()}


def _bind(
    path: str, recipe: str, bound: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a recipe's macros and parameters with what is bound beside it.

    Only macros that it has can be. Parameters (`module.function.parameter`) are left to gin, which
    knows them.
    """
    bindings = [f"{name} = {literal}" for name, literal in bound.items()]
    recipes.check_bindings([recipe], bindings, f"{path}: {recipe}")
    return recipes.read(recipe, bindings)


def _name(recipe: str, special: Mapping[str, str], seed: int) -> str:
    parts = [recipe, *(f"{name}={special[name]}" for name in sorted(special)), f"seed={seed}"]
    return "-".join(re.sub(r"[^\w.=]+", "_", part.replace("'", "")) for part in parts)
