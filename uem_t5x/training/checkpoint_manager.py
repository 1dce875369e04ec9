"""Checkpoints of the built-in engine: Orbax, in T5X's layout.

    MODEL_DIR/checkpoint_<step>/state      parameters, optimizer state, step, item table
    MODEL_DIR/checkpoint_<step>/dataset    the position in the training data, one file a part of it
    MODEL_DIR/checkpoint_<step>/metrics    validation metrics, where they were measured
    MODEL_DIR/checkpoint_<step>/checksums.json

The tree below `state` has T5X's names; see `saved_state`.
"""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping

import absl.logging
import flax.traverse_util
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from uem_t5x.base import buckets
from uem_t5x.base.errors import InputError, check_at_least, line_of
from uem_t5x.checkpoints import folders, t5x
from uem_t5x.inputs import batches
from uem_t5x.inputs.batches import TrainIterator
from uem_t5x.network.types import PyTree
from uem_t5x.training.optimizers import ADAFACTOR
from uem_t5x.training.saved_state import from_t5x, struct_of_layer, to_t5x
from uem_t5x.training.trainer import TrainState

STATE, DATASET = "state", "dataset"
_SLOTS = "state/param_states/"


class _WithoutOrbaxNoise(logging.Filter):
    """Drops what Orbax's threads log and nobody needs to know.

    That is tracebacks, as the main thread raises the same errors, and that there is no store of all
    arrays where each is in files of its own.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Says whether a record is logged."""
        is_needless = record.exc_info or "Skipping merge of OCDBT" in str(record.msg)
        return not (is_needless and "orbax" in record.pathname)


class _NotAsking(ocp.CheckpointManager):
    """Leaves the question whether to stop to `PreemptionNotice`.

    JAX has all processes stop at the number after the highest that any of them last asked with.
    `PreemptionNotice` counts from 1 wherever a run goes on; Orbax would ask with the step whenever
    it saves, and once more in the background, only to log the answer.
    """

    def reached_preemption(self, step: int) -> bool:
        """Returns False."""
        return False


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save, what to keep.

    Attributes:
      period: steps between checkpoints; 0 for none.
      keep: the most recent ones that are kept; None for all.
      keep_best: the ones of highest validation F1 that are kept besides.

    Raises:
      InputError: if so many cannot be kept.
    """

    period: int = 1000
    keep: int | None = 1
    keep_best: int = 1

    def __post_init__(self) -> None:
        check_at_least(1, none_for="all", CHECKPOINTS_KEPT=self.keep)
        check_at_least(0, keep_best=self.keep_best)


class _DatasetHandler(ocp.CheckpointHandler):
    """Saves the position in the training data; each process writes those of its own parts.

    Attributes:
      checkpoint: the folder of the checkpoint that is being saved, under its temporary name.
    """

    checkpoint: epath.Path

    def save(self, directory: epath.Path, args: "_DatasetArgs") -> None:
        self.checkpoint = directory.parent
        if args.writes:
            args.iterator.save(directory)

    def restore(self, directory: epath.Path, args: "_DatasetArgs") -> None:
        args.iterator.restore(directory)


@ocp.args.register_with_handler(_DatasetHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _DatasetArgs(ocp.args.CheckpointArgs):
    iterator: TrainIterator
    writes: bool = True


def saved_num_shards(model_dir: str | os.PathLike[str]) -> int | None:
    """Returns the number of parts that a run reads its data in, None where there is no run yet."""
    found = folders.find(model_dir)
    return batches.saved_num_shards(found[max(found)] / DATASET) if found else None


class CheckpointManager:
    """Saves and restores the state of a run; saving goes on in the background."""

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        config: CheckpointConfig | None = None,
        saved_as: str = ADAFACTOR,
        keeps_frozen: bool = False,
    ) -> None:
        """Opens the checkpoints of a run.

        Args:
          model_dir: the run's folder.
          config: what to keep; without it, of a run that another process may be training, nothing
            is written or removed.
          saved_as: how the optimizer's state is, see `optimizers.Optimizer`.
          keeps_frozen: whether training leaves parameters as they are: then each array is saved in
            files of its own, which take no room where nothing has changed, see `folders.seal`.
        """
        self._saved_as = saved_as
        trains = config is not None
        config = config or CheckpointConfig()
        policies = [LatestN(config.keep)]
        if config.keep_best:
            policies.append(
                BestN(
                    get_metric_fn=folders.score,
                    n=config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        dataset_handler = _DatasetHandler()

        def seal() -> None:
            if jax.process_index() == 0:
                # Checksums vouch for what is there, and not for what was meant to be.
                t5x.check_orbax_is_whole(dataset_handler.checkpoint)
                folders.seal(dataset_handler.checkpoint)

        self._manager = _NotAsking(
            buckets.absolute(model_dir),
            options=ocp.CheckpointManagerOptions(
                step_prefix=folders.PREFIX,
                preservation_policy=AnyPreservationPolicy(policies),
                best_fn=folders.score,
                create=trains,
                # In a bucket Orbax takes every folder for one that it has begun.
                cleanup_tmp_directories=trains and not buckets.is_remote(model_dir),
                # Called when all items are written, and the checkpoint is not yet under its name.
                async_options=ocp.AsyncOptions(post_finalization_callback=seal),
            ),
            item_handlers={
                STATE: ocp.PyTreeCheckpointHandler(use_ocdbt=not keeps_frozen),
                DATASET: dataset_handler,
            },
        )
        self._log_filter = _WithoutOrbaxNoise()
        absl.logging.get_absl_logger().addFilter(self._log_filter)

    def __enter__(self) -> "CheckpointManager":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An error that is already on its way is the one to report.
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            self.close()

    def latest_step(self) -> int | None:
        """Returns the step of the most recent checkpoint, or None."""
        return self._manager.latest_step()

    def save(
        self,
        state: TrainState,
        iterator: TrainIterator,
        metrics: Mapping[str, float] | None,
        writes_position: bool = True,
    ) -> None:
        """Starts saving; the data's position is written before this returns.

        Args:
          state: the state after some step.
          iterator: the training data, at the same step.
          metrics: what was measured at this step, if anything; kept where it holds an F1.
          writes_position: whether this process saves how far its part of the data is read; of
            processes that read the same part, one does.

        Raises:
          OSError: if this checkpoint, or the one before, cannot be written.
        """
        items = {
            STATE: ocp.args.PyTreeSave(to_t5x(state, self._saved_as)),
            DATASET: _DatasetArgs(iterator, writes_position),
        }
        with self._explaining():
            self._manager.save(
                int(state.step),
                args=ocp.args.Composite(**items),
                metrics=dict(metrics) if folders.has_score(metrics or {}) else None,
                force=True,
            )

    def lacks_metrics(self, step: int) -> bool:
        """Whether a checkpoint of this engine lacks a validation F1; T5X's stay without one."""
        checkpoint = self._folder(step)
        is_ours = folders.has_checksums(checkpoint)
        return is_ours and not folders.is_measured(checkpoint)

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds an F1, and what else was measured, to a checkpoint that was saved without.

        Raises:
          OSError: if it cannot be written.
        """
        if folders.has_score(metrics) and jax.process_index() == 0:
            with self._explaining():
                folders.add_metrics(self._folder(step), metrics)
                self._manager.reload()  # or it would not keep it for the best

    def restore(self, step: int, template: TrainState, iterator: TrainIterator) -> TrainState:
        """Restores a run.

        Args:
          step: of the checkpoint.
          template: the state's shapes, types and places on the devices.
          iterator: the training data; moved to where it was.

        Returns:
          The restored state.

        Raises:
          InputError: if the checkpoint is of another model.
        """
        target = to_t5x(template, self._saved_as, struct_of_layer)
        has_more = self._check_shapes(step, target)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                **{STATE: _restore_like(target, partial=has_more), DATASET: _DatasetArgs(iterator)}
            ),
        )
        return jax.tree.map(_own, template, from_t5x(restored[STATE], template, self._saved_as))

    def restore_for_inference(
        self, step: int, variables: PyTree | None = None
    ) -> tuple[PyTree, PyTree]:
        """Restores what answering takes of a checkpoint.

        Args:
          step: of the checkpoint.
          variables: shapes, types and places on the devices of `params`, layers one by one, and of
            the frozen collections; None for what was saved, whole on one device.

        Returns:
          The parameters and the item table.

        Raises:
          InputError: if the checkpoint is of another model.
        """
        if variables is None:
            template = self._on_one_device(step)
        else:
            frozen = {name: tree for name, tree in variables.items() if name != "params"}
            template = {"target": variables["params"]}
            template |= {"flax_mutables": frozen} if frozen else {}
            self._check_shapes(step, template)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(**{STATE: _restore_like(template, partial=True)}),
        )[STATE]
        return restored["target"], restored.get("flax_mutables", {})

    def close(self) -> None:
        """Writes what is left and frees the manager.

        Raises:
          OSError: if the last checkpoint cannot be written.
        """
        try:
            with self._explaining():
                self._manager.close()
        finally:
            absl.logging.get_absl_logger().removeFilter(self._log_filter)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Says in one line what a disk did not take of a checkpoint, and what is left of the run.

        Other errors are raised as they are.
        """
        try:
            yield
        except Exception as error:
            if (said := line_of(error)) is None:
                raise
            folder = epath.Path(self._manager.directory)
            steps = folders.find(folder) if folder.is_dir() else {}
            left = f"checkpoint_{max(steps)} is still good" if steps else "none was saved before"
            reason = f"{type(error).__name__}: {said}".splitlines()[0][:300]
            raise OSError(
                f"{folder}: a checkpoint cannot be saved ({reason}); {left}. See that the folder "
                "can be written and has room, then run the same command again"
            ) from error

    def _folder(self, step: int) -> epath.Path:
        return folders.find(self._manager.directory)[step]

    def _on_one_device(self, step: int) -> PyTree:
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        saved = self._manager.item_metadata(step)[STATE]
        wanted = {name: saved[name] for name in ("target", "flax_mutables") if name in saved}
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), wanted
        )

    def _check_shapes(self, step: int, template: PyTree) -> bool:
        """Raises an InputError if a checkpoint holds other arrays below the template's names.

        Returns:
          Whether it holds more: optimizer state of parameters that are frozen, which older runs
          have saved.
        """
        metadata = self._manager.item_metadata(step)[STATE]
        saved = _shapes({name: metadata[name] for name in template if name in metadata})
        wanted = _shapes(template)
        more = {name for name in saved.keys() - wanted.keys() if name.startswith(_SLOTS)}
        saved = {name: shape for name, shape in saved.items() if name not in more}
        if saved == wanted:
            return bool(more)
        differing = sorted(name for name in saved | wanted if saved.get(name) != wanted.get(name))
        name = differing[0]
        what, mend = "model", ""
        if all(name.startswith("state/") for name in differing):
            # Of an optimizer that is not Adafactor, T5X has no names for single layers.
            what, mend = "optimizer, or SCAN_LAYERS", "give it those that it was trained with, or "
        raise InputError(
            f"{self._manager.directory}: checkpoint_{step} is of another {what}: {name} has shape "
            f"{saved.get(name, 'none')} there, {wanted.get(name, 'none')} in this recipe "
            f"({len(differing)} arrays differ); {mend}choose another MODEL_DIR"
        )


def _restore_like(template: PyTree, partial: bool = False) -> ocp.args.PyTreeRestore:
    """Asks for arrays of the template's shapes, types and places on the devices."""
    return ocp.args.PyTreeRestore(
        template,
        restore_args=ocp.checkpoint_utils.construct_restore_args(template),
        partial_restore=partial,
    )


def _own(leaf: jax.ShapeDtypeStruct, restored: jax.Array | tuple[jax.Array, ...]) -> jax.Array:
    """Copies a restored leaf, or stacks that of each layer, and frees what it was.

    Restored arrays may lie in memory that they share or do not own, which a training step, as it
    overwrites its state in place, must not touch. One by one, they do not all take memory twice.

    Args:
      leaf: its shape, and its place on the devices.
      restored: given up.
    """
    make = jnp.stack if isinstance(restored, tuple) else jnp.copy
    owned = jax.jit(make, out_shardings=leaf.sharding)(restored)
    for array in jax.tree.leaves(restored):
        array.delete()
    return owned


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    flat = flax.traverse_util.flatten_dict(dict(tree), sep="/")
    return {name: tuple(leaf.shape) for name, leaf in flat.items() if leaf is not None}
