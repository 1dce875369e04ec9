"""`uem-t5x export`: a trained model as files that other programs load.

    OUTPUT/                                     the language model, a folder of Transformers'
    OUTPUT/user_embedding/config.json           sizes, channels, order of concatenation
    OUTPUT/user_embedding/model.safetensors     UEM, task prompts and item table, in T5X's layout
    OUTPUT/user_embedding/movies.parquet        what each row of the item table is

A model that reads its histories in words is its language model, and has no `user_embedding`.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uem_t5x.trained_model import TrainedModel

USER_EMBEDDING = "user_embedding"
FORMAT = "uem-t5x user embedding"
FORMAT_VERSION = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    parser.add_argument("--model-dir", required=True, help="the MODEL_DIR of a training run")
    parser.add_argument("--output", required=True, help="the folder to write; new or empty")
    parser.add_argument("--format", required=True, choices=("huggingface",))
    parser.add_argument("--step", type=int, help="of the checkpoint; the best one by default")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    from rich.console import Console

    from uem_t5x.atomic import writing_folder
    from uem_t5x.trained_model import TrainedModel

    output = Path(args.output)
    # Asked before a model is loaded, which takes a while.
    with writing_folder(output, "new or empty folder", lambda _: False, overwrite=False) as folder:
        trained = TrainedModel.load(args.model_dir, args.step)
        export_huggingface(trained, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sizes = {path.relative_to(folder): path.stat().st_size for path in files}
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(f"step {trained.step} of {args.model_dir} written to {output}")
    for name, size in sizes.items():
        console.print(f"  {name}  {size / 1e6:,.2f} MB")
    return 0


def export_huggingface(trained: "TrainedModel", folder: Path) -> None:
    """Writes a trained model's language model for Transformers, and its UEM beside it.

    Args:
      trained: the model.
      folder: where to write; it is created.

    Raises:
      InputError: if the language model is neither a T5 1.1 nor a LongT5.
    """
    from uem_t5x import huggingface, network

    vocabulary = trained.model.output_vocabulary
    huggingface.write_language_model(
        folder,
        trained.model.module.config,
        {name: trained.params[name] for name in network.LANGUAGE_MODEL},
        sentencepiece_model=vocabulary.sentencepiece_model_file,
        extra_ids=vocabulary.extra_ids,
        max_new_tokens=trained.feature_lengths["targets"],
    )
    if trained.reads_embeddings:
        _write_user_embedding(trained, folder / USER_EMBEDDING)


def _write_user_embedding(trained: "TrainedModel", folder: Path) -> None:
    import json

    import numpy as np
    from flax import traverse_util
    from safetensors.numpy import save_file

    from uem_t5x import network
    from uem_t5x.data.dataset_folder import MOVIES
    from uem_t5x.user_embedding import ITEM_TABLE

    folder.mkdir(parents=True)
    params = {
        name: values
        for name, values in trained.params.items()
        if name not in network.LANGUAGE_MODEL
    }
    tensors = traverse_util.flatten_dict(params, sep="/")
    table = trained.flax_mutables[ITEM_TABLE][ITEM_TABLE]
    tensors |= {f"{ITEM_TABLE}/{channel}": values for channel, values in table.items()}
    # safetensors writes memory as it lies.
    arrays = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    save_file(arrays, folder / "model.safetensors")
    fields = json.dumps(_user_embedding_config(trained), indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(fields + "\n", encoding="utf-8")
    (trained.catalogue.path / MOVIES).copy(folder / MOVIES.name)


def _user_embedding_config(trained: "TrainedModel") -> dict[str, Any]:
    """Returns all that it takes, beside the tensors, to compute a soft prompt elsewhere."""
    from uem_t5x import layers

    module = trained.model.module
    config = module.user_embedding_config
    width = sum(channel.width for channel in module.channels)
    encoder = config.encoder_config(width)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "step": trained.step,
        "task": trained.task,
        # Along the encoder's positions; the history oldest first, masked where it is padding.
        "encoder_input": ["task_prompt", "history", "text"],
        "prompt_length": module.prompt_length,
        "history_length": trained.history_length,
        "embed_dim": module.config.emb_dim,
        # An item's vector: of each channel in turn the row that `index` selects, times `scaling`.
        # Half-star ratings 1..10 are rows of a rating channel. Row 0 is padding.
        "channels": [
            {
                "name": channel.name,
                "tensor": f"item_table/{channel.name}",
                "index": channel.index,
                "width": channel.width,
                "scaling": channel.width**0.5,
            }
            for channel in module.channels
        ],
        # A T5 1.1 encoder over those vectors, then `user_embedding/projection/kernel`.
        "encoder": {
            "width": width,
            "num_layers": encoder.num_encoder_layers,
            "num_heads": encoder.num_heads,
            "head_dim": encoder.head_dim,
            "mlp_dim": encoder.mlp_dim,
            "mlp_activations": list(encoder.mlp_activations),
            "relative_attention_num_buckets": layers.RelativePositionBias.num_buckets,
            "relative_attention_max_distance": layers.RelativePositionBias.max_distance,
            "layer_norm_epsilon": layers.RMSNorm.epsilon,
        },
        "kernel_layout": "[in, out]",
        "sentence_encoder": {
            "name": trained.catalogue.encoder.name,
            "width": trained.catalogue.encoder.width,
        },
        "genres": list(trained.catalogue.genres),
    }
