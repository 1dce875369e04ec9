"""`uem-t5x predict`: one JSON line a user in, one JSON line with their taste out."""

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import math
import reprlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uem_t5x import atomic, model_flags
from uem_t5x.errors import InputError
from uem_t5x.rating_scale import HALF_STARS_PER_STAR, MAX_HALF_STARS

if TYPE_CHECKING:
    import numpy as np

    from uem_t5x.trained_model import TrainedModel

_ENCODED = ("title_genres", "description")  # the channels that `prepare` makes of text
# Movies that a batch of users may bring along; a multiple, so that few shapes are compiled.
_NEW_ITEM_ROWS = 64
# A line is parsed whole, into as much as 35 times its size. 30,000 ratings, more than anyone in
# MovieLens has given, take a tenth of this; the model reads the most recent few of them.
MAX_LINE_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Movie:
    """A movie that the catalogue lacks, as a user's line describes it."""

    title: str
    genres: tuple[str, ...]
    description: str


@dataclasses.dataclass(frozen=True)
class User:
    """A line of input: a user and what they rated, oldest first.

    Attributes:
      user_id: as given, a text or a number; None if it was not.
      items: row of the movie table, or a movie that it lacks.
      half_stars: the rating of each item, 1..10.
      unknown: how many items were dropped, as neither the catalogue nor the line tells of them.

    Raises:
      InputError: if an item has no rating, or a rating is no number of half-stars.
    """

    user_id: Any
    items: tuple[int | Movie, ...]
    half_stars: tuple[int, ...]
    unknown: int = 0

    def __post_init__(self) -> None:
        items, ratings = len(self.items), len(self.half_stars)
        if items != ratings:
            raise InputError(
                f"user {self.user_id!r}: {items} items and {ratings} ratings; give each item one"
            )
        for rating in self.half_stars:
            if not 1 <= rating <= MAX_HALF_STARS:
                raise InputError(
                    f"user {self.user_id!r}: {rating} half-stars; give 1 to {MAX_HALF_STARS}"
                )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    model_flags.add_arguments(parser)
    parser.add_argument(
        "--input",
        required=True,
        help="JSON lines, a user each, histories oldest first; - for stdin",
    )
    parser.add_argument("--output", help="where to write the answers; stdout by default")
    parser.add_argument("--batch-size", type=int, default=32)


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand; returns 2 if lines were refused, though the others are answered."""
    if args.input != "-":
        source = Path(args.input)
        if not source.exists() or source.is_dir():
            found = "a folder" if source.is_dir() else "no such file"
            raise InputError(f"{args.input}: {found}; give JSON lines, a user each")
        if args.output and Path(args.output).exists() and source.samefile(args.output):
            raise InputError(f"--output {args.output}: the histories lie there; give another name")
    if args.output:
        atomic.check_file(args.output)
    trained = model_flags.load(args)
    refused = 0

    def report(error: InputError) -> None:
        nonlocal refused
        refused += 1
        print(f"uem-t5x predict: {error}", file=sys.stderr)

    with contextlib.ExitStack() as stack:
        is_stdin = args.input == "-"
        file = sys.stdin.buffer if is_stdin else stack.enter_context(Path(args.input).open("rb"))
        lines, rows = read_lines(file), _movie_rows(trained)
        users = read_users(lines, args.input, rows, report, _why_not_described(trained))
        answers = predict(trained, users, args.batch_size)
        if args.output:
            _write_whole(answers, args.output)
        else:
            for answer in answers:
                print(write_line(answer), flush=True)
    return 2 if refused else 0


def _write_whole(answers: Iterable[dict[str, Any]], output: str) -> None:
    from uem_t5x import progress

    with progress.counting("answering") as advance, atomic.writing_file(output) as file:
        for answer in answers:
            file.write(write_line(answer) + "\n")
            advance(1)


def _movie_rows(trained: "TrainedModel") -> dict[int, int]:
    movies = trained.catalogue.movies()
    return dict(zip(movies["movieId"].to_list()[1:], movies["row"].to_list()[1:]))


def _why_not_described(trained: "TrainedModel") -> str | None:
    """Returns why a model cannot be told of movies that its catalogue lacks; None if it can."""
    catalogue = trained.catalogue
    if not trained.reads_embeddings:
        return "the model reads movies of its catalogue as text, and no others; leave it out"
    for channel in catalogue.channels:
        is_encoded = channel.name in _ENCODED and channel.width == catalogue.encoder.width
        if channel.index == "item" and not is_encoded:
            return (
                f"the model's channel {channel.name!r} is not made of text, so a movie that its "
                "catalogue lacks has no embedding; leave it out"
            )
    return None


def write_line(answer: dict[str, Any]) -> str:
    """Returns the answer as a line of JSON that can be encoded."""
    text = json.dumps(answer, ensure_ascii=False, allow_nan=False)
    # A user_id may hold half of a surrogate pair, which is no character: it stays an escape.
    return text.encode("utf-8", "backslashreplace").decode()


def read_lines(file: io.BufferedIOBase) -> Iterator[bytes]:
    """Yields the lines of a file; of one that is too long to be read, just its beginning."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
        rest = line if len(line) > MAX_LINE_BYTES else b""
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(_CHUNK_BYTES)


def read_users(
    lines: Iterable[bytes],
    name: str,
    rows: dict[int, int],
    report: Callable[[InputError], Any],
    why_not_described: str | None = None,
) -> Iterator[User]:
    """Yields the user of each line.

    Args:
      lines: `{"user_id": "u1", "history": [{"movieId": 1, "rating": 4.5}, ...]}` in UTF-8; an item
        may give `title`, `genres` and `description` instead of a movie that the catalogue knows.
      name: of the file, for messages.
      rows: the row of each movieId in the movie table.
      report: is called with the InputError of a line that cannot be read, which is skipped.
      why_not_described: refuses movies that are only described, in these words.
    """
    for number, line in enumerate(lines, start=1):
        if len(line) <= MAX_LINE_BYTES and not line.strip():
            continue
        try:
            yield _read_user(line, rows, why_not_described)
        except (InputError, RecursionError) as error:
            report(InputError(f"{name}: line {number}: {error}"))


def _read_user(line: bytes, rows: dict[int, int], why_not_described: str | None) -> User:
    if len(line) > MAX_LINE_BYTES:
        raise InputError(
            f"longer than {MAX_LINE_BYTES >> 20} MiB; give the most recent items of the history"
        )
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"no JSON ({error}); write one object a line") from error
    if not isinstance(record, dict) or not isinstance(record.get("history"), list):
        raise InputError('expected {"user_id": ..., "history": [...]}')
    user_id = record.get("user_id")
    if not isinstance(user_id, str | int | float | None) or (
        isinstance(user_id, float) and not math.isfinite(user_id)
    ):
        raise InputError(f"user_id {reprlib.repr(user_id)} is not a text or a finite number")
    items, half_stars, unknown = [], [], 0
    for position, entry in enumerate(record["history"], start=1):
        try:
            item = _read_item(entry, rows)
            if why_not_described and isinstance(item, Movie):
                raise InputError(why_not_described)
            stars = _read_rating(entry)
        except InputError as error:
            raise InputError(f"item {position} of the history: {error}") from error
        if item is None:
            unknown += 1
            continue
        items.append(item)
        half_stars.append(stars)
    return User(user_id, tuple(items), tuple(half_stars), unknown)


def _read_item(entry: Any, rows: dict[int, int]) -> int | Movie | None:
    if not isinstance(entry, dict):
        raise InputError('expected {"movieId": ..., "rating": ...}')
    movie_id = entry.get("movieId")
    if movie_id is not None and (isinstance(movie_id, bool) or not isinstance(movie_id, int)):
        raise InputError(f"movieId {reprlib.repr(movie_id)} is not a whole number")
    if movie_id in rows:
        return rows[movie_id]
    if "title" in entry:
        genres = entry.get("genres", [])
        if isinstance(genres, str):
            genres = genres.split("|")
        description = entry.get("description", "")
        texts = [entry["title"], description, *(genres if isinstance(genres, list) else [None])]
        if not all(isinstance(text, str) for text in texts):
            raise InputError("title and description must be texts, genres a list of texts")
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as error:
            letter = error.object[error.start]
            raise InputError(f"{letter!r} in a text is half a character; leave it out") from error
        return Movie(entry["title"], tuple(genres), description)
    if movie_id is None:
        raise InputError("neither a movieId nor a title; give one of them")
    return None


def _read_rating(entry: dict[str, Any]) -> int:
    rating = entry.get("rating")
    if isinstance(rating, bool) or not isinstance(rating, int | float):
        shown = reprlib.repr(rating)
        raise InputError(f"rating {shown} is not a number; give half-stars from 0.5 to 5")
    half_stars = rating * HALF_STARS_PER_STAR
    if not 1 <= half_stars <= MAX_HALF_STARS or half_stars != int(half_stars):
        raise InputError(f"rating {reprlib.repr(rating)} is not one of 0.5, 1, ..., 5")
    return int(half_stars)


def predict(
    trained: "TrainedModel", users: Iterable[User], batch_size: int = 32
) -> Iterator[dict[str, Any]]:
    """Answers users, in order, as the task that the model was trained on asks about them.

    Args:
      trained: the model.
      users: who is asked about.
      batch_size: users answered at once; it does not change the answers.

    Yields:
      `user_id`, `answer` (the sentence), `liked` and `disliked` (genre names), `items` (how many
      the model read) and, where there were any, `unknown_items`.

    Raises:
      InputError: if an item is no row of the catalogue, or only described, and the model cannot
        be told of it; or the task leaves users out or changes their order.
    """
    from uem_t5x import datasets, questions, verbalizer

    users = iter(users)
    encoder = _ItemEncoder(trained)
    answerer = trained.answerer(batch_size)
    config = datasets.DatasetConfig(trained.task, trained.feature_lengths, "predict", batch_size)
    with trained.current():
        ask = questions.Questioner(config, trained.model.FEATURE_CONVERTER_CLS)
    batches = iter(lambda: list(itertools.islice(users, batch_size)), [])
    for index, batch in enumerate(batches):
        examples, described = encoder.examples(batch)
        asked = ask(examples)
        answers = answerer(*encoder.embed(asked.features, described), index)
        for user, items, answer in zip(batch, asked.items_read.tolist(), answers):
            liked, disliked = verbalizer.read_answer(answer, trained.catalogue.genres)
            result = {
                "user_id": user.user_id,
                "answer": answer,
                "liked": liked,
                "disliked": disliked,
                "items": items,
            }
            yield {**result, "unknown_items": user.unknown} if user.unknown else result


class _ItemEncoder:
    """Embeds described movies, in rows that are appended to the checkpoint's item table.

    Attributes:
      first_row: of those.
    """

    def __init__(self, trained: "TrainedModel") -> None:
        self.first_row = len(trained.catalogue.movies())
        self._trained = trained
        self._why_not_described = _why_not_described(trained)
        self._sentence_encoder: Any = None

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

        from uem_t5x import sentence_encoders
        from uem_t5x.data import sentences

        catalogue = self._trained.catalogue
        if self._sentence_encoder is None:
            record = catalogue.encoder
            self._sentence_encoder = sentence_encoders.make_encoder(
                record.name, record.width, record.source, record.sha256
            )
        encode = self._sentence_encoder.encode
        vectors = {
            "title_genres": encode(
                [sentences.title_genres_sentence(movie.title, movie.genres) for movie in movies]
            ),
            "description": encode([movie.description for movie in movies]),
        }
        spare = -len(movies) % _NEW_ITEM_ROWS

        def extend(path: tuple[Any, ...], table: "jax.Array") -> "jax.Array":
            name = path[-1].key
            if name not in vectors:
                return table
            return jnp.concatenate([table, np.pad(vectors[name], ((0, spare), (0, 0)))])

        return jax.tree_util.tree_map_with_path(extend, self._trained.flax_mutables)
