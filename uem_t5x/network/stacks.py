"""The layers of a network one by one, as checkpoints name them, or stacked for a loop over them.

    one by one      {"encoder": {"layers_0": {"mlp": ...}, "layers_1": {"mlp": ...}, ...}}
    stacked         {"encoder": {"layers": {"mlp": ...}}}       a leading axis for the layers

With `scan_layers` the built-in engine keeps its state stacked while it trains, so that a loop runs
over the layers, and the optimizer updates all of them at once, without copying anything.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from uem_t5x.network.types import Array, PyTree

LAYERS = "layers"
_LAYER = re.compile(rf"{LAYERS}_(\d+)")


def _stack_arrays(*layers: Array) -> jax.Array:
    return jnp.stack(layers)


def take_layer(stacked: Array, index: int) -> jax.Array:
    """Returns a layer's part of a stacked array; compiled once for all layers."""
    return lax.dynamic_index_in_dim(stacked, index, keepdims=False)


def stack(tree: PyTree, join: Callable[..., Any] = _stack_arrays) -> PyTree:
    """Stacks the layers of every stack within nested dictionaries.

    Args:
      tree: parameters by name, or anything else by these names.
      join: makes one leaf of a leaf of each layer.
    """
    if not isinstance(tree, Mapping):
        return tree
    numbers = sorted(int(match[1]) for name in tree if (match := _LAYER.fullmatch(name)))
    stacked = {
        name: stack(value, join) for name, value in tree.items() if not _LAYER.fullmatch(name)
    }
    if numbers:
        stacked[LAYERS] = jax.tree.map(join, *(tree[f"{LAYERS}_{number}"] for number in numbers))
    return stacked


def unstack(tree: PyTree, take: Callable[[Any, int], Any] = take_layer) -> PyTree:
    """Undoes `stack`; what is not stacked stays as it is.

    Args:
      tree: nested dictionaries.
      take: takes a layer's leaf from a stacked one.
    """
    if not isinstance(tree, Mapping):
        return tree
    layers = {name: unstack(value, take) for name, value in tree.items() if name != LAYERS}
    if LAYERS in tree:
        depth = jax.tree.leaves(tree[LAYERS])[0].shape[0]
        for index in range(depth):
            layers[f"{LAYERS}_{index}"] = jax.tree.map(
                lambda leaf, index=index: take(leaf, index), tree[LAYERS]
            )
    return layers


def is_stacked(tree: PyTree) -> bool:
    """Tells whether nested dictionaries hold a stack of layers."""
    return isinstance(tree, Mapping) and (LAYERS in tree or any(map(is_stacked, tree.values())))


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
            outside, in_stack, _ = f"{name}/".partition(f"/{LAYERS}/")
            groups.setdefault(outside if in_stack else "", []).append(index)
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
