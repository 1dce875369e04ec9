"""A trained model as a Python object: answers, vectors, and what they rest on.

import uem_t5x

model = uem_t5x.load("runs/model")
model.answer([{"movieId": 1, "rating": 4.5}])["answer"]
model.embed([[{"movieId": 1, "rating": 4.5}]]).shape
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from flax import traverse_util
from jaxtyping import Float, Float32, Shaped

from uem_t5x.answers import predict
from uem_t5x.answers.programs import Programs
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.answers.user_lines import Movie, User
from uem_t5x.base.errors import InputError
from uem_t5x.network import stacks
from uem_t5x.network.attention import ATTENTION_WEIGHTS
from uem_t5x.network.soft_prompt import GivenPrompt
from uem_t5x.network.types import Batch, PyTree
from uem_t5x.training.partitioning import pad_batch
from uem_t5x.training.predictor import Predictor

# What programs are compiled for; fewer users are padded to the next one.
BATCH_SIZES = (1, 8, 32)
# As `predict` takes them: `{"movieId": ..., "rating": ...}` and the like, oldest first.
History: TypeAlias = Sequence[Mapping[str, Any]]


def load(
    model_dir: str | os.PathLike[str],
    step: int | None = None,
    well_formed: bool | None = None,
    layout: str = "data",
    task: str | None = None,
) -> "Model":
    """Loads a trained model.

    Args:
      model_dir: what training wrote; it may be in a bucket.
      step: of the checkpoint; None for the best one.
      well_formed: see `TrainedModel.load`, as the others.
      layout: see above.
      task: see above.

    Raises:
      InputError: as in `TrainedModel.load`.

    >>> model = uem_t5x.load(model_dir)
    >>> model.trained.task
    'movielens_genres_uem_20'
    """
    return Model(TrainedModel.load(model_dir, step, well_formed, layout, task))


class Model:
    """A trained model that answers for users and embeds them, from any thread.

    What it does is compiled once for each of `BATCH_SIZES`, when it is first needed: a second or
    two; a user takes milliseconds from then on.

    Attributes:
      trained: the checkpoint, and what it takes to ask it.
    """

    def __init__(self, trained: TrainedModel) -> None:
        """Makes ready to read users of the model's catalogue."""
        self.trained = trained
        self._movies = trained.catalogue.movies()
        self._reader = predict.reader_of(trained)
        self._encoder = predict.ItemEncoder(trained)
        self._programs = Programs(trained)
        self._given: dict[int, Predictor] = {}

    # --- Answers ---

    def answer(
        self, history: History, question: str | None = None, explain: bool = False
    ) -> dict[str, Any]:
        """Answers for one user.

        Args:
          history: what the user rated, oldest first unless all items have a `timestamp`.
          question: where the model was trained on questions of one's own.
          explain: tells how much each item mattered.

        Returns:
          `answer`, `liked` and `disliked` (class names; not of a question of one's own), `items`
          (how many were read) and the other counts of `predict.predict`; with `explain` `weights`,
          see `answer_all`.

        Raises:
          InputError: if the history cannot be read.

        >>> told = model.answer([{"movieId": 1, "rating": 4.5}, {"movieId": 2, "rating": 1}])
        >>> told["items"], sorted(told)[:4]
        (2, ['answer', 'described', 'disliked', 'dropped'])
        """
        asked = {} if question is None else {"question": question}
        (told,) = self.answer_all([{"history": history, **asked}], explain)
        del told["user_id"]
        return told

    def answer_all(
        self, users: Iterable[Mapping[str, Any]], explain: bool = False
    ) -> list[dict[str, Any]]:
        """Answers for users, in order.

        Args:
          users: `{"user_id": ..., "history": [...]}`, and `question` where the model needs one.
          explain: adds `weights` to each answer: of every item that was read, oldest first, its
            `item` (the id; None of one that was only described), `title`, and `weight`: the
            gradient of the answer's log-likelihood by the item's vector, times the vector, summed
            (Simonyan et al., arXiv 1312.6034). It is positive for what speaks for the answer.

        Returns:
          What `predict.predict` yields of each.

        Raises:
          InputError: if a history cannot be read, naming the user's number; or answers cannot be
            explained, as those of a model that reads text.

        >>> users = [{"user_id": n, "history": [{"movieId": n, "rating": 3}]} for n in (1, 2)]
        >>> [told["user_id"] for told in model.answer_all(users)]
        [1, 2]
        """
        asked = self._read(users)
        told: list[dict[str, Any]] = []
        for some in _in_batches(asked):
            size = self._compiled_size(len(some))
            told += predict.predict(self.trained, some, size, self._encoder)
        if explain:
            for answer, user in zip(told, asked):
                answer["weights"] = self._weights(user, answer)
        return told

    # --- Vectors ---

    def embed(
        self, histories: Sequence[History], pooled: bool = False
    ) -> Float32[np.ndarray, "users *tokens width"]:
        """Returns the soft prompt of each history, as the language model's encoder reads it.

        Args:
          histories: one for each user.
          pooled: the mean of what is made of the items, and not every token.

        Returns:
          [users, tokens, width], first the task prompts, which are the same for all; or [users,
          width] if `pooled`. Where there is no item a token is all zeros.

        Raises:
          InputError: if a history cannot be read, or the model reads text.

        >>> histories = [[{"movieId": 1, "rating": 4.5}], [{"movieId": 2, "rating": 1}]]
        >>> model.embed(histories).shape[:2] == (2, 24 + 20)  # task prompts and items
        True
        >>> model.embed(histories, pooled=True).ndim
        2
        """
        return self.embed_users(self._read([{"history": history} for history in histories]), pooled)

    def embed_users(
        self, users: Sequence[User], pooled: bool = False
    ) -> Float32[np.ndarray, "users *tokens width"]:
        """Returns the soft prompts of users that were read already; see `embed`."""
        if not self.trained.reads_embeddings:
            raise InputError("the model reads histories as text, and makes no vectors of them")
        parts = []
        for some in _in_batches(users):
            features, table, _ = self._features(some)
            made = self._programs.prompt(self.trained.params, table, self._shard(features))
            vectors, mask = (np.asarray(part)[: len(some)] for part in made)
            vectors = np.where(mask[..., np.newaxis], vectors, 0).astype(np.float32)
            parts.append(self._pooled(vectors, mask) if pooled else vectors)
        if parts:
            return np.concatenate(parts)
        return np.zeros((0, self.trained.model.module.config.emb_dim), np.float32)

    def answer_vectors(
        self,
        vectors: Float[np.ndarray, "*users_tokens_width"],
        questions: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Answers for users that were embedded before; the answers are those of their histories.

        Args:
          vectors: what `embed` returned, not pooled; all zeros for a token that is none.
          questions: of each, where the model was trained on questions of one's own.

        Returns:
          `answer`, and `liked` and `disliked` (not of a question of one's own).

        Raises:
          InputError: if the vectors are of another width, or questions are missing.

        >>> vectors = model.embed([[{"movieId": 1, "rating": 4.5}]])
        >>> told = model.answer_vectors(vectors)[0]["answer"]
        >>> told == model.answer([{"movieId": 1, "rating": 4.5}])["answer"]
        True
        """
        width = self.trained.model.module.config.emb_dim
        if not self.trained.reads_embeddings or vectors.ndim != 3 or vectors.shape[2] != width:
            raise InputError(
                f"vectors of shape {list(vectors.shape)}: give [users, tokens, {width}], as "
                "`embed` returns them unless they are pooled"
            )
        telling = self.trained.catalogue.telling
        questions = questions or [""] * len(vectors)
        if len(questions) != len(vectors) or any(
            telling.has_questions != bool(question) for question in questions
        ):
            raise InputError(f"{len(questions)} questions for {len(vectors)} users: give each one")
        told = []
        for first in range(0, len(vectors), BATCH_SIZES[-1]):
            some = slice(first, first + BATCH_SIZES[-1])
            told += self._answer_vectors(np.asarray(vectors[some], np.float32), questions[some])
        return told

    # --- What answers rest on ---

    def attention(self, history: History, question: str | None = None) -> dict[str, np.ndarray]:
        """Returns the attention weights of every layer that reads a history.

        Args:
          history: see `answer`.
          question: see `answer`.

        Returns:
          By the layer's name, such as `encoder/layers_0/attention`, [heads, queries, keys].

        Raises:
          InputError: if the history cannot be read.

        >>> weights = model.attention([{"movieId": 1, "rating": 4.5}])
        >>> sorted(weights)[0]
        'encoder/layers_0/attention'
        """
        asked = {} if question is None else {"question": question}
        features, table, _ = self._features(self._read([{"history": history, **asked}]))
        _, state = self._programs.attention(self.trained.params, table, self._shard(features))
        sown = traverse_util.flatten_dict(stacks.unstack(state["intermediates"]), sep="/")
        return {
            name.removesuffix(f"/{ATTENTION_WEIGHTS}"): np.asarray(weights)[0]
            for name, (weights,) in sown.items()
            if name.endswith(ATTENTION_WEIGHTS)
        }

    def _weights(self, user: User, told: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns how much each item of a user mattered for the answer; see `answer_all`."""
        if not self.trained.reads_embeddings:
            raise InputError("the model reads histories as text: its answers cannot be explained")
        if not told["items"]:
            return []
        features, table, read = self._features([user])
        vocabulary = self.trained.model.output_vocabulary
        targets = features["decoder_target_tokens"]
        tokens = [*vocabulary.encode(told["answer"]), vocabulary.eos_id][: targets.shape[1]]
        targets[0, : len(tokens)] = tokens
        weights = np.asarray(
            self._programs.gradient(self.trained.params, table, self._shard(features))
        )[0]
        named = [
            {"item": None, "title": item.title}
            if isinstance(item, Movie)
            else {"item": self._movies["movieId"][item], "title": self._movies["title"][item]}
            for item in read
        ]
        # Positions beyond these are padding.
        return [{**names, "weight": weight} for names, weight in zip(named, weights.tolist())]

    # --- Programs ---

    def _shard(self, batch: Mapping[str, np.ndarray]) -> Batch:
        return self.trained.partitioner.shard_batch(batch)

    def _answer_vectors(
        self, vectors: Float32[np.ndarray, "users tokens width"], questions: Sequence[str]
    ) -> list[dict[str, Any]]:
        # The text of a batch is that of users who rated something, whatever it is.
        examples = [
            {"user_id": b"", "history_items": [1], "history_ratings": [1], "question": question}
            for question in questions
        ]
        asked = self.trained.ask(examples).features
        text = {name: asked[name] for name in asked if not name.startswith("history_")}
        batch = {
            **text,
            "soft_prompt": vectors,
            "soft_prompt_mask": np.any(vectors != 0, axis=2),
        }
        predictor = self._given_predictor(self._compiled_size(len(vectors)))
        tokens = predictor.predict_batch(self.trained.params, {}, batch)
        vocabulary = self.trained.model.output_vocabulary
        answers = [vocabulary.decode(ids) for ids in tokens.tolist()]
        return [{"answer": answer, **predict.tastes_in(self.trained, answer)} for answer in answers]

    def _given_predictor(self, size: int) -> Predictor:
        if size not in self._given:
            model = self.trained.model.with_soft_prompt(GivenPrompt())
            partitioner, grammar = self.trained.partitioner, self.trained.grammar
            self._given.setdefault(size, Predictor(model, partitioner, size, grammar=grammar))
        return self._given[size]

    def _compiled_size(self, users: int) -> int:
        """Returns for how many users the program is that answers so many."""
        devices = self.trained.partitioner.mesh.shape["data"]
        size = next(size for size in BATCH_SIZES if size >= users)
        return -(-size // devices) * devices

    # --- Users ---

    def _read(self, users: Iterable[Mapping[str, Any]]) -> list[User]:
        read = []
        for number, user in enumerate(users):
            try:
                read.append(self._reader.read({**user, "history": list(user["history"])}))
            except (KeyError, TypeError, InputError) as error:
                told = error if isinstance(error, InputError) else 'expected {"history": [...]}'
                raise InputError(f"user {number}: {told}") from error
        return read

    def _features(
        self, users: Sequence[User]
    ) -> tuple[dict[str, np.ndarray], PyTree, list[int | Movie]]:
        """Returns the features of at most a batch of users, their item table, and what was read.

        The last is of all users, end to end: rows of the catalogue, or described items.
        """
        encoder = self._encoder
        examples, described = encoder.examples(users)
        asked = self.trained.ask(examples)
        first = encoder.first_row
        read = [described[row - first] if row >= first else row for row in asked.items.tolist()]
        features, table = encoder.embed(asked.features, described)
        padded = pad_batch(features, self._compiled_size(len(users)))
        return {name: np.array(array) for name, array in padded.items()}, table, read

    def _pooled(
        self,
        vectors: Float32[np.ndarray, "users tokens width"],
        mask: Shaped[np.ndarray, "users tokens"],
    ) -> Float32[np.ndarray, "users width"]:
        # Of a soft prompt of one's own nobody knows which tokens are those of the task.
        first = getattr(self.trained.model.module.soft_prompt, "prompt_length", 0)
        counts = np.maximum(mask[:, first:].sum(axis=1, keepdims=True), 1)
        return vectors[:, first:].sum(axis=1) / counts.astype(np.float32)


def _in_batches(users: Sequence[User]) -> Iterator[Sequence[User]]:
    for first in range(0, len(users), BATCH_SIZES[-1]):
        yield users[first : first + BATCH_SIZES[-1]]
