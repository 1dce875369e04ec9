"""Answers for users, each with a history: their taste, in words and as genres."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from uem_t5x.answers.user_lines import Movie, User, UserReader, movie_rows, movie_titles
from uem_t5x.base.errors import InputError
from uem_t5x.tastes import sentences

if TYPE_CHECKING:
    import numpy as np

    from uem_t5x.answers.trained_model import TrainedModel

_DESCRIBED_BY = {"title", "classes", "description"}  # what a line may say of an item
# What is said without the model, which would make a taste up.
NOTHING_KNOWN = "Nothing is known of this user's taste."
# Movies that a batch of users may bring along; a multiple, so that few shapes are compiled.
_NEW_ITEM_ROWS = 64


def why_not_described(trained: "TrainedModel") -> str | None:
    """Returns why a model cannot be told of movies that its catalogue lacks; None if it can."""
    catalogue = trained.catalogue
    if not trained.reads_embeddings:
        return "the model reads movies of its catalogue as text, and no others; leave it out"
    for channel in catalogue.channels:
        template = catalogue.telling.sentences.get(channel.name)
        is_encoded = template is not None and channel.width == catalogue.encoder_of(channel).width
        if channel.index == "item" and is_encoded:
            if lacking := set(sentences.names(template)) - _DESCRIBED_BY:
                return (
                    f"the model's channel {channel.name!r} tells of the {min(lacking)} of an item, "
                    "which is not asked for; leave it out"
                )
        elif channel.index == "item":
            return (
                f"the model's channel {channel.name!r} is not made of text, so a movie that its "
                "catalogue lacks has no embedding; leave it out"
            )
    return None


def reader_of(trained: "TrainedModel") -> UserReader:
    """Returns what reads users that a model is asked about."""
    movies, catalogue = trained.catalogue.movies(), trained.catalogue
    return UserReader(
        movie_rows(movies),
        movie_titles(movies),
        why_not_described(trained),
        catalogue.telling,
        ties_by_id=catalogue.manifest.source is None,
    )


def tastes_in(trained: "TrainedModel", answer: str) -> dict[str, list[str]]:
    """Returns `liked` and `disliked` classes of an answer; nothing of a question of one's own."""
    from uem_t5x.tastes import verbalizer

    telling = trained.catalogue.telling
    if telling.has_questions:
        return {}
    liked, disliked = verbalizer.read_answer(answer, trained.catalogue.genres, telling.wording)
    return {"liked": liked, "disliked": disliked}


def write_line(answer: dict[str, Any], encoding: str | None = None) -> str:
    """Returns the answer as a line of JSON that can be encoded; by default in UTF-8."""
    text = json.dumps(answer, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        # A terminal of ASCII, or half of a surrogate pair in a user_id, which is no character.
        return json.dumps(answer, allow_nan=False)
    return text


def predict(
    trained: "TrainedModel",
    users: Iterable[User | None],
    batch_size: int = 32,
    encoder: "ItemEncoder | None" = None,
) -> Iterator[dict[str, Any]]:
    """Answers users, in order, as the task that the model was trained on asks about them.

    Args:
      trained: the model.
      users: who is asked about; None has those before it answered before the next one is asked for.
      batch_size: most users that are answered at once; it does not change the answers.
      encoder: embeds items that are only described; None makes one.

    Yields:
      `user_id`, `answer` (the sentence, or `NOTHING_KNOWN` of a user no item of whom was read),
      `liked` and `disliked` (genre names; not of the answer to a question of one's own), `items`
      (how many the model read), how many of the user's were `known` to the catalogue, only
      `described`, or `dropped`, and, where there were any, `unknown_items` (those dropped as
      neither) and `question_tokens_lost` (of a question that is longer than the model reads).

    Raises:
      InputError: if an item is no row of the catalogue, or only described, and the model cannot
        be told of it; or the task leaves users out or changes their order.
    """
    telling = trained.catalogue.telling
    encoder = encoder or ItemEncoder(trained)
    answerer = trained.answerer(batch_size)

    def told(users: Sequence[User], index: int) -> Iterator[tuple[int, str]]:
        """Yields how many items were read of each user, and the answer."""
        if not users:
            return
        examples, described = encoder.examples(users)
        asked = trained.ask(examples)
        answers = answerer(*encoder.embed(asked.features, described), index)
        yield from zip(asked.items_read.tolist(), answers)

    for index, batch in enumerate(_batches(users, batch_size)):
        answers = told([user for user in batch if user.items], index)
        for user in batch:
            items, answer = next(answers) if user.items else (0, "")
            answer = answer if items else NOTHING_KNOWN
            described_items = sum(isinstance(item, Movie) for item in user.items)
            result = {
                "user_id": user.user_id,
                "answer": answer,
                **tastes_in(trained, answer if items else ""),
                "items": items,
                "known": len(user.items) - described_items,
                "described": described_items,
                "dropped": user.unknown + user.outdated,
            }
            lost = _tokens_lost(trained, user.question) if telling.has_questions else 0
            further = {"unknown_items": user.unknown, "question_tokens_lost": lost}
            yield result | {name: count for name, count in further.items() if count}


def _tokens_lost(trained: "TrainedModel", question: str) -> int:
    tokens = len(trained.model.input_vocabulary.encode(question)) + 1  # the end's
    return max(tokens - trained.feature_lengths["inputs"], 0)


def _batches(users: Iterable[User | None], size: int) -> Iterator[list[User]]:
    """Yields users, as many at once as there are before a None, and at most `size`."""
    batch: list[User] = []
    for user in users:
        if user is not None:
            batch.append(user)
        if batch and (user is None or len(batch) == size):
            yield batch
            batch = []
    if batch:
        yield batch


class ItemEncoder:
    """Embeds described movies, in rows that are appended to the checkpoint's item table.

    Attributes:
      first_row: of those.
    """

    def __init__(self, trained: "TrainedModel") -> None:
        self.first_row = len(trained.catalogue.movies())
        self._trained = trained
        self._why_not_described = why_not_described(trained)
        self._encoders: dict[Any, Any] = {}  # by their record, made when first needed

    def examples(self, users: Sequence[User]) -> tuple[list[dict[str, Any]], list[Movie]]:
        """Returns users as a dataset folder holds them, and the described movies of their items.

        The first of these movies has the row `first_row`.

        Raises:
          InputError: if there are any, and the model cannot be told of them; or an item is no
            row of the catalogue.
        """
        for user in users:
            for item in user.items:
                if not isinstance(item, Movie) and not 1 <= item < self.first_row:
                    raise InputError(
                        f"user {user.user_id!r}: {item} is no row of the catalogue's movies, 1 to "
                        f"{self.first_row - 1}; its movie table tells each movieId's"
                    )
        items = (item for user in users for item in user.items)
        described = list(dict.fromkeys(item for item in items if isinstance(item, Movie)))
        if described and self._why_not_described:
            raise InputError(self._why_not_described)
        rows = {movie: self.first_row + index for index, movie in enumerate(described)}
        examples = [
            {
                "user_id": str(user.user_id).encode("utf-8", "backslashreplace"),
                "history_items": [rows.get(item, item) for item in user.items],
                "history_ratings": user.half_stars,
                "question": user.question,
            }
            for user in users
        ]
        return examples, described

    def embed(
        self, batch: "dict[str, np.ndarray]", described: Sequence[Movie]
    ) -> "tuple[dict[str, np.ndarray], Any]":
        """Returns a batch and the item table that it refers to.

        Args:
          batch: the model's features.
          described: what `examples` returned; only movies that the batch refers to are embedded.
        """
        import numpy as np

        if not described or not (batch["history_items"] >= self.first_row).any():
            return batch, self._trained.flax_mutables
        items = batch["history_items"].copy()
        is_described = items >= self.first_row
        rows, index = np.unique(items[is_described], return_inverse=True)
        items[is_described] = self.first_row + index
        table = self._extend([described[row - self.first_row] for row in rows])
        return {**batch, "history_items": items}, table

    def _extend(self, movies: Sequence[Movie]) -> Any:
        import jax
        import jax.numpy as jnp
        import numpy as np

        from uem_t5x.encoders import sentences as sentence_encoders

        catalogue = self._trained.catalogue
        told = catalogue.telling.sentences
        described = [
            {"title": movie.title, "classes": movie.genres, "description": movie.description}
            for movie in movies
        ]
        vectors = {}
        for channel in catalogue.channels:
            if channel.index == "item":
                record, template = catalogue.encoder_of(channel), told[channel.name]
                if record not in self._encoders:
                    self._encoders[record] = sentence_encoders.make_encoder(
                        record.name, record.width, record.source, record.sha256
                    )
                texts = [sentences.write(template, item) for item in described]
                vectors[channel.name] = self._encoders[record].encode(texts)
        spare = -len(movies) % _NEW_ITEM_ROWS

        def extend(path: tuple[Any, ...], table: "jax.Array") -> "jax.Array":
            name = path[-1].key
            if name not in vectors:
                return table
            return jnp.concatenate([table, np.pad(vectors[name], ((0, spare), (0, 0)))])

        return jax.tree_util.tree_map_with_path(extend, self._trained.flax_mutables)
