"""A trained model, read back from its MODEL_DIR alone."""

import dataclasses
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import gin
import seqio

from uem_t5x import engine
from uem_t5x.base import file_handles
from uem_t5x.base.errors import InputError
from uem_t5x.checkpoints import folders
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.inputs import answer_grammar, batches, data_sources, vocabularies
from uem_t5x.inputs.questions import Questioner, Questions
from uem_t5x.models import EncoderDecoderModel
from uem_t5x.network import layouts
from uem_t5x.network.grammar import Grammar
from uem_t5x.network.types import Batch, PyTree
from uem_t5x.runs import model_dir as model_dir_lib
from uem_t5x.runs import recipes
from uem_t5x.training import partitioning, trainer
from uem_t5x.training.checkpoint_manager import CheckpointManager
from uem_t5x.training.predictor import Predictor

# gin holds one recipe at a time.
_READING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A checkpoint, what it takes to ask it, and the catalogue of movies it knows.

    Once it is loaded it needs nothing that other models share, and answers in any thread.

    Attributes:
      model: the model.
      partitioner: how arrays lie on the devices.
      params: its parameters.
      flax_mutables: its item table.
      step: the step of the checkpoint.
      trained_steps: how far training had come by then: the step of the most recent checkpoint.
      is_best: whether the checkpoint is what is taken where no step is given.
      catalogue: movies, genres, sentence encoder and vocabulary, but no examples.
      data_dir: the dataset folder it was trained on; None where the recipe names none.
      task: the SeqIO task that it is asked by.
      questioners: by the names of the task, or of each task of a mixture, what asks about users.
      feature_lengths: the padded length of every feature of the task.
      batch_size: of evaluation, as in the recipe.
      grammar: what its answers are kept within, so that they can be read back; None for nothing.
    """

    model: EncoderDecoderModel
    partitioner: partitioning.Partitioner
    params: PyTree
    flax_mutables: PyTree
    step: int
    trained_steps: int
    is_best: bool
    catalogue: DatasetFolder
    data_dir: str | None
    task: str
    questioners: Mapping[str, Questioner]
    feature_lengths: Mapping[str, int]
    batch_size: int
    grammar: Grammar | None = None
    _predictors: dict[int, Predictor] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def load(
        cls,
        model_dir: str | os.PathLike[str],
        step: int | None = None,
        well_formed: bool | None = None,
        layout: str = "data",
        task: str | None = None,
    ) -> "TrainedModel":
        """Loads a checkpoint.

        Args:
          model_dir: what `python -m uem_t5x.train` wrote.
          step: of the checkpoint; None for the best by validation F1, or else the latest.
          well_formed: whether answers are kept within a grammar; None for wherever the task has
            one, see `answer_grammar.where_there_is_one`.
          layout: what is split over the devices, see `layouts.Layout.parse`; it need not be that
            of training, and changes no answer.
          task: what to ask, of the same features: one of the mixture that it was trained on; None
            for what it was trained on.

        Raises:
          InputError: if the folder holds no trained model, or not this step of it, or the devices
            cannot share the model so, or there is no such task, or no grammar of its answers though
            they shall be kept within one.
        """
        file_handles.take()
        partitioner = partitioning.Partitioner(layouts.Layout.parse(layout))
        recipe = model_dir_lib.answering_recipe(model_dir)  # before what a run alone has beside it
        catalogue = model_dir_lib.catalogue(model_dir)
        recorded = _read(recipe, model_dir, catalogue, task, well_formed)
        found = folders.find(model_dir)
        if not found or (step is not None and step not in found):
            raise InputError(
                f"{model_dir}: no checkpoint{'' if step is None else f' of step {step}'}; it has "
                f"{', '.join(map(str, found)) or 'none'}"
            )
        is_best = step in (None, folders.best(model_dir))
        if step is None:
            step = folders.choose(model_dir)
        else:
            folders.check(found[step])
        variables = _lay_out(recorded["model"], recorded["feature_lengths"], partitioner)
        with CheckpointManager(model_dir) as manager:
            params, flax_mutables = manager.restore_for_inference(step, variables)
        return cls(
            partitioner=partitioner,
            params=params,
            flax_mutables=flax_mutables,
            step=step,
            trained_steps=max(found),
            is_best=is_best,
            catalogue=catalogue,
            **recorded,
        )

    @property
    def well_formed(self) -> bool:
        """Whether it writes nothing but answers that can be read back."""
        return self.grammar is not None

    @property
    def reads_embeddings(self) -> bool:
        """Whether histories reach the model as embeddings, and not as text."""
        return "history_items" in self.feature_lengths

    @property
    def history_length(self) -> int | None:
        """The number of most recent items that the model reads: the paper's p.

        None if neither its task nor its features say how many.
        """
        lengths = [questioner.history_length for questioner in self.questioners.values()]
        return None if None in lengths else max(lengths)

    def ask(self, users: Sequence[Mapping[str, Any]]) -> Questions:
        """Returns an example of each user, by the steps of its task; see `Questioner`.

        Raises:
          InputError: if it was trained on a mixture of tasks, or as in `Questioner`.
        """
        if self.task not in self.questioners:
            raise InputError(
                f"{self.task}: a mixture of tasks has no one question; name one of its tasks: "
                f"--task {', '.join(sorted(self.questioners))}"
            )
        return self.questioners[self.task](users)

    def answerer(self, batch_size: int) -> "Answerer":
        """Returns what writes answers, compiled once for batches of one size.

        Raises:
          InputError: if the devices cannot share such a batch.
        """
        self.partitioner.check_batch_size(batch_size, "--batch-size")
        if batch_size not in self._predictors:
            made = Predictor(self.model, self.partitioner, batch_size, grammar=self.grammar)
            self._predictors.setdefault(batch_size, made)
        return Answerer(self, self._predictors[batch_size])


@dataclasses.dataclass(frozen=True)
class Answerer:
    """Writes the sentences of a trained model."""

    trained: TrainedModel
    predictor: Predictor

    def __call__(
        self, batch: Batch, flax_mutables: PyTree | None = None, index: int = 0
    ) -> list[str]:
        """Returns the sentence for every example of a batch.

        Args:
          batch: the model's features, of at most the compiled number of examples.
          flax_mutables: replaces the item table, to answer about movies that it lacks.
          index: of the batch; a `decode_fn` that draws does so anew for each.
        """
        trained = self.trained
        mutables = trained.flax_mutables if flax_mutables is None else flax_mutables
        tokens = self.predictor.predict_batch(trained.params, mutables, batch, index)
        return [trained.model.output_vocabulary.decode(ids) for ids in tokens.tolist()]


def _read(
    recipe: str,
    model_dir: str | os.PathLike[str],
    catalogue: DatasetFolder,
    task: str | None,
    well_formed: bool | None,
) -> dict[str, Any]:
    """Returns those attributes of a model that its recipe tells; gin is left as it was."""
    vocabulary_file = os.fspath(model_dir_lib.vocabulary(model_dir))
    with (
        _READING,
        recipes.gin_as_it_was(),
        engine.built_in(),
        data_sources.use_dataset_folder(catalogue),
        vocabularies.use_model_file(vocabulary_file),
    ):
        recipes.parse_text(recipe, os.fspath(model_dir))
        data_dir = recipes.current_macros().get("DATA_DIR")
        model, config = gin.get_configurable(engine.answering)()
        config = dataclasses.replace(
            config, mixture_or_task_name=task or config.mixture_or_task_name, use_cached=False
        )
        asked = batches.task_of(config)
        grammar = None
        if well_formed is not False:
            grammar = answer_grammar.where_there_is_one(
                model.takes_grammar, asked, bool(well_formed)
            )
        converter, lengths = model.FEATURE_CONVERTER_CLS, config.task_feature_lengths
        asks = [Questioner(part, lengths, converter) for part in seqio.get_subtasks(asked)]
    # Its own, and not the current one.
    model.input_vocabulary = model.output_vocabulary = vocabularies.load(vocabulary_file)
    return {
        "model": model,
        "data_dir": data_dir,
        "task": config.mixture_or_task_name,
        "questioners": {questioner.task: questioner for questioner in asks},
        "feature_lengths": lengths,
        "batch_size": config.batch_size,
        "grammar": grammar,
    }


def _lay_out(
    model: EncoderDecoderModel, lengths: Mapping[str, int], partitioner: partitioning.Partitioner
) -> dict[str, PyTree]:
    """Returns the shapes of a model's variables by collection, and where they shall lie."""
    lengths = model.FEATURE_CONVERTER_CLS(pack=False).get_model_feature_lengths(lengths)
    shapes = {name: (1, length) for name, length in lengths.items()}
    return partitioner.lay_out(trainer.variable_shapes(model, shapes))
