"""A trained model as files that other programs load.

    OUTPUT/                                     the language model, a folder of Transformers'
    OUTPUT/user_embedding/config.json           sizes, channels, order of concatenation
    OUTPUT/user_embedding/model.safetensors     UEM, task prompts and item table, in T5X's layout
    OUTPUT/user_embedding/movies.parquet        what each row of the item table is

With LoRA, what it adds is added to the weights; or it is written alone, as PEFT keeps it:

    OUTPUT/adapter_config.json, adapter_model.safetensors

A model that reads its histories in words is its language model, and has no `user_embedding`. A soft
prompt of one's own is described by its class: by default its `config.json` names the class and its
settings, and says nothing of how it computes. What these files do not hold is refused by name.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from uem_t5x.base.errors import InputError

if TYPE_CHECKING:
    from uem_t5x.answers.trained_model import TrainedModel

USER_EMBEDDING = "user_embedding"
FORMAT = "uem-t5x user embedding"
FORMAT_VERSION = 1


def export_huggingface(trained: "TrainedModel", folder: Path) -> None:
    """Writes a trained model's language model for Transformers, and its soft prompt beside it.

    Args:
      trained: the model.
      folder: where to write; it is created.

    Raises:
      InputError: if the language model is neither a T5 1.1 nor a LongT5, or the model has parts
        that these files do not hold.
    """
    from uem_t5x.checkpoints import huggingface
    from uem_t5x.network import lora, parameters

    _check_holds_all(trained)
    soft_prompt, language_model = parameters.split(trained.params, parameters.soft_prompt_alone)
    language_model = lora.merge(language_model, trained.model.module.config.lora)
    vocabulary = trained.model.output_vocabulary
    huggingface.write_language_model(
        folder,
        trained.model.module.config,
        language_model,
        sentencepiece_model=vocabulary.sentencepiece_model_file,
        extra_ids=vocabulary.extra_ids,
        max_new_tokens=trained.feature_lengths["targets"],
    )
    if trained.model.module.soft_prompt is not None:
        _write_soft_prompt(trained, soft_prompt, folder / USER_EMBEDDING)


def export_peft(trained: "TrainedModel", folder: Path) -> None:
    """Writes what LoRA adds to a model's language model for PEFT, and its soft prompt beside it.

    The language model itself is the one that training started from.

    Args:
      trained: the model.
      folder: where to write; it is created.

    Raises:
      InputError: if the model was trained without LoRA, or has parts that these files do not hold.
    """
    from uem_t5x.checkpoints import peft
    from uem_t5x.network import parameters

    _check_holds_all(trained)
    soft_prompt, language_model = parameters.split(trained.params, parameters.soft_prompt_alone)
    peft.write_adapter(folder, trained.model.module.config, language_model)
    if trained.model.module.soft_prompt is not None:
        _write_soft_prompt(trained, soft_prompt, folder / USER_EMBEDDING)


def export_stablehlo(trained: "TrainedModel", folder: Path) -> None:
    """Writes a model as programs; see `stablehlo.export_stablehlo`."""
    from uem_t5x.answers import stablehlo

    stablehlo.export_stablehlo(trained, folder)


FORMATS = {
    "huggingface": export_huggingface,
    "peft": export_peft,
    "stablehlo": export_stablehlo,
}


def undescribed_class(trained: "TrainedModel") -> str | None:
    """Returns a class of one's own, which the files name and do not describe; None if ours."""
    soft_prompt = trained.model.module.soft_prompt
    return None if soft_prompt is None else soft_prompt.describe().get("class")


def _check_holds_all(trained: "TrainedModel") -> None:
    """Refuses a network that is no T5, or has frozen variables besides an item table."""
    from flax import traverse_util

    from uem_t5x import network
    from uem_t5x.checkpoints import huggingface
    from uem_t5x.network.item_table import ITEM_TABLE

    cls = type(trained.model.module)
    if cls is not network.Transformer:
        raise InputError(
            f"{cls.__module__}.{cls.__qualname__}: this class may compute something else than "
            "Transformers would; export a network.Transformer, whose soft prompt may be of any "
            "class, and merge what adapts its language model into the language model's parameters"
        )
    variables = traverse_util.flatten_dict(trained.flax_mutables, sep="/")
    others = [name for name in variables if name.partition("/")[0] != ITEM_TABLE]
    if others:
        raise InputError(
            f"{len(others)} variables belong neither to parameters nor to an item table, and would "
            f"be left out: {huggingface.shown(others)}; have them among the soft prompt's "
            "parameters, or in its item table"
        )


def _write_soft_prompt(trained: "TrainedModel", params: Any, folder: Path) -> None:
    import json

    import numpy as np
    from flax import traverse_util
    from safetensors.numpy import save_file

    from uem_t5x.data.dataset_folder import MOVIES
    from uem_t5x.network.item_table import ITEM_TABLE

    folder.mkdir(parents=True)
    tensors = traverse_util.flatten_dict(params, sep="/")
    tensors |= traverse_util.flatten_dict(trained.flax_mutables.get(ITEM_TABLE, {}), sep="/")
    # safetensors writes memory as it lies.
    arrays = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    save_file(arrays, folder / "model.safetensors")
    module, encoder = trained.model.module, trained.catalogue.encoder
    fields = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "step": trained.step,
        "task": trained.task,
        "embed_dim": module.config.emb_dim,
        "history_length": trained.history_length,
        **module.soft_prompt.describe(),
        "sentence_encoder": {"name": encoder.name, "width": encoder.width},
        "genres": list(trained.catalogue.genres),
    }
    text = json.dumps(fields, indent=2, ensure_ascii=False, default=_as_json)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    (trained.catalogue.path / MOVIES).copy(folder / MOVIES.name)


def _as_json(value: Any) -> Any:
    """Returns a setting that JSON has no form for: a dataclass by its fields, others by name."""
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return getattr(value, "__name__", repr(value))
