"""A trained model, read back from its MODEL_DIR alone."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

import gin
from etils import epath

from uem_t5x import train
from uem_t5x.base import file_handles
from uem_t5x.base.errors import InputError
from uem_t5x.checkpoints import folders
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.inputs import batches, data_sources, vocabularies
from uem_t5x.inputs.answer_grammar import Grammar
from uem_t5x.inputs.batches import DatasetConfig
from uem_t5x.models import EncoderDecoderModel
from uem_t5x.network import layouts
from uem_t5x.network.types import Batch, PyTree
from uem_t5x.runs import model_dir as model_dir_lib
from uem_t5x.runs import recipes
from uem_t5x.training import partitioning, trainer
from uem_t5x.training.checkpoint_manager import CheckpointManager
from uem_t5x.training.predictor import Predictor, grammar_of

_CHANGES_OF_TRAINING_USERS = ("training_stretches", "random_tastes")


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A checkpoint, the recipe that made it, and the catalogue of movies it knows.

    Attributes:
      model: the model.
      partitioner: how arrays lie on the devices.
      params: its parameters.
      flax_mutables: its item table.
      step: the step of the checkpoint.
      trained_steps: how far training had come by then: the step of the most recent checkpoint.
      is_best: whether the checkpoint is what is taken where no step is given.
      catalogue: movies, genres, sentence encoder and vocabulary, but no examples.
      data_dir: the dataset folder it was trained on.
      task: the SeqIO task that it is asked by.
      feature_lengths: the padded length of every feature of the task.
      batch_size: of evaluation, as in the recipe.
      settings: gin's configuration, of the recipe as it is answered with.
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
    data_dir: str
    task: str
    feature_lengths: Mapping[str, int]
    batch_size: int
    settings: str
    grammar: Grammar | None = None

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
          well_formed: whether answers are kept within a grammar, see `infer.grammar_of`; None for
            wherever the task has one.
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
        recipe = model_dir_lib.recipe(model_dir)
        catalogue = model_dir_lib.catalogue(model_dir)
        with data_sources.use_dataset_folder(catalogue):
            arguments = _train_arguments(recipe, model_dir_lib.vocabulary(model_dir))
            dataset_cfg, model = arguments["infer_eval_dataset_cfg"], arguments["model"]
            if task:
                dataset_cfg = dataclasses.replace(dataset_cfg, mixture_or_task_name=task)
            grammar = None
            if well_formed is not False:
                asked = batches.task_of(dataclasses.replace(dataset_cfg, use_cached=False))
                grammar = grammar_of(model, asked, required=bool(well_formed))
            variables = _lay_out(model, dataset_cfg, partitioner)
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
        with CheckpointManager(model_dir) as manager:
            params, flax_mutables = manager.restore_for_inference(step, variables)
        # Its own, and not the current one, which another model may have set by then.
        vocabulary = vocabularies.load(str(catalogue.vocabulary_path))
        model.input_vocabulary = model.output_vocabulary = vocabulary
        return cls(
            model=model,
            partitioner=partitioner,
            params=params,
            flax_mutables=flax_mutables,
            step=step,
            trained_steps=max(found),
            is_best=is_best,
            catalogue=catalogue,
            data_dir=gin.query_parameter("DATA_DIR/macro.value"),
            task=dataset_cfg.mixture_or_task_name,
            feature_lengths=dataset_cfg.task_feature_lengths,
            batch_size=dataset_cfg.batch_size,
            settings=gin.config_str(),
            grammar=grammar,
        )

    @contextlib.contextmanager
    def current(self, folder: DatasetFolder | None = None) -> Iterator[None]:
        """Lets tasks, their steps, vocabularies and metrics mean this model's, inside a `with`.

        They ask gin, which may hold the recipe of a model that was loaded since; it holds this one
        afterwards. One thread at a time may do so; an `Answerer` does not need it.

        Args:
          folder: where to read users, of the model's catalogue; the catalogue itself has none.
        """
        with recipes.main_module(train):
            recipes.use_settings(self.settings)
        with (
            data_sources.use_dataset_folder(folder or self.catalogue),
            vocabularies.use_model_file(str(self.catalogue.vocabulary_path)),
        ):
            yield

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

        None if neither the task's name ends in it nor its features are so many.
        """
        given = [self.feature_lengths["history_items"]] if self.reads_embeddings else []
        if (number := self.task.rpartition("_")[2]).isdecimal():
            given.append(int(number))
        return min(given, default=None)

    def answerer(self, batch_size: int) -> "Answerer":
        """Returns what writes answers, compiled for batches of one size.

        Raises:
          InputError: if the devices cannot share such a batch.
        """
        self.partitioner.check_batch_size(batch_size, "--batch-size")
        predictor = Predictor(self.model, self.partitioner, batch_size, grammar=self.grammar)
        return Answerer(self, predictor)


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


def _lay_out(
    model: EncoderDecoderModel, config: DatasetConfig, partitioner: partitioning.Partitioner
) -> dict[str, PyTree]:
    """Returns the shapes of a model's variables by collection, and where they shall lie."""
    converter = model.FEATURE_CONVERTER_CLS(pack=False)
    lengths = converter.get_model_feature_lengths(config.task_feature_lengths)
    shapes = {name: (1, length) for name, length in lengths.items()}
    return partitioner.lay_out(trainer.variable_shapes(model, shapes))


def _train_arguments(recipe: epath.Path, vocabulary: epath.Path) -> dict[str, Any]:
    """Returns the arguments that a recipe gives to `train`.

    What they say of the vocabulary's place, and of the devices that T5X shared the model over, was
    true of the training machines. Training users are asked about as they are, too.
    """
    here = [f"SENTENCEPIECE_MODEL_FILE = {os.fspath(vocabulary)!r}", "LAYOUT = 'data'"]
    with recipes.main_module(train):
        recipes.parse([recipe], here)
        with gin.unlock_config():
            for change in _CHANGES_OF_TRAINING_USERS:
                gin.bind_parameter(f"uem_t5x.inputs.preprocessors.{change}.probability", 0.0)
        return gin.get_bindings(train.train, resolve_references=True)
