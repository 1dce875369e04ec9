"""What a finished run was and what came of it, read back from its MODEL_DIR without its model."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from uem_t5x.base import buckets, startup
from uem_t5x.base.errors import InputError
from uem_t5x.checkpoints import folders
from uem_t5x.data.dataset_folder import MOVIES, VOCABULARY
from uem_t5x.data.manifest import Manifest, Split
from uem_t5x.runs import comparison, recipes
from uem_t5x.runs import model_dir as model_dir_lib
from uem_t5x.tastes import metrics
from uem_t5x.tastes.uncertainty import Marks

METRICS = "metrics.json"
UEM, TEXT = "uem", "text"
_SEED = "RANDOM_SEED"
# What older versions of `evaluate`, or of dataset folders, did not write down.
UNKNOWN = "unknown"
_MAY_LACK = (
    "MOVIES",
    "VOCABULARY",
    "TRAINING_USERS",
    "TASK",
    "TRAINED",
    "CHECKPOINT",
    "ANSWERS",
)
_SHOWN_DIGITS = 8  # of a checksum


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that was trained and scored.

    Attributes:
      path: its MODEL_DIR.
      macros: the recipe's macros; of a reference such as `%NAME`, the text.
      bindings: its other settings, by `scope/module.function.parameter`.
      manifest: what it was trained on.
      metrics: what `evaluate` found; see `evaluate.evaluate`.
    """

    path: epath.Path
    macros: Mapping[str, Any]
    bindings: Mapping[str, Any]
    manifest: Manifest
    metrics: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Run":
        """Reads a MODEL_DIR that holds `metrics.json`.

        Raises:
          InputError: if it does not, or no trained model.
        """
        folder = epath.Path(path)
        recipe = model_dir_lib.recipe(folder)
        file = folder / METRICS
        if not file.is_file():
            raise InputError(
                f"{file}: no scores yet; uem-t5x evaluate --model-dir {folder} --output {file}"
            )
        metrics = read_scores(file)
        macros, bindings = recipes.read(recipe)
        return cls(
            path=folder,
            macros=macros,
            bindings=bindings,
            manifest=model_dir_lib.catalogue(folder).manifest,
            metrics=metrics,
        )

    @property
    def encoder(self) -> str:
        """The sentence encoder, such as `hashing, 96`, with the checksum of its weights if any."""
        encoder = self.manifest.encoder
        weights = "" if encoder.sha256 is None else f", {_short(encoder.sha256)}"
        return f"{encoder.name}, {encoder.width}{weights}"

    @functools.cached_property
    def is_current(self) -> bool:
        """Whether the scores are of the run as it is, which was not trained on since.

        Older scores do not say how far training had come by then. They are taken for current if
        they are of the checkpoint that would be scored now. Where no checkpoints are left, nothing
        speaks against them.
        """
        found = folders.find(self.path)
        trained_steps, _ = self._when_scored
        return not found or (trained_steps is not None and max(found) <= trained_steps)

    @functools.cached_property
    def _when_scored(self) -> tuple[int | None, bool | None]:
        """How far training had come, and whether the best checkpoint was scored; None: unknown."""
        if "trained_steps" in self.metrics:
            return self.metrics["trained_steps"], self.metrics.get("is_best")
        if folders.best(self.path) == self.metrics["step"]:
            return max(folders.find(self.path)), True
        return None, None

    @property
    def catalogue(self) -> str:
        """What tells this catalogue of movies from others."""
        return " ".join(sorted(self.manifest.inputs.values()))

    @property
    def kind(self) -> str:
        """How the history reaches the language model: `uem` or `text`."""
        return _kind(self.metrics)

    @property
    def scores(self) -> Mapping[str, float]:
        """The model's own scores, such as `f1` and `liked_f1`."""
        return scores_of_the_model(self.metrics)

    @property
    def marks(self) -> Marks | None:
        """What was said of every user; None where an older version scored."""
        return Marks(**self.metrics["marks"]) if "marks" in self.metrics else None

    @property
    def seed(self) -> int:
        """What the run drew its parameters, batches and dropout with."""
        return self.macros.get(_SEED, 0)

    @property
    def language_model(self) -> str:
        """Such as `Flan-T5 base`."""
        parts = (self.macros.get(name) for name in ("LANGUAGE_MODEL", "LANGUAGE_MODEL_SIZE"))
        return " ".join(filter(None, parts))

    @functools.cached_property
    def settings(self) -> Mapping[str, Any]:
        """What was run: equal for runs that differ in their seed alone, or in where they ran.

        Macros, other bindings, and all else that was learned from and asked, under names of its
        own; `UNKNOWN` is what was not written down.
        """
        chosen = {
            name: value
            for name, value in self.macros.items()
            if name not in comparison.CIRCUMSTANCES and name != _SEED
        }
        return {**chosen, **self.bindings, **self._learned_from, **self._asked}

    @property
    def not_recorded(self) -> list[str]:
        """The names of settings that older versions did not write down."""
        told = self._learned_from | self._asked
        return [name for name in _MAY_LACK if UNKNOWN in told[name]]

    @property
    def _learned_from(self) -> dict[str, Any]:
        """The data of training, beside what macros say of it."""
        encoder, files = self.manifest.encoder, self.manifest.files
        channels = [
            channel.name if channel.width == encoder.width else f"{channel.name} ({channel.width})"
            for channel in self.manifest.channels
        ]
        splits = self.manifest.splits
        train, validation = (splits.get(name, Split(0, 0)) for name in ("train", "validation"))
        digests = (train.sha256, validation.sha256)
        users = UNKNOWN
        if None not in digests:
            users = _short(hashlib.sha256(" ".join(digests).encode()).hexdigest())
        return {
            "ENCODER": self.encoder,
            "CHANNELS": ", ".join(channels),
            "CATALOGUE": self.catalogue,
            "MOVIES": _short(files.get(str(MOVIES))),
            "VOCABULARY": _short(files.get(str(VOCABULARY))),
            "TRAINING_USERS": f"{train.examples}, chosen by {validation.examples} ({users})",
        }

    @property
    def _asked(self) -> dict[str, Any]:
        """What was asked of the model, in which state, and how it answered."""
        metrics = self.metrics
        # Tasks are named by the history length; where another one was asked for, it is told.
        task = metrics.get("task", UNKNOWN).removesuffix(f"_{self.macros.get('HISTORY_LENGTH')}")
        steps, is_best = self._when_scored
        planned = self.macros.get("TRAIN_STEPS")
        trained = "to the end" if steps == planned else f"{steps} of {planned} steps"
        checkpoint = "the best" if is_best else f"of step {metrics['step']}"
        decoding = {True: "within the grammar", False: "free"}
        return {
            "SPLIT": (metrics["split"], metrics["examples"], metrics.get("split_sha256")),
            "TASK": task,
            "TRAINED": UNKNOWN if steps is None else trained,
            "CHECKPOINT": UNKNOWN if is_best is None else checkpoint,
            "ANSWERS": decoding.get(metrics.get("well_formed"), UNKNOWN),
        }

    @functools.cached_property
    def validation_scores(self) -> list[Mapping[str, int | float]]:
        """The scores on written answers while training, each with its `step`, in order.

        Of a mixture they are the means over its tasks, as those that choose its best checkpoint.
        """
        by_step: dict[int, list[dict[str, int | float]]] = {}
        for file in buckets.named(self.path / "inference_eval", "*-metrics.jsonl"):
            # A run that was resumed may have scored a step twice; the later line counts.
            for step, row in {row["step"]: row for row in _json_lines(file)}.items():
                # A metric of a task's own may be a text or a table.
                numbers = {k: value for k, value in row.items() if isinstance(value, int | float)}
                by_step.setdefault(step, []).append(numbers)
        return [{**metrics.mean_scores(by_step[step]), "step": step} for step in sorted(by_step)]

    @functools.cached_property
    def training_losses(self) -> list[tuple[int, float]]:
        """The training loss, as (step, loss) in order."""
        return _read_scalar(self.path / "train", "loss")


def read_scores(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `uem-t5x evaluate --output` wrote.

    Raises:
      InputError: if it is not that.
      OSError: if there is no such file.
    """
    file = epath.Path(path)
    try:
        metrics = json.loads(file.read_text())
        if "metrics" not in metrics:  # of questions it has these
            scores_of_the_model(metrics), metrics["confusion"]
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise InputError(
            f"{file}: not the scores of this version of `uem-t5x evaluate`; score it again"
        ) from error
    return metrics


def scores_of_the_model(metrics: Mapping[str, Any]) -> Mapping[str, float]:
    """Returns of the scores of all methods those of the model."""
    return metrics["methods"][_kind(metrics)]


def _kind(metrics: Mapping[str, Any]) -> str:
    return next(name for name in (UEM, TEXT) if name in metrics["methods"])


def _short(checksum: str | None) -> str:
    """Returns as much of a checksum as tells it from others."""
    return UNKNOWN if checksum is None else checksum[:_SHOWN_DIGITS]


def _json_lines(file: epath.Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a file of JSON lines, but for one that a killed process left half."""
    for line in file.read_text().splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _read_scalar(folder: epath.Path, tag: str) -> list[tuple[int, float]]:
    """Reads a scalar from TensorBoard's event files; of a step written twice, the later one."""
    startup.load("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util import tensor_util

    by_step: dict[int, float] = {}
    for file in buckets.named(folder, "events.out.tfevents.*"):
        events = event_accumulator.EventAccumulator(
            os.fspath(file), size_guidance={event_accumulator.TENSORS: 0}
        )
        events.Reload()
        if tag in events.Tags()["tensors"]:
            by_step |= {
                event.step: float(tensor_util.make_ndarray(event.tensor_proto))
                for event in events.Tensors(tag)
            }
    return sorted(by_step.items())
