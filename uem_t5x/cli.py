"""The `uem-t5x` command.

Every subcommand is a module of `uem_t5x.commands` with two functions: `add_arguments(parser)` and
`run(args) -> int`. Modules are imported when their subcommand is called, and import TensorFlow and
JAX only inside `run`, so that help starts at once.
Training has a command line of its own, which is T5X's.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.pop(0)  # the current folder, from which nothing is imported unasked

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from uem_t5x.base.errors import exit_code
from uem_t5x.base.version import VERSION

_TRAIN = "train"
# Those whose recipe, or encoder, may be of a module of the current folder.
_IMPORT_FROM_HERE = {_TRAIN, "prepare", "evaluate", "predict", "embed", "export", "compile"}
# Each is a module of `uem_t5x.commands`. One line of help:
COMMANDS = {
    "synthesize": "write a MovieLens-shaped folder with made-up users",
    "prepare": "turn tables of items and histories into a dataset folder",
    "channel": "add vectors of items to a dataset folder, such as those of pictures",
    "seal": "accept a dataset folder as it is after a change by hand",
    _TRAIN: "train a model, as `python -m uem_t5x.train` does",
    "evaluate": "score a trained model beside the baselines",
    "predict": "write the tastes of users given as JSON lines",
    "embed": "write the vectors of users, the soft prompts that the model reads",
    "sweep": "train and score a list of runs, going on where it was stopped",
    "report": "draw up a page from trained and scored runs",
    "compile": "tell what a recipe takes on TPUs that are not there",
    "export": "write a trained model as files that Transformers loads",
    "quickstart": "go the whole way on made-up users, in a few minutes on a laptop",
}


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Returns the parser; only `command`'s own arguments are filled in."""
    parser = argparse.ArgumentParser(
        prog="uem-t5x", description="The User Embedding Module for personalised language prompting."
    )
    parser.add_argument("--version", action="version", version=f"uem-t5x {VERSION}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == command != _TRAIN:
            _module(name).add_arguments(subparser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Returns:
        The exit code: 0 for success, 2 where `predict` refused some of the input and answered the
        rest; see `errors.exit_code` for those of errors.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    command = argv[0] if argv and argv[0] in COMMANDS else None
    if command in _IMPORT_FROM_HERE and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # after all that is installed
    if command == _TRAIN:
        return _module(command).main(argv[1:], "uem-t5x train")
    return exit_code(f"uem-t5x {command}", lambda: _run(argv, command))


def _run(argv: Sequence[str], command: str | None) -> int:
    parser = build_parser(command)
    # A recipe's, which no parser can list; one that holds a space would pass for a value.
    macros = [argument for argument in argv if argument.startswith("--gin.")]
    args, others = parser.parse_known_args([other for other in argv if other not in macros])
    if "gin_macros" in args:
        args.gin_macros = macros
    else:
        others += macros
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    return _module(args.command).run(args)


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"uem_t5x.commands.{command}")


if __name__ == "__main__":
    sys.exit(main())
