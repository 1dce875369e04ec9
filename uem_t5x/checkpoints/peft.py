"""LoRA as Hugging Face PEFT keeps it: `adapter_config.json` and `adapter_model.safetensors`.

PEFT keeps A as [rank, in] and B as [out, rank], T5X's layout has them transposed.
"""

import json
import os
from typing import Any

import numpy as np
from etils import epath
from flax import traverse_util
from safetensors.numpy import save

from uem_t5x import network
from uem_t5x.base.errors import InputError
from uem_t5x.checkpoints import huggingface_names
from uem_t5x.network import lora
from uem_t5x.network.types import PyTree

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_MATRICES = {lora.A: "lora_A", lora.B: "lora_B"}


def write_adapter(
    folder: str | os.PathLike[str],
    config: network.T5Config,
    params: PyTree,
    base_model: str | None = None,
) -> None:
    """Writes a folder that `peft.PeftModel.from_pretrained` loads onto Transformers' T5.

    Args:
      folder: where to write; it is created.
      config: the network's sizes, LoRA's among them.
      params: the network's parameters, as nested dictionaries, layers one by one.
      base_model: the folder or name of the language model that was adapted, as Transformers loads
        it; None where that is not known.

    Raises:
      InputError: if the network has no LoRA.
    """
    if config.lora is None:
        raise InputError(
            "trained without LoRA (LORA_RANK=None), so that there is nothing for PEFT to load; "
            "--format huggingface writes the whole language model"
        )
    places = huggingface_names.places(config)
    tensors: dict[str, np.ndarray] = {}
    modules = []
    for path, values in traverse_util.flatten_dict(dict(params), sep="/").items():
        layer, _, name = path.rpartition("/")
        if name not in _MATRICES:
            continue
        module = places[f"{layer}/kernel"].name.removesuffix(".weight")
        modules.append(module)
        key = f"base_model.model.{module}.{_MATRICES[name]}.weight"
        tensors[key] = np.ascontiguousarray(np.asarray(values, np.float32).T)
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fields = _config_fields(config.lora, sorted(set(modules)), base_model)
    (folder / CONFIG).write_text(json.dumps(fields, indent=2) + "\n")
    (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))


def _config_fields(
    of_lora: lora.LoRA, modules: list[str], base_model: str | None
) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM",
        "base_model_name_or_path": base_model,
        "r": of_lora.rank,
        "lora_alpha": of_lora.scale * of_lora.rank,
        "lora_dropout": of_lora.dropout_rate,
        # In full: what T5X calls `attention` and `self_attention`, Transformers calls alike.
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
    }
