"""A trained model as files that other programs load.

    OUTPUT/                                     the language model, a folder of Transformers'
    OUTPUT/user_embedding/config.json           sizes, channels, order of concatenation
    OUTPUT/user_embedding/model.safetensors     UEM, task prompts and item table, in T5X's layout
    OUTPUT/user_embedding/movies.parquet        what each row of the item table is

A model that reads its histories in words is its language model, and has no `user_embedding`. If
that is of a class of one's own, its `config.json` names the class and what gin binds, and says
nothing of how it computes. What these files do not hold is refused by name.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from uem_t5x.base.errors import InputError

if TYPE_CHECKING:
    from uem_t5x.answers.trained_model import TrainedModel
    from uem_t5x.network.types import PyTree

USER_EMBEDDING = "user_embedding"
_SOFT_PROMPT = (USER_EMBEDDING, "task_prompt")  # modules beside those of the language model
FORMAT = "uem-t5x user embedding"
FORMAT_VERSION = 1


def export_huggingface(trained: "TrainedModel", folder: Path) -> None:
    """Writes a trained model's language model for Transformers, and its UEM beside it.

    Args:
      trained: the model.
      folder: where to write; it is created.

    Raises:
      InputError: if the language model is neither a T5 1.1 nor a LongT5, or the model has parts
        that these files do not hold.
    """
    from uem_t5x import network
    from uem_t5x.checkpoints import huggingface

    _check_language_model(trained)
    fields = _user_embedding_config(trained) if trained.reads_embeddings else None
    vocabulary = trained.model.output_vocabulary
    huggingface.write_language_model(
        folder,
        trained.model.module.config,
        {name: trained.params[name] for name in network.LANGUAGE_MODEL},
        sentencepiece_model=vocabulary.sentencepiece_model_file,
        extra_ids=vocabulary.extra_ids,
        max_new_tokens=trained.feature_lengths["targets"],
    )
    if fields is not None:
        _write_user_embedding(trained, fields, folder / USER_EMBEDDING)


def undescribed_class(trained: "TrainedModel") -> str | None:
    """Returns a class of one's own, which the files name and do not describe; None if ours."""
    described = not trained.reads_embeddings or _is_ours(trained)
    return None if described else _name(type(trained.model.module))


def _check_language_model(trained: "TrainedModel") -> None:
    """Refuses a network that is no T5 which reads a soft prompt or nothing but text."""
    from flax import traverse_util

    from uem_t5x import network
    from uem_t5x.checkpoints import huggingface
    from uem_t5x.network import layers
    from uem_t5x.network.user_embedding import ITEM_TABLE

    module = trained.model.module
    # Before its parts are asked for: a network that wraps another one has none.
    kept = (*network.LANGUAGE_MODEL, *(_SOFT_PROMPT if trained.reads_embeddings else ()))
    names = traverse_util.flatten_dict(trained.params, sep="/")
    others = [name for name in names if name.partition("/")[0] not in kept]
    variables = traverse_util.flatten_dict(trained.flax_mutables, sep="/")
    others += [name for name in variables if name.partition("/")[0] != ITEM_TABLE]
    if others:
        raise InputError(
            f"{_name(type(module))}: {len(others)} parameters belong neither to a T5 nor to a user "
            f"embedding, and would be left out: {huggingface.shown(others)}; merge what adapts the "
            f"language model into its own parameters, and have what makes the soft prompt in "
            f"{' or '.join(_SOFT_PROMPT)}"
        )
    is_ours = type(module) is network.Transformer
    if not (is_ours or (trained.reads_embeddings and _decodes_as_t5(type(module)))):
        raise InputError(
            f"{_name(type(module))}: this class may compute something else than Transformers "
            f"would; export a model of {_name(network.Transformer)}, or of one derived from "
            "PersonalizedTransformer that makes another soft prompt"
        )
    parts = {
        "token_embedder": layers.Embed,
        "encoder": network.Encoder,
        "decoder": network.Decoder,
    }
    with trained.current():
        bound = module.bind({"params": trained.params, **trained.flax_mutables})
        found = {name: type(getattr(bound, name, None)) for name in parts}
    for name, expected in parts.items():
        if found[name] is not expected:
            raise InputError(
                f"{_name(type(module))}: its {name} is of the class {_name(found[name])}, of which "
                f"Transformers knows nothing; export a model with {_name(expected)}"
            )


def _decodes_as_t5(cls: type) -> bool:
    from uem_t5x import network

    return getattr(cls, "decode", None) is network.Transformer.decode


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _write_user_embedding(trained: "TrainedModel", fields: dict[str, Any], folder: Path) -> None:
    import json

    import numpy as np
    from flax import traverse_util
    from safetensors.numpy import save_file

    from uem_t5x.data.dataset_folder import MOVIES
    from uem_t5x.network.user_embedding import ITEM_TABLE

    folder.mkdir(parents=True)
    tensors = traverse_util.flatten_dict(_soft_prompt(trained), sep="/")
    tensors |= traverse_util.flatten_dict(trained.flax_mutables.get(ITEM_TABLE, {}), sep="/")
    # safetensors writes memory as it lies.
    arrays = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    save_file(arrays, folder / "model.safetensors")
    text = json.dumps(fields, indent=2, ensure_ascii=False, default=repr)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    (trained.catalogue.path / MOVIES).copy(folder / MOVIES.name)


def _soft_prompt(trained: "TrainedModel") -> "PyTree":
    return {name: trained.params[name] for name in _SOFT_PROMPT if name in trained.params}


def _user_embedding_config(trained: "TrainedModel") -> dict[str, Any]:
    """Returns all that is known, beside the tensors, of how to compute a soft prompt elsewhere."""
    from uem_t5x.runs import recipes

    module = trained.model.module
    fields = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "step": trained.step,
        "task": trained.task,
        "embed_dim": module.config.emb_dim,
    }
    if _is_ours(trained):
        fields |= _how_it_computes(trained)
    else:
        settings = recipes.settings_bound(trained.settings)
        fields |= {"class": _name(type(module)), "settings": settings}
    return {
        **fields,
        "sentence_encoder": {
            "name": trained.catalogue.encoder.name,
            "width": trained.catalogue.encoder.width,
        },
        "genres": list(trained.catalogue.genres),
    }


def _is_ours(trained: "TrainedModel") -> bool:
    """Says whether the soft prompt is what `PersonalizedTransformer` itself makes of a history."""
    from uem_t5x.network.user_embedding import PersonalizedTransformer, UserEmbeddingConfig

    module = trained.model.module
    is_ours = type(module) is PersonalizedTransformer
    return is_ours and type(module.user_embedding_config) is UserEmbeddingConfig


def _how_it_computes(trained: "TrainedModel") -> dict[str, Any]:
    """Returns what it takes, beside the tensors, to compute our own soft prompt.

    Raises:
      InputError: if it has other parameters.
    """
    from flax import traverse_util

    from uem_t5x.checkpoints import huggingface
    from uem_t5x.network import layers

    module = trained.model.module
    config = module.user_embedding_config
    width = sum(channel.width for channel in module.channels)
    encoder = config.encoder_config(width)
    stack = {"encoder": trained.params[USER_EMBEDDING].get("encoder", {})}
    problems = huggingface.parameter_problems(encoder, stack)
    problems += [
        f"{name} is unexpected"
        for name in traverse_util.flatten_dict(_soft_prompt(trained), sep="/")
        if not name.startswith(f"{USER_EMBEDDING}/encoder/")
        and name not in (f"{USER_EMBEDDING}/projection/kernel", "task_prompt/embedding")
    ]
    if problems:
        raise InputError(
            f"{USER_EMBEDDING}: {len(problems)} parameters are not those of {_name(type(module))}: "
            f"{huggingface.shown(problems)}; derive a class from it that has them"
        )
    return {
        # Along the encoder's positions; the history oldest first, masked where it is padding.
        "encoder_input": ["task_prompt", "history", "text"],
        "prompt_length": module.prompt_length,
        "history_length": trained.history_length,
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
    }
