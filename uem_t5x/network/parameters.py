"""Which parameters there are, by their "/"-joined paths, and which of them training changes."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import traverse_util

from uem_t5x.base.errors import InputError
from uem_t5x.network import lora, stacks
from uem_t5x.network.types import PyTree

Trainable = Callable[[str], bool]

# The top-level modules that are the language model; others make the soft prompt.
LANGUAGE_MODEL = ("token_embedder", "encoder", "decoder")


def is_of_language_model(path: str) -> bool:
    """Tells the parameters of the language model from those of a soft prompt."""
    return path.partition("/")[0] in LANGUAGE_MODEL


def everything(path: str) -> bool:
    """Has training change every parameter, as the paper does."""
    del path
    return True


def soft_prompt_alone(path: str) -> bool:
    """Has training leave the language model as it is."""
    return not is_of_language_model(path)


def lora_and_soft_prompt(path: str) -> bool:
    """Has training leave the language model as it is, but for what LoRA adds to it."""
    return soft_prompt_alone(path) or lora.is_lora(path)


def split(params: PyTree, trainable: Trainable) -> tuple[PyTree, PyTree]:
    """Separates what training changes from what it leaves as it is.

    Args:
      params: nested dictionaries, layers one by one or stacked.
      trainable: whether training changes the parameter of a path, such as
        `encoder/layers_0/attention/query/kernel`.

    Returns:
      The trained and the frozen ones, each with the names of `params`.

    Raises:
      InputError: if layers differ that are stacked.
    """
    chosen: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for path, leaf in traverse_util.flatten_dict(dict(params), sep="/").items():
        choices = {bool(trainable(one)) for one in stacks.paths_of_layers(path, leaf)}
        if len(choices) > 1:
            raise InputError(
                f"SCAN_LAYERS=True: {path} is trained in some layers and frozen in others; leave "
                "it out, or treat all layers alike"
            )
        chosen[not choices.pop()][path] = leaf
    trained, frozen = (traverse_util.unflatten_dict(some, sep="/") for some in chosen)
    return trained, frozen


def trained(params: PyTree, trainable: Trainable) -> PyTree:
    """Returns what training changes; see `split`.

    Raises:
      InputError: if nothing is left to train, or as in `split`.
    """
    chosen, _ = split(params, trainable)
    if not chosen:
        raise InputError(
            "nothing is left to train: FREEZE_LANGUAGE_MODEL=True without a soft prompt, or a "
            "models.EncoderDecoderModel.trainable that chooses no parameter"
        )
    return chosen


def merge(trained: PyTree, frozen: PyTree) -> PyTree:
    """Undoes `split`."""
    merged = dict(frozen)
    for name, value in trained.items():
        both = isinstance(value, Mapping) and name in frozen
        merged[name] = merge(value, frozen[name]) if both else value
    return merged
