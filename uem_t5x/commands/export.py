"""`uem-t5x export`: a trained model as files that other programs load."""

import argparse
from pathlib import Path

from uem_t5x.commands import model_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    parser.add_argument("--model-dir", required=True, help="the MODEL_DIR of a training run")
    parser.add_argument("--output", required=True, help="the folder to write; new or empty")
    parser.add_argument(
        "--format",
        required=True,
        choices=("huggingface", "peft", "stablehlo"),
        help="huggingface: the whole language model, LoRA merged into it; peft: what LoRA adds; "
        "stablehlo: programs that answer and embed, for any machine that JAX or XLA runs on",
    )
    parser.add_argument("--step", type=int, help="of the checkpoint; the best one by default")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    from rich.console import Console

    from uem_t5x.answers import export
    from uem_t5x.base.atomic import writing_folder

    output = Path(args.output)
    # Asked before a model is loaded, which takes a while.
    with writing_folder(output, "new or empty folder", lambda _: False, overwrite=False) as folder:
        # Programs answer within the grammar, as the model does; of the others nothing is answered.
        well_formed = None if args.format == "stablehlo" else False
        trained = model_arguments.load_model(args.model_dir, args.step, well_formed)
        export.FORMATS[args.format](trained, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sizes = {path.relative_to(folder): path.stat().st_size for path in files}
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(f"step {trained.step} of {args.model_dir} written to {output}")
    if name := export.undescribed_class(trained):
        console.print(
            f"{export.USER_EMBEDDING} is of {name}: its config.json names "
            "the class and its settings, and not how it computes"
        )
    for path, size in sizes.items():
        console.print(f"  {path}  {size / 1e6:,.2f} MB")
    return 0
