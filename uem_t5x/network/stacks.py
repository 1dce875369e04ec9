"""The layers of a network one by one, as checkpoints name them, or stacked for a loop over them.

    one by one      {"encoder": {"layers_0": {"mlp": ...}, "layers_1": {"mlp": ...}, ...}}
    stacked         {"encoder": {"layers": {"mlp": ...}}}       a leading axis for the layers

A stack is a module that is called `encoder` or `decoder`, wherever it stands; layers in any other
module are that module's own business.

With `scan_layers` the built-in engine keeps its state stacked while it trains, so that a loop runs
over the layers, and the optimizer updates all of them at once, without copying anything.

`run` runs them either way, in every mode.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Float

from uem_t5x.network.types import Array, PyTree

LAYERS = "layers"
_STACKS = ("encoder", "decoder")
_STACKED = re.compile(rf"(?P<stack>(?:.*/)?(?:{'|'.join(_STACKS)}))/{LAYERS}/(?P<within>.*)")
_LAYER = re.compile(rf"{LAYERS}_(\d+)")


def _stack_arrays(*layers: Array) -> jax.Array:
    return jnp.stack(layers)


def take_layer(stacked: Array, index: int) -> jax.Array:
    """Returns a layer's part of a stacked array; compiled once for all layers."""
    return lax.dynamic_index_in_dim(stacked, index, keepdims=False)


def stack(tree: PyTree, join: Callable[..., Any] = _stack_arrays, is_stack: bool = True) -> PyTree:
    """Stacks the layers of every stack within nested dictionaries.

    Args:
      tree: parameters by name, or anything else by these names.
      join: makes one leaf of a leaf of each layer.
      is_stack: whether the tree may be one itself.
    """
    if not isinstance(tree, Mapping):
        return tree
    found = {name: _LAYER.fullmatch(name) if is_stack else None for name in tree}
    stacked = {
        name: stack(value, join, name in _STACKS) for name, value in tree.items() if not found[name]
    }
    if numbers := sorted(int(match[1]) for match in found.values() if match):
        stacked[LAYERS] = jax.tree.map(join, *(tree[f"{LAYERS}_{number}"] for number in numbers))
    return stacked


def unstack(
    tree: PyTree, take: Callable[[Any, int], Any] = take_layer, is_stack: bool = True
) -> PyTree:
    """Undoes `stack`; what is not stacked stays as it is.

    Args:
      tree: nested dictionaries.
      take: takes a layer's leaf from a stacked one.
      is_stack: whether the tree may be a stack itself.
    """
    if not isinstance(tree, Mapping):
        return tree
    is_stack = is_stack and LAYERS in tree
    layers = {
        name: unstack(value, take, name in _STACKS)
        for name, value in tree.items()
        if not (is_stack and name == LAYERS)
    }
    if is_stack:
        depth = jax.tree.leaves(tree[LAYERS])[0].shape[0]
        for index in range(depth):
            layers[f"{LAYERS}_{index}"] = jax.tree.map(
                lambda leaf, index=index: take(leaf, index), tree[LAYERS]
            )
    return layers


def name_of_stack(path: str) -> str | None:
    """Returns the stack whose layers' parameter of this path, stacked, is; None if it is not."""
    match = _STACKED.fullmatch(path)
    return match["stack"] if match else None


def paths_of_layers(path: str, leaf: Any) -> list[str]:
    """Returns the paths that a parameter, which may be stacked, has layer by layer."""
    if (match := _STACKED.fullmatch(path)) is None:
        return [path]
    layers = range(leaf.shape[0])
    return [f"{match['stack']}/{LAYERS}_{index}/{match['within']}" for index in layers]


def is_stacked(tree: PyTree, is_stack: bool = True) -> bool:
    """Tells whether nested dictionaries hold a stack of layers."""
    if not isinstance(tree, Mapping):
        return False
    within = (is_stacked(value, name in _STACKS) for name, value in tree.items())
    return (is_stack and LAYERS in tree) or any(within)


@functools.cache
def _rematerialized(
    layer_cls: type[nn.Module], policy: Callable[..., bool], prevent_cse: bool
) -> type[nn.Module]:
    return nn.remat(layer_cls, policy=policy, prevent_cse=prevent_cse)


def run(
    stack: nn.Module,
    layer_cls: type[nn.Module],
    depth: int,
    x: Float[Array, "batch length embed"],
    *context: PyTree,
    dropout_key: jax.Array | None = None,
    remat_policy: Callable[..., bool] | None = None,
    **options: Any,
) -> Float[Array, "batch length embed"]:
    """Runs the layers of a stack, at initialization, in training, and in decoding.

    They are modules of the stack, `layers_0` and so on, so that any collection passes: caches, what
    is sown, what `capture_intermediates` sees. Where the stack's parameters are stacked, a loop
    runs over them. What is computed, and dropped, is the same.

    Args:
      stack: the module that the layers belong to, in its compact method; it has their `config`.
      layer_cls: their class, called with `x`, the context, a `dropout_key` and the options.
      depth: how many they are.
      x: what the first one reads.
      *context: what every one reads besides.
      dropout_key: random key, or None for no dropout.
      remat_policy: what the backward pass finds kept; None for everything.
      **options: settings of a mode that needs the layers one by one, such as decoding.
    """
    keys = None if dropout_key is None else jax.random.split(dropout_key, depth)
    is_a_stack = LAYERS in stack.variables.get("params", {})
    if remat_policy is not None and not (options or stack.is_initializing()):
        # A loop keeps the compiler from undoing it by itself.
        layer_cls = _rematerialized(layer_cls, remat_policy, not is_a_stack)
    if not is_a_stack:
        for index in range(depth):
            key = None if keys is None else keys[index]
            layer = layer_cls(stack.config, name=f"{LAYERS}_{index}")
            x = layer(x, *context, dropout_key=key, **options)
        return x

    def step(layer: nn.Module, x: jax.Array, key: jax.Array | None) -> tuple[jax.Array, None]:
        return layer(x, *context, dropout_key=key), None

    loop = nn.scan(step, variable_axes={True: 0}, split_rngs={}, length=depth)
    return loop(layer_cls(stack.config, name=LAYERS), x, keys)[0]
