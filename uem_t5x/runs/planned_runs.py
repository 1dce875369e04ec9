"""A run of a sweep: the commands that it is, and whether they have been run."""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etils import epath

from uem_t5x.base import buckets, checksums
from uem_t5x.base.errors import InputError
from uem_t5x.data import manifest
from uem_t5x.runs import comparison, recipes

if TYPE_CHECKING:
    from uem_t5x.data.dataset_folder import DatasetFolder

FOLDER = "MODEL_DIR"
SCORED_SPLIT = "test"  # what `uem-t5x evaluate` scores where nothing else is asked for
_DATA, _VOCABULARY = "DATA_DIR", "SENTENCEPIECE_MODEL_FILE"
_TOTAL_STEPS = "train_script.train.total_steps"


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep.

    Attributes:
      name: of its folder: the recipe, the macros of its own, the seed.
      model_dir: where it goes.
      recipe: such as `gin/uem_tiny.gin`.
      bound: macros and parameters that are bound beside the recipe, as gin literals.
      macros: the values of all macros, as `recipes.read` returns them.
      parameters: those of all other settings.
    """

    name: str
    model_dir: str
    recipe: str
    bound: Mapping[str, str]
    macros: Mapping[str, Any]
    parameters: Mapping[str, Any]

    @property
    def setting(self) -> str:
        """The name, without the seed."""
        return self.name.rpartition("-seed=")[0]

    @property
    def metrics_file(self) -> str:
        """Where its scores go."""
        return f"{self.model_dir}/metrics.json"

    def is_finished(self) -> bool:
        """Says whether the run is trained to its end, and scored since.

        Scores of older versions do not say how far training had come. As long as there are
        checkpoints, such a run is not finished: its commands train no more than is left, and score
        it again.

        Raises:
          InputError: if its folder holds a run of other settings or other data, or scores of this
            run that are not those which its commands write.
        """
        recipe = epath.Path(self.model_dir) / "config.gin"
        if not recipe.is_file():
            return False
        others = (
            comparison.other_macros(recipe, self.macros),
            comparison.other_parameters(recipe, self.macros, self.parameters, self.bound),
            self._other_data(recipe),
        )
        if any(others):
            raise InputError(
                f"{self.model_dir}: holds a run with {', '.join(filter(None, others))}; give "
                "another --output, or delete it"
            )
        if not epath.Path(self.metrics_file).is_file():
            return False
        trained_steps = self._read_scores().get("trained_steps")
        if trained_steps is None:
            return not buckets.named(self.model_dir, "checkpoint_*")
        total_steps = recipes.follow(self.parameters.get(_TOTAL_STEPS), self.macros)
        return not isinstance(total_steps, int) or trained_steps >= total_steps

    def commands(self) -> list[list[str]]:
        """Returns the arguments of the commands that train and score, one after the other."""
        bound = {**self.bound, FOLDER: repr(self.model_dir)}
        macros = [f"--gin.{name}={_for_shell(literal)}" for name, literal in bound.items()]
        train = ["-m", "uem_t5x.train", f"--gin_file={self.recipe}", *macros]
        score = ["-m", "uem_t5x.cli", "evaluate", "--model-dir", self.model_dir]
        return [train, [*score, "--output", self.metrics_file]]

    def shell_line(self) -> str:
        """Returns both commands as one line of shell."""
        return " && ".join(shlex.join(["python", *command]) for command in self.commands())

    @property
    def _catalogue(self) -> "DatasetFolder | None":
        from uem_t5x.data.dataset_folder import CATALOGUE

        return _opened(f"{self.model_dir}/{CATALOGUE}")

    def _other_data(self, recipe: epath.Path) -> str | None:
        """Says on what other data, or with which other vocabulary, the run of a recipe was trained.

        What is not here to compare, as a cluster's folders may not be, goes by its name.
        """
        from uem_t5x.data.dataset_folder import VOCABULARY
        from uem_t5x.runs import model_dir as model_dir_lib

        before, _ = recipes.read(recipe)
        (old_folder, folder), (old_file, file) = (
            [recipes.follow(macros.get(name), macros) for macros in (before, self.macros)]
            for name in (_DATA, _VOCABULARY)
        )
        own, current = self._catalogue, _opened(folder)
        if own is None or current is None:
            is_other = old_folder not in (None, folder)
            return f"{_DATA} = {old_folder!r}, and not {folder!r}" if is_other else None
        if others := model_dir_lib.other_data(current, own):
            return f"other data than {_DATA} = {folder!r} ({others} of its training)"
        checksum = current.manifest.files.get(str(VOCABULARY))
        if file is not None:
            is_here = not buckets.is_remote(file) and epath.Path(file).is_file()
            checksum = checksums.sha256(file) if is_here else None
        if checksum is None:
            is_other = old_file != file
        else:
            is_other = checksum != own.manifest.files[str(VOCABULARY)]
        return f"another vocabulary than {file or folder}" if is_other else None

    def _read_scores(self) -> dict[str, Any]:
        """Reads the scores.

        Raises:
          InputError: if they are not what `commands` would write of the run.
        """
        mend = "move the file away, and the same command scores the run again"
        try:
            scores = json.loads(epath.Path(self.metrics_file).read_text())
            scores["methods"], scores["split"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.metrics_file}: not the scores of `uem-t5x evaluate`; {mend}"
            ) from error
        own = self._catalogue
        users = own.manifest.splits.get(SCORED_SPLIT) if own else None
        # Whether answers were kept within the grammar is for the task to say, and for reports.
        wanted = {
            "split": SCORED_SPLIT,
            "split_sha256": users.sha256 if users else None,
            "is_best": True,
        }
        for name, value in wanted.items():
            was = scores.get(name)  # None: of an older version
            if None not in (was, value) and was != value:
                raise InputError(
                    f"{self.metrics_file}: scores with {name} = {was!r}, and not {value!r}; {mend}"
                )
        return scores


def _opened(folder: str | None) -> "DatasetFolder | None":
    """Opens a dataset folder, or a catalogue, without looking at its files; None if not here."""
    if not folder or not (epath.Path(folder) / manifest.FILE_NAME).is_file():
        return None
    from uem_t5x.data.dataset_folder import DatasetFolder

    return DatasetFolder(epath.Path(folder), manifest.Manifest.read(folder))


def _for_shell(literal: str) -> str:
    """Returns a string's literal in double quotes: they need no escape within a shell's own."""
    if literal[0] not in "'\"":
        return literal
    return json.dumps(recipes.literal_value(literal), ensure_ascii=False)
