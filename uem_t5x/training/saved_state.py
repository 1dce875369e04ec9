"""A training state under the names that T5X's checkpoints have, and back.

The tree has `target`, `state/step`, `state/param_states` and `flax_mutables`, layers one by one.
"""

from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from uem_t5x.network import stacks
from uem_t5x.network.types import PyTree
from uem_t5x.training.optimizers import ADAFACTOR
from uem_t5x.training.trainer import TrainState


def to_t5x(
    state: TrainState,
    saved_as: str,
    take_layer: Callable[[Any, int], Any] = stacks.take_layer,
) -> dict[str, Any]:
    """Names the parts of a state as T5X's checkpoints do, layers one by one.

    Optax keeps one tree for each of Adafactor's accumulators, T5X one record of accumulators for
    each parameter that is trained; momentum (`m`), which neither uses here, is T5X's placeholder of
    one zero. The state of another optimizer, for which T5X has no names, is kept as it is.

    Args:
      state: the state, or its shapes.
      saved_as: how the optimizer's part of it is, see `optimizers.Optimizer`.
      take_layer: takes a layer's leaf from a stacked one.
    """

    def flat(tree: PyTree) -> dict[tuple[str, ...], Any]:
        return flax.traverse_util.flatten_dict(stacks.unstack(tree, take_layer))

    tree = {
        "target": stacks.unstack(state.params, take_layer),
        "state": {"step": state.step},
    }
    if saved_as == ADAFACTOR:
        adafactor = state.opt_state[0]
        accumulators = {name: flat(getattr(adafactor, name)) for name in ("v", "v_col", "v_row")}
        param_states = {
            (*path, name): values[path] for name, values in accumulators.items() for path in values
        }
        param_states |= {(*path, "m"): np.zeros(1, np.float32) for path in accumulators["v"]}
        tree["state"]["param_states"] = flax.traverse_util.unflatten_dict(param_states)
    else:
        tree["state"] |= {f"optimizer{path}": leaf for path, leaf in _leaves(state.opt_state)}
    if state.flax_mutables:
        tree["flax_mutables"] = state.flax_mutables
    return tree


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """Returns the leaves of a tree and their names, such as `.0.mu.decoder.logits_dense.kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        ("." + jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in leaves
    ]


def struct_of_layer(stacked: jax.ShapeDtypeStruct, _: int) -> jax.ShapeDtypeStruct:
    """Returns the shape of one of the stacked layers, and its place on the devices."""
    spec = jax.sharding.PartitionSpec(*stacked.sharding.spec[1:])
    sharding = jax.sharding.NamedSharding(stacked.sharding.mesh, spec)
    return jax.ShapeDtypeStruct(stacked.shape[1:], stacked.dtype, sharding=sharding)


def from_t5x(tree: PyTree, template: TrainState, saved_as: str) -> TrainState:
    """Undoes `to_t5x`, but that a leaf of a stack is a tuple of the layers' ones."""

    def as_in_template(tree: PyTree) -> PyTree:
        if stacks.is_stacked(template.params):
            return stacks.stack(tree, join=lambda *layers: layers)
        return tree

    step = tree["state"]["step"]
    if saved_as == ADAFACTOR:
        flat = flax.traverse_util.flatten_dict(tree["state"]["param_states"])
        accumulators = {
            name: as_in_template(
                flax.traverse_util.unflatten_dict(
                    {path[:-1]: value for path, value in flat.items() if path[-1] == name}
                )
            )
            for name in ("v", "v_col", "v_row")
        }
        # T5X has one count of steps, and each of these is given up by itself.
        count = jnp.copy(step)
        adafactor: optax.FactoredState = template.opt_state[0]._replace(count=count, **accumulators)
        opt_state = (adafactor, *template.opt_state[1:])
    else:
        opt_state = jax.tree.unflatten(
            jax.tree.structure(template.opt_state),
            [tree["state"][f"optimizer{path}"] for path, _ in _leaves(template.opt_state)],
        )
    return TrainState(
        step=step,
        params=as_in_template(tree["target"]),
        opt_state=opt_state,
        flax_mutables=tree.get("flax_mutables", {}),
    )
