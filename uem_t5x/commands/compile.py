"""`uem-t5x compile`: compiles a recipe for TPUs that are not there, and tells what it would take.

    uem-t5x compile --gin_file=gin/uem_flan_t5_large.gin --topology v3-8 v4-8

The real training step, or the real generation, goes through the TPU's own compiler (libtpu), which
says how much memory each device needs and what it computes and moves in a step. Times are those of
a device that is never idle: a real one is slower. No data, vocabulary or checkpoint is read.
"""

import argparse
import dataclasses
import json
import sys

from uem_t5x.base import atomic
from uem_t5x.tpu import topologies
from uem_t5x.tpu.rows import PREDICT, TRAIN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    parser.add_argument(
        "--gin_file", action="append", required=True, help="a recipe, such as gin/uem_tiny.gin"
    )
    parser.add_argument(
        "--topology",
        nargs="+",
        required=True,
        metavar="NAME",
        help="Cloud TPUs, such as v3-8, v4-32 or v5litepod-16",
    )
    parser.add_argument("--what", default=TRAIN, choices=(TRAIN, PREDICT))
    parser.add_argument("--json", metavar="FILE", help="write JSON there; - for standard output")
    parser.epilog = "--gin.NAME=VALUE sets a macro of the recipe. DATA_DIR is not needed."
    parser.set_defaults(gin_macros=[])


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    chosen = [topologies.topology(name) for name in args.topology]
    if args.json and args.json != "-":
        atomic.check_file(args.json)
    topologies.check_libtpu()
    topologies.set_environment()

    from rich.console import Console

    from uem_t5x.commands import compile_tables
    from uem_t5x.runs import recipes
    from uem_t5x.tpu import compiling
    from uem_t5x.tpu.recipe import recipe

    watch = Console(stderr=True)
    _, bindings, _ = recipes.split_arguments(args.gin_macros)
    rows = []
    with recipe(args.gin_file, bindings) as arguments:
        for topology in chosen:  # before minutes go into the first of them
            compiling.check(arguments, topology, args.what)
        for topology in chosen:
            with watch.status(f"compiling for {topology.name}, which may take minutes"):
                rows.append(compiling.compile_for(arguments, topology, args.what))
    if args.json:
        result = {"recipe": args.gin_file, "macros": bindings, "what": args.what}
        result["rows"] = [dataclasses.asdict(row) for row in rows]
        text = json.dumps(result, indent=2) + "\n"
        if args.json == "-":
            sys.stdout.write(text)
        else:
            atomic.write_text(args.json, text)
    if args.json != "-":
        # A table that goes through a pipe is cut to 80 columns otherwise.
        compile_tables.show(rows, Console(width=None if sys.stdout.isatty() else 160))
    return 0
