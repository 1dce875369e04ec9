"""What `fuzz.py` feeds with bytes: one function a reader, and small valid inputs to start from.

A target raises if anything but an answer or an `InputError` of one line comes out.
"""

import contextlib
import io
import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from uem_t5x.answers import predict
from uem_t5x.answers.json_input import read_lines
from uem_t5x.answers.user_lines import UserReader
from uem_t5x.base.errors import InputError
from uem_t5x.data import descriptions, movielens, text_tables
from uem_t5x.data.manifest import Channel, EncoderRecord, Manifest, Split
from uem_t5x.tastes import verbalizer

FOLDER = Path(tempfile.gettempdir())  # set by `fuzz.py` to one of its own
RATING_COLUMNS = ["userId", "movieId", "rating", "timestamp"]
MOVIES = b'movieId,title,genres\n1,Heat (1995),Action|Crime\n2,"Ronin, a (1998)",War\n'
RATINGS = b"userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,2,0.5,964981247\n"
MOVIES_DAT = "1::Misérables, Les (1995)::Drama|Children's\n2::X (1996)::War\n"
RATINGS_DAT = b"7::2::5::978300760\n7::1::3.5::978302109\n"
BY_TITLE = b'movie_title,movie_info,original_release_date\nHeat,"A cop,\n",1995-12-15\nRonin,,\n'
BY_ID = b"movieId,description\n1,A cop.\n2,Spies.\n"
CATALOGUE = pl.DataFrame({"movieId": [1, 2], "title": ["Heat (A.k.a. Hot) (1995)", "Ronin: X"]})
GENRES = ("Drama", "Film-Noir", "War", "Rom, Com", "doesn't like", "like'", "Sword and Sorcery")
USERS = [
    {"user_id": "u1", "history": [{"movieId": 1, "rating": 4.5}]},
    {"history": [{"title": "X", "genres": ["War"], "description": "Y", "rating": 1}]},
]
MANIFEST = Manifest(
    genres=("Drama", "War"),
    channels=(Channel("rating", 8, "rating"),),
    encoder=EncoderRecord("hashing", 8),
    splits={"train": Split(10, 1)},
    has_vocabulary=False,
    counts={"users": 10, "labels_per_user": 2.5},
    options={"seed": 0},
    inputs={"movies": "00"},
    files={"items/movies.parquet": "00"},
)


@contextlib.contextmanager
def may_be_refused() -> Iterator[None]:
    """Lets an InputError pass that could be shown to someone."""
    try:
        yield
    except InputError as error:
        message = str(error)
        if not message.isprintable() or len(message) > 2000:
            raise AssertionError(ascii(message)) from error


def csv_table(data: bytes) -> None:
    """A table with a header."""
    for columns in (RATING_COLUMNS, ["movieId", "title"]):
        with may_be_refused():
            table = text_tables.read_csv(data, "t.csv", columns)
            assert set(table.frame.columns) == set(columns)
            assert table.frame.height <= data.count(b"\n") + 1


def double_colon(data: bytes) -> None:
    """A table without one."""
    with may_be_refused():
        table = text_tables.read_unquoted(data, "t.dat", RATING_COLUMNS)
        assert table.frame.columns == RATING_COLUMNS
        assert table.frame.height <= data.count(b"\n") + 1


def folder(data: bytes) -> None:
    """Both tables of MovieLens: the first line break of a kind of its own parts them."""
    movies, _, ratings = data.partition(b"\n\f\n")
    path = FOLDER / "movielens"
    path.mkdir(exist_ok=True)
    for file in path.iterdir():
        file.unlink()
    extension = "csv" if movies.startswith(b"movieId") else "dat"
    (path / f"movies.{extension}").write_bytes(movies)
    (path / f"ratings.{extension}").write_bytes(ratings)
    _read_movielens(path)


def archive(data: bytes) -> None:
    """A zip file."""
    path = FOLDER / "ml.zip"
    path.write_bytes(data)
    _read_movielens(path)


def _read_movielens(path: Path) -> None:
    with may_be_refused():
        tables = movielens.read_movielens(path)
        assert tables.movies["movieId"].is_unique().all()
        assert tables.ratings["half_stars"].is_between(1, 10).all()
        genres = tables.movies["genres"].explode().drop_nulls().unique().sort().to_list()
        for cut in range(min(len(genres), 5)):
            sides = genres[:cut], genres[cut:]
            assert verbalizer.read_answer(verbalizer.write_answer(*sides), genres) == sides
        kept, dropped = movielens.clean_ratings(tables.ratings, tables.movies)
        assert kept.height + sum(dropped.values()) == tables.ratings.height


def description_table(data: bytes) -> None:
    """A table of descriptions, by movieId or by title."""
    path = FOLDER / "descriptions.csv"
    path.write_bytes(data)
    with may_be_refused():
        found = descriptions.read_descriptions(path, CATALOGUE)
        assert 0 < found.frame.height <= min(found.rows, CATALOGUE.height)
        assert found.frame["movieId"].is_unique().all()


def answer(data: bytes) -> None:
    """An answer, and a line of genres before it."""
    names, _, text = data.decode("utf-8", "surrogateescape").partition("\n")
    genres = list({verbalizer.normalize(name): name for name in names.split("|")}.values())
    genres = [genre for genre in genres if verbalizer.normalize(genre)]
    for known in (GENRES, genres):
        liked, disliked = verbalizer.read_answer(text, known)
        assert len({*liked, *disliked}) == len(liked) + len(disliked)
        assert {*liked, *disliked} <= set(known)
    sides = genres[: len(text) % 4], genres[len(text) % 4 :]
    assert verbalizer.read_answer(verbalizer.write_answer(*sides), genres) == sides


def user_lines(data: bytes) -> None:
    """The input of `predict`."""
    refused: list[InputError] = []
    lines = read_lines(io.BytesIO(data))
    users = list(UserReader({1: 7}).users(lines, "in.jsonl", refused.append))
    for error in refused:
        with may_be_refused():
            raise error
    assert len(users) + len(refused) == sum(bool(line.strip()) for line in data.split(b"\n"))
    for user in users:
        line = predict.write_line({"user_id": user.user_id})
        read = json.loads(line.encode(), parse_constant=lambda name: math.nan)
        assert read == {"user_id": user.user_id}
        for item in user.items:
            assert item == 7 or " ".join((item.title, item.description, *item.genres)).encode()


def manifest(data: bytes) -> None:
    """A manifest: that which was written, or none."""
    (FOLDER / "manifest.json").write_bytes(data)
    with may_be_refused():
        assert Manifest.read(FOLDER) == MANIFEST


def mistaken(data: bytes) -> None:
    """Shows that mistakes are found."""
    if len(data) > 3 and data[0] == ord("W") and data[1] == ord("X"):  # noqa: SIM102
        if data[2] == ord("Y") and data[3] == ord("Z"):
            raise AssertionError("found what was hidden")


def _zipped(compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as members:
        for name, table in (("ml/movies.csv", MOVIES), ("ml/ratings.csv", RATINGS)):
            members.writestr(zipfile.ZipInfo(name), table, compression)
    return file.getvalue()


def _written_manifest() -> bytes:
    with tempfile.TemporaryDirectory() as path:
        MANIFEST.write(Path(path))
        return (Path(path) / "manifest.json").read_bytes()


TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "csv_table": (csv_table, [MOVIES, RATINGS, BY_TITLE]),
    "double_colon": (double_colon, [RATINGS_DAT, MOVIES_DAT.encode("latin-1")]),
    "folder": (folder, [MOVIES + b"\f\n" + RATINGS, MOVIES_DAT.encode() + b"\f\n" + RATINGS_DAT]),
    "archive": (archive, [_zipped(zipfile.ZIP_STORED), _zipped(zipfile.ZIP_DEFLATED)]),
    "description_table": (description_table, [BY_TITLE, BY_ID]),
    "answer": (answer, [b'War|Drama\nThe user likes War, Drama and doesn\'t like "Rom, Com".']),
    "user_lines": (user_lines, ["\n".join(map(json.dumps, USERS)).encode()]),
    "manifest": (manifest, [_written_manifest()]),
}
ALL = {**TARGETS, "mistaken": (mistaken, [b"0"])}
# What is special to one of the readers, for libFuzzer to put in.
TOKENS = [
    *(b'"', b'""', b"::", b",", b"|", b"\r", b"\n", b"\x00", b"\x1c", b"\x1f", b"\xef\xbb\xbf"),
    *(b"\xff", "\u2028".encode(), "\u0661".encode(), "\u2019".encode(), b" (1996)", b", The"),
    *(b"like", b"likes ", b"doesn't ", b" and ", b"history", b"user_id", b"title", b"\\ud800"),
    *(b"NaN", b"1e400", b"9" * 20, b"9" * 5000, b"[" * 500, b"null", b"true", b"{}", b"PK\x01\x02"),
]
