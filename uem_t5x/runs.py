"""What a finished run was and what came of it, read back from its MODEL_DIR without its model."""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from uem_t5x import buckets, gin_utils, startup
from uem_t5x import model_dir as model_dir_lib
from uem_t5x.data.manifest import Manifest
from uem_t5x.errors import InputError

METRICS = "metrics.json"
UEM, TEXT = "uem", "text"
_SEED = "RANDOM_SEED"


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
        try:
            metrics = json.loads(file.read_text())
            metrics["methods"], metrics["confusion"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file}: not the scores of this version of `uem-t5x evaluate`; score it again"
            ) from error
        macros, bindings = gin_utils.read(recipe)
        return cls(
            path=folder,
            macros=macros,
            bindings=bindings,
            manifest=model_dir_lib.catalogue(folder).manifest,
            metrics=metrics,
        )

    @property
    def encoder(self) -> str:
        """Name and width of the sentence encoder, such as `hashing, 96`."""
        return f"{self.manifest.encoder.name}, {self.manifest.encoder.width}"

    @property
    def catalogue(self) -> str:
        """What tells this catalogue of movies from others."""
        return " ".join(sorted(self.manifest.inputs.values()))

    @property
    def kind(self) -> str:
        """How the history reaches the language model: `uem` or `text`."""
        return next(name for name in (UEM, TEXT) if name in self.metrics["methods"])

    @property
    def scores(self) -> Mapping[str, float]:
        """The model's own scores, such as `f1` and `liked_f1`."""
        return self.metrics["methods"][self.kind]

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

        Macros, other bindings, and the data's own: `ENCODER`, `CATALOGUE`, `SPLIT`.
        """
        chosen = {
            name: value
            for name, value in self.macros.items()
            if name not in gin_utils.CIRCUMSTANCES and name != _SEED
        }
        data = {
            "ENCODER": self.encoder,
            "CATALOGUE": self.catalogue,
            "SPLIT": (
                self.metrics["split"],
                self.metrics["examples"],
                self.metrics.get("split_sha256"),
            ),
        }
        return {**chosen, **self.bindings, **data}

    @functools.cached_property
    def validation_scores(self) -> list[Mapping[str, int | float]]:
        """The scores on written answers while training, each with its `step`, in order."""
        by_step = {}
        folder = self.path / "inference_eval"
        for file in buckets.named(folder, "*-metrics.jsonl"):
            # A run that was resumed may have scored a step twice; the later line counts.
            by_step |= {row["step"]: row for row in _json_lines(file)}
        return [by_step[step] for step in sorted(by_step)]

    @functools.cached_property
    def training_losses(self) -> list[tuple[int, float]]:
        """The training loss, as (step, loss) in order."""
        return _read_scalar(self.path / "train", "loss")


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
