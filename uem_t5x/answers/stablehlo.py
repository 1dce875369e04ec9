"""A trained model as programs that run wherever StableHLO does, without this package.

    OUTPUT/answer.stablehlo        weights and features of users -> token ids, log-likelihoods
    OUTPUT/embed.stablehlo         weights and features of users -> soft prompts, and their masks
    OUTPUT/weights.safetensors     the first argument of both: a dictionary of these tensors
    OUTPUT/programs.json           features and results: names, shapes, types; the vocabulary's ids
    OUTPUT/sentencepiece.model     text to token ids and back
    OUTPUT/movies.parquet          what each row of the item table is

They are `jax.export`'s, for any number of users (`b`), on CPUs, CUDA GPUs and TPUs alike.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export
from safetensors.numpy import save_file

from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.base.errors import InputError, first_line
from uem_t5x.data.dataset_folder import MOVIES

FORMAT = "uem-t5x programs"
FORMAT_VERSION = 1
PLATFORMS = ("cpu", "cuda", "tpu")
_PARAMS = "params"


def export_stablehlo(trained: TrainedModel, folder: Path) -> None:
    """Writes the programs of a trained model.

    Args:
      trained: the model.
      folder: where to write; it is created.

    Raises:
      InputError: if a part of it cannot be exported.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = traverse_util.flatten_dict(
        {_PARAMS: trained.params, **trained.flax_mutables}, sep="/"
    )
    arrays = {name: np.ascontiguousarray(values) for name, values in weights.items()}
    save_file(arrays, folder / "weights.safetensors")
    specs = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
    features = _features(trained)
    programs = {"answer": _answer(trained)}
    if trained.reads_embeddings:
        programs["embed"] = _embed(trained)
    told = {}
    for name, program in programs.items():
        try:
            exported = export.export(jax.jit(program), platforms=PLATFORMS)(specs, features)
        except Exception as error:
            # A soft prompt or `decode_fn` of one's own may want numbers that are not known yet.
            raise InputError(
                f"{name}: no program can be made of it for any number of users and for "
                f"{', '.join(PLATFORMS)} ({first_line(error)})"
            ) from error
        (folder / f"{name}.stablehlo").write_bytes(exported.serialize())
        results = jax.tree.map(_described, jax.eval_shape(program, specs, features))
        told[name] = {"file": f"{name}.stablehlo", "results": results}
    vocabulary = trained.model.output_vocabulary
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "task": trained.task,
        "step": trained.step,
        "platforms": PLATFORMS,
        "weights": "weights.safetensors",
        "features": {name: _described(spec) for name, spec in features.items()},
        "programs": told,
        "pad_id": vocabulary.pad_id,
        "eos_id": vocabulary.eos_id,
    }
    (folder / "programs.json").write_text(json.dumps(record, indent=2) + "\n")
    model = Path(vocabulary.sentencepiece_model_file).read_bytes()
    (folder / "sentencepiece.model").write_bytes(model)
    (trained.catalogue.path / MOVIES).copy(folder / MOVIES.name)


def _features(trained: TrainedModel) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the features that programs are given, of any number of users."""
    converter = trained.model.FEATURE_CONVERTER_CLS(pack=False)
    lengths = converter.get_model_feature_lengths(trained.feature_lengths)
    (users,) = export.symbolic_shape("b")
    return {
        name: jax.ShapeDtypeStruct((users, length), jnp.int32)
        for name, length in lengths.items()
        if name != "decoder_target_tokens"  # whose values are not read
    }


def _answer(trained: TrainedModel) -> Any:
    length = trained.feature_lengths["targets"]
    decoder_params = {"grammar": trained.grammar} if trained.grammar else None

    def answer(weights: dict[str, jax.Array], features: dict[str, jax.Array]) -> Any:
        params, mutables = _variables(weights)
        users = features["encoder_input_tokens"].shape[0]
        blank = jnp.zeros((users, length), jnp.int32)
        key = jax.random.fold_in(jax.random.PRNGKey(0), 0)  # as of a first batch elsewhere
        tokens, aux = trained.model.predict_batch_with_aux(
            params,
            {**features, "decoder_target_tokens": blank},
            key,
            decoder_params,
            flax_mutables=mutables or None,
        )
        return {"tokens": tokens, "scores": aux["scores"]}

    return answer


def _embed(trained: TrainedModel) -> Any:
    def embed(weights: dict[str, jax.Array], features: dict[str, jax.Array]) -> Any:
        params, mutables = _variables(weights)
        prompt = trained.model.soft_prompt(params, features, mutables)
        return {"embeddings": prompt.embeddings.astype(jnp.float32), "mask": prompt.mask}

    return embed


def _variables(weights: dict[str, jax.Array]) -> tuple[Any, dict[str, Any]]:
    variables = traverse_util.unflatten_dict(weights, sep="/")
    return variables.pop(_PARAMS), variables


def _described(spec: jax.ShapeDtypeStruct) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else str(size) for size in spec.shape]
    return {"shape": shape, "dtype": str(spec.dtype)}
