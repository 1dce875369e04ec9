"""Optimizers of the built-in engine: Adafactor, and what treats stacked layers one by one.

They leave the learning rate to the trainer, as T5X's do.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from uem_t5x.network import lora, stacks
from uem_t5x.network.types import Array, PyTree

# How an optimizer's state is saved: as T5X saves Adafactor's, or leaf by leaf as Optax has it.
ADAFACTOR, OPTAX = "adafactor", "optax"


class Optimizer(NamedTuple):
    """A transformation of gradients, and how its state is saved.

    Attributes:
      init: see `optax.GradientTransformation`, as `update`.
      update: see `init`.
      saved_as: `ADAFACTOR`, where the state is that of `adafactor` below, or `OPTAX`.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]
    saved_as: str = OPTAX


def saved_as(optimizer: optax.GradientTransformation | Optimizer) -> str:
    """Returns how an optimizer's state is saved; of a plain one of Optax's, `OPTAX`."""
    return getattr(optimizer, "saved_as", OPTAX)


def adafactor() -> Optimizer:
    """Returns Adafactor with the settings of T5X's fine-tuning, without its learning rate.

    Factored second moments from 128 columns on, decay 1 - t^-0.8, updates clipped to a root mean
    square of 1 and scaled by that of their parameter, no momentum (Shazeer and Stern 2018,
    algorithm 4), for each layer by itself. LoRA's B, which starts at zero, is not scaled: A is as
    small as any weight, so that their product grows as fast as the others do.
    """
    clipped = optax.chain(
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.identity(),  # the state's place for what scales, which has none
    )
    unscaled = over_layers(clipped)

    def update(
        updates: PyTree, state: optax.OptState, params: PyTree
    ) -> tuple[PyTree, optax.OptState]:
        updates, state = unscaled.update(updates, state, params)
        return jax.tree_util.tree_map_with_path(_scale_by_param_rms, updates, params), state

    return Optimizer(unscaled.init, update, saved_as=ADAFACTOR)


def _scale_by_param_rms(
    path: tuple[Any, ...], update: Array, param: Array, least: float = 1e-3
) -> jax.Array:
    """Multiplies an update by the root mean square of its parameter, of each layer by itself.

    As `optax.scale_by_param_block_rms`, but for gradients through the scale, which nobody takes:
    they have it read every parameter once more, and write a copy.
    """
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if lora.is_b(name):
        return update
    axes = tuple(range(1 if stacks.name_of_stack(name) else 0, param.ndim))
    mean_square = jnp.mean(jnp.square(param), axis=axes, keepdims=True)
    return update * jnp.maximum(jnp.sqrt(mean_square), least)


def over_layers(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns an optimizer that does for each layer of a stack what `optimizer` does.

    `optimizer` must treat every parameter by itself, as Adafactor does. Within its state, what is
    like the parameters is stacked as they are; the rest, such as a count of steps, is shared.
    """

    def init(params: PyTree) -> optax.OptState:
        groups = _Groups(params)
        states = []
        for is_stack, some in zip(groups.are_stacks, groups.split(params)):
            function = optimizer.init
            if is_stack:
                shapes = [jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in some]
                function = jax.vmap(function, out_axes=_axes(jax.eval_shape(function, shapes)))
            states.append(function(some))
        return groups.merge(states)

    def update(
        updates: PyTree, state: optax.OptState, params: PyTree
    ) -> tuple[PyTree, optax.OptState]:
        groups = _Groups(params)
        results = []
        for is_stack, *some in zip(groups.are_stacks, *map(groups.split, (updates, state, params))):
            function = optimizer.update
            if is_stack:
                axes = _axes(some[1])
                function = jax.vmap(function, in_axes=(0, axes, 0), out_axes=(0, axes))
            results.append(function(*some))
        return tuple(map(groups.merge, zip(*results)))

    return optax.GradientTransformation(init, update)


class _Groups:
    """The parameters outside of all stacks, and those of each stack.

    Attributes:
      are_stacks: for each group whether it is a stack.
    """

    def __init__(self, params: PyTree) -> None:
        paths, self._structure = jax.tree_util.tree_flatten_with_path(params)
        groups: dict[str, list[int]] = {}
        for index, (path, _) in enumerate(paths):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            groups.setdefault(stacks.name_of_stack(name) or "", []).append(index)
        self.are_stacks = [name != "" for name in groups]
        self._indices = list(groups.values())

    def split(self, tree: PyTree) -> list[PyTree]:
        """Returns a tree for each group, with its leaves as a list wherever `tree` is like params.

        Args:
          tree: like the parameters, or with parts that are.
        """

        def is_like_params(part: PyTree) -> bool:
            return jax.tree.structure(part) == self._structure

        def pick(part: PyTree, indices: list[int]) -> PyTree:
            if not is_like_params(part):
                return part
            leaves = jax.tree.leaves(part)
            return [leaves[index] for index in indices]

        return [
            jax.tree.map(lambda part, i=indices: pick(part, i), tree, is_leaf=is_like_params)
            for indices in self._indices
        ]

    def merge(self, trees: Sequence[PyTree]) -> PyTree:
        """Undoes `split`."""

        def put(*parts: PyTree) -> PyTree:
            if not _is_list(parts[0]):
                return parts[0]
            leaves = {
                index: leaf
                for part, indices in zip(parts, self._indices)
                for index, leaf in zip(indices, part)
            }
            return jax.tree.unflatten(self._structure, [leaves[index] for index in sorted(leaves)])

        return jax.tree.map(put, *trees, is_leaf=_is_list)


def _is_list(tree: PyTree) -> bool:
    return isinstance(tree, list)


def _axes(state: PyTree) -> PyTree:
    """Returns the axis of the layers within a group's state."""
    return jax.tree.map(lambda part: 0 if _is_list(part) else None, state, is_leaf=_is_list)
