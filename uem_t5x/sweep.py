"""`uem-t5x sweep`: trains and scores a list of runs, and goes on where it was stopped.

    uem-t5x sweep gin/sweeps/paper.toml --output runs/paper --gin.DATA_DIR=runs/movielens

A sweep is a TOML file. Each `[[runs]]` names recipes and macros; a macro with a list of values
gives a run for each of them, in all combinations, for each of the seeds. A recipe of `gin/` goes by
its name, another one by its path (`my_recipe.gin`); a parameter that no macro sets is written in
quotes (`macros."network.T5Config.num_heads" = [4, 8]`):

    seeds = [0, 1, 2]

    [[runs]]
    recipes = ["uem_flan_t5_base", "uem_flan_t5_large"]
    macros.HISTORY_LENGTH = [5, 20, 50]

    [recipes.uem_flan_t5_base]  # macros of all runs of a recipe
    INITIAL_CHECKPOINT_PATH = "flan-t5-base"

What several `[[runs]]` ask for is run once. Each run is two commands of its own, so that one that
fails takes nothing with it.
"""

import argparse
import ctypes
import dataclasses
import itertools
import json
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from uem_t5x import buckets, gin_utils
from uem_t5x.errors import InputError

_KEYS = {"seeds", "runs", "recipes"}
_RUN_KEYS = {"recipes", "macros"}
_SEED, _FOLDER = "RANDOM_SEED", "MODEL_DIR"
_OF_THE_SWEEP = {_SEED: "list seeds = [0, 1, 2]", _FOLDER: "give --output"}
_PR_SET_PDEATHSIG = 1  # of Linux' <sys/prctl.h>
# Loaded before it is needed, which is between a fork and the program it is for.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    parser.add_argument("sweep", help="a list of runs, such as gin/sweeps/paper.toml")
    parser.add_argument("--output", required=True, help="a folder that gets a MODEL_DIR a run")
    parser.add_argument(
        "--print-commands",
        action="store_true",
        help="do not run; print a line of shell for each run that is not finished",
    )
    parser.epilog = "--gin.NAME=VALUE sets a macro of all runs, such as --gin.DATA_DIR=FOLDER."
    parser.set_defaults(gin_macros=[])


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    _, bindings, _ = gin_utils.split_arguments(args.gin_macros)
    runs = read_sweep(args.sweep, args.output, bindings)
    unfinished = [planned for planned in runs if not planned.is_finished()]
    if args.print_commands:
        for planned in unfinished:
            print(_writable(planned.shell_line()))
        return 0
    if buckets.is_remote(args.output):
        raise InputError(f"--output {args.output}: give a local folder, or --print-commands")
    return _run_all(runs, unfinished, args.output)


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep.

    Attributes:
      name: of its folder: the recipe, the macros of its own, the seed.
      model_dir: where it goes.
      recipe: such as `gin/uem_tiny.gin`.
      bound: macros that are bound beside the recipe, as gin literals.
      macros: the values of all macros.
    """

    name: str
    model_dir: str
    recipe: str
    bound: Mapping[str, str]
    macros: Mapping[str, Any]

    @property
    def metrics_file(self) -> str:
        """Where its scores go; it is finished once they are there."""
        return f"{self.model_dir}/metrics.json"

    def is_finished(self) -> bool:
        """Says whether the run is done.

        Raises:
          InputError: if its folder holds a run with other macros.
        """
        recipe = epath.Path(self.model_dir) / "config.gin"
        if not recipe.is_file():
            return False
        if others := gin_utils.other_macros(recipe, self.macros):
            raise InputError(
                f"{self.model_dir}: holds a run with {others}; give another --output, or delete it"
            )
        return epath.Path(self.metrics_file).is_file()

    def commands(self) -> list[list[str]]:
        """Returns the arguments of the commands that train and score, one after the other."""
        bound = {**self.bound, _FOLDER: repr(self.model_dir)}
        macros = [f"--gin.{name}={_for_shell(literal)}" for name, literal in bound.items()]
        train = ["-m", "uem_t5x.train", f"--gin_file={self.recipe}", *macros]
        score = ["-m", "uem_t5x.cli", "evaluate", "--model-dir", self.model_dir]
        return [train, [*score, "--output", self.metrics_file]]

    def shell_line(self) -> str:
        """Returns both commands as one line of shell."""
        return " && ".join(shlex.join(["python", *command]) for command in self.commands())


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
    for seed, entry in itertools.product(sweep.get("seeds", [0]), sweep["runs"]):
        for recipe, chosen in itertools.product(entry["recipes"], _combinations(entry)):
            file = _file(recipe)
            of_all = _literals(of_recipes.get(file, {})) | common
            usual = _bind(path, file, of_all)
            bound = {**of_all, **_literals(chosen), _SEED: str(seed)}
            macros = _bind(path, file, bound)
            if missing := sorted(gin_utils.unbound(macros) - {_FOLDER}):
                raise InputError(f"{path}: {file} needs {missing[0]}; add --gin.{missing[0]}=VALUE")
            # What is so anyway makes no other run.
            special = [name for name in chosen if macros[name] != usual.get(name)]
            name = _name(Path(file).stem, {name: bound[name] for name in special}, seed)
            folder = f"{output.rstrip('/')}/{name}"
            if name in planned and planned[name].macros != macros:
                raise InputError(
                    f"{path}: two runs of {file} would both be {name}, as their macros differ in "
                    "signs that a folder's name leaves out; put them into two sweeps"
                )
            planned[name] = PlannedRun(name, folder, file, bound, macros)
    return list(planned.values())


def _by_file(path: str, sweep: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the macros of each recipe by its file, for `gin/NAME.gin` may be called `NAME`."""
    run = {_file(recipe) for entry in sweep["runs"] for recipe in entry["recipes"]}
    macros: dict[str, Mapping[str, Any]] = {}
    for name, of_recipe in sweep.get("recipes", {}).items():
        file = _file(name)
        gin_utils.read(file)
        if file not in run:
            raise InputError(f"{path}: [recipes.{name}]: no run is of this recipe; leave it out")
        if file in macros:
            raise InputError(f"{path}: {file} has two tables of macros; make them one")
        macros[file] = of_recipe
    return macros


def _read_toml(path: str) -> dict[str, Any]:
    found = next((f for p in gin_utils.SEARCH_PATHS if (f := p / path).is_file()), None)
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


def _bind(path: str, recipe: str, bound: Mapping[str, str]) -> dict[str, Any]:
    """Returns a recipe's macros and what is bound beside it; only macros that it has can be.

    Parameters (`module.function.parameter`) are left to gin, which knows them.
    """
    bindings = [f"{name} = {literal}" for name, literal in bound.items()]
    macros = gin_utils.check_bindings([recipe], bindings, f"{path}: {recipe}")
    return macros | {name: gin_utils.literal_value(literal) for name, literal in bound.items()}


def _name(recipe: str, special: Mapping[str, str], seed: int) -> str:
    parts = [recipe, *(f"{name}={special[name]}" for name in sorted(special)), f"seed={seed}"]
    return "-".join(re.sub(r"[^\w.=]+", "_", part.replace("'", "")) for part in parts)


def _for_shell(literal: str) -> str:
    """Returns a string's literal in double quotes: they need no escape within a shell's own."""
    if literal[0] not in "'\"":
        return literal
    return json.dumps(gin_utils.literal_value(literal), ensure_ascii=False)


def _writable(line: str) -> str:
    """Returns a line of shell that standard output can write letter by letter.

    Raises:
      InputError: if its encoding lacks one: an escape would name another file.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        line.encode(encoding, "surrogateescape")
    except UnicodeEncodeError as error:
        letter = error.object[error.start]
        raise InputError(
            f"--print-commands: standard output is written in {encoding}, which lacks {letter!r}; "
            "set PYTHONIOENCODING=utf-8"
        ) from error
    return line


def _run_all(runs: Sequence[PlannedRun], unfinished: Sequence[PlannedRun], output: str) -> int:
    """Runs what is not finished, one after the other; returns the exit code."""
    from rich.console import Console

    # Being terminated ends the run that is under way too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(markup=False)
    console.print(f"{len(runs)} runs, {len(runs) - len(unfinished)} of them finished already")
    failed = []
    for number, planned in enumerate(unfinished, 1):
        folder = Path(planned.model_dir)
        folder.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with console.status(f"{number} of {len(unfinished)}: {planned.name}"):
            status = _run(planned, folder / "sweep.log")
        minutes = (time.monotonic() - start) / 60
        if status:
            failed.append(planned.name)
            line = f"failed with exit code {status}, see {folder / 'sweep.log'}"
        else:
            methods = json.loads(Path(planned.metrics_file).read_text())["methods"]
            line = f"F1 {next(iter(methods.values()))['f1']:.3f}"
        console.print(f"{planned.name}: {line} ({minutes:.1f} min)", highlight=False)
    if failed:
        console.print(f"{len(failed)} failed; the same command runs them again")
    console.print(f"uem-t5x report {shlex.quote(output)} --output {shlex.quote(output)}/report")
    return 1 if failed else 0


def _run(planned: PlannedRun, log: Path) -> int:
    """Runs the commands of a run; returns the first exit code that is not 0, or 0."""
    for command in planned.commands():
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, *command], stdout=file, stderr=file, preexec_fn=_die_with_parent
            )
            with process:  # leaving waits for it
                try:
                    status = process.wait()
                except BaseException:
                    process.terminate()  # a training saves before it ends
                    raise
        if status:
            return status
    return 0


def _die_with_parent() -> None:
    """Has Linux tell this process to stop when the one that started it is killed."""
    if _LIBC:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
