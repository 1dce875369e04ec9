"""Makes up movies, users with a known taste, and the ratings that follow from both.

A user has a mean rating and an affinity for each genre, in stars. A rating is the user's mean, plus
the movie's quality, plus the mean affinity for the movie's genres, plus noise, on the half-star
grid. Movies have their popularity, histories log-normal lengths: the shape, not the content, of the
real data.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, Float64, Int64

from uem_t5x.base import progress
from uem_t5x.base.atomic import holds_only, writing_folder
from uem_t5x.base.errors import InputError
from uem_t5x.data import fiction
from uem_t5x.data.fiction import GENRES
from uem_t5x.data.options import SynthesizeOptions
from uem_t5x.tastes.rating_scale import HALF_STARS_PER_STAR, MAX_HALF_STARS

MOVIES = "movies.csv"
RATINGS = "ratings.csv"
DESCRIPTIONS = "descriptions.csv"
TASTES = "tastes.csv"
README = "README.txt"
_FILES = re.compile("|".join(map(re.escape, (MOVIES, RATINGS, DESCRIPTIONS, TASTES, README))))
_README_TEXT = f"""Synthetic data, written by `uem-t5x synthesize`: nobody in it is real.

{MOVIES} and {RATINGS} have the layout of MovieLens, {DESCRIPTIONS} that of the public
Rotten Tomatoes movie table. {TASTES} has what the ratings were drawn from: each user's affinity
for each genre, in stars.
"""

_RATINGS_PER_USER = 110  # 14.4M / 127K, in the paper's data
_MIN_HISTORY = 20
_MAX_SHARE_OF_MOVIES = 0.5  # of one history: a user has not seen everything
_HISTORY_SPREAD = 1.0  # of the logarithm of a history's length
_POPULARITY_SPREAD = 1.5  # of the logarithm of a movie's popularity

_MEAN_RATING = 3.55
_USER_SPREAD = 0.4
_QUALITY_SPREAD = 0.4
_AFFINITY_SPREAD = 0.6
_NOISE = 0.8

_FIRST_RATING, _LAST_RATING = 820_454_400, 1_537_747_200  # 1996 to 2018, as in ml-latest-small
_SECONDS_BETWEEN_RATINGS = 40
_USERS_PER_BATCH = 8192


def synthesize(options: SynthesizeOptions, start: progress.Start = progress.unseen) -> int:
    """Writes a folder of `movies.csv`, `ratings.csv`, `descriptions.csv` and `tastes.csv`.

    Args:
        options: how much of each, and where.
        start: is told of the step, and how far it is; by default nothing is shown.

    Returns:
        The number of ratings.

    Raises:
        InputError: if an option is impossible or something else is at `options.output`.
    """
    _check(options)
    rng = np.random.default_rng(options.seed)
    with writing_folder(
        options.output, "synthetic folder", is_synthetic, options.overwrite
    ) as folder:
        movies = fiction.make_movies(options.movies, rng)
        movies.select("movieId", "title", "genres").write_csv(folder / MOVIES)
        movies.select("movie_title", "movie_info", "original_release_date").write_csv(
            folder / DESCRIPTIONS
        )
        affinity = rng.normal(0, _AFFINITY_SPREAD, (options.users, len(GENRES)))
        _write_tastes(folder / TASTES, affinity)
        ratings = 0
        advance = start("users", options.users)
        with (folder / RATINGS).open("wb") as file:
            for batch in _ratings(options, fiction.genre_matrix(movies), affinity, rng):
                batch.write_csv(file, include_header=ratings == 0, float_precision=1)
                ratings += batch.height
                advance(batch["userId"].n_unique())
        (folder / README).write_text(_README_TEXT, encoding="utf-8")
    return ratings


def _check(options: SynthesizeOptions) -> None:
    least_movies = int(_MIN_HISTORY / _MAX_SHARE_OF_MOVIES)
    least = {"users": 1, "movies": least_movies, "ratings": 1, "seed": 0}
    for name, bound in least.items():
        value = getattr(options, name)
        if value is not None and value < bound:
            raise InputError(f"--{name} {value}: must be at least {bound}")


def is_synthetic(folder: Path) -> bool:
    """Tells a folder that `synthesize` has written, and nobody has put anything else into."""
    readme = folder / README
    is_named = readme.is_file() and holds_only(folder, _FILES)
    return is_named and readme.read_text(encoding="utf-8", errors="replace") == _README_TEXT


def _write_tastes(path: Path, affinity: Float64[np.ndarray, "users genres"]) -> None:
    columns = {"userId": np.arange(1, len(affinity) + 1)}
    columns |= {genre: affinity[:, column] for column, genre in enumerate(GENRES)}
    pl.DataFrame(columns).write_csv(path, float_precision=3)


def _ratings(
    options: SynthesizeOptions,
    genre_matrix: Bool[np.ndarray, "movies genres"],
    affinity: Float64[np.ndarray, "users genres"],
    rng: np.random.Generator,
) -> Iterator[pl.DataFrame]:
    """Draws the ratings, a batch of users at a time, as MovieLens orders them."""
    genre_shares = (genre_matrix / genre_matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    popularity = rng.lognormal(0, _POPULARITY_SPREAD, options.movies)
    # What many people see is a little better, in MovieLens as here.
    quality = rng.normal(0.1 * np.log(popularity), _QUALITY_SPREAD).astype(np.float32)
    lengths = _history_lengths(options, rng)
    for start in range(0, options.users, _USERS_PER_BATCH):
        batch = slice(start, start + _USERS_PER_BATCH)
        users, movies = _draw_histories(lengths[batch], popularity, rng)
        mean = rng.normal(_MEAN_RATING, _USER_SPREAD, len(lengths[batch])).astype(np.float32)
        liking = np.einsum(
            "rg,rg->r", affinity[batch].astype(np.float32)[users], genre_shares[movies]
        )
        stars = mean[users] + quality[movies] + liking + _noise(len(users), rng)
        yield pl.DataFrame(
            {
                "userId": users + start + 1,
                "movieId": movies + 1,
                "rating": np.clip(np.round(stars * HALF_STARS_PER_STAR), 1, MAX_HALF_STARS)
                / HALF_STARS_PER_STAR,
                "timestamp": _timestamps(users, rng),
            }
        ).sort("userId", "movieId")


def _noise(count: int, rng: np.random.Generator) -> Float32[np.ndarray, " ratings"]:
    return np.float32(_NOISE) * rng.standard_normal(count, np.float32)


def _history_lengths(
    options: SynthesizeOptions, rng: np.random.Generator
) -> Int64[np.ndarray, " users"]:
    lengths = rng.lognormal(0, _HISTORY_SPREAD, options.users)
    total = options.ratings or options.users * _RATINGS_PER_USER
    bounds = _MIN_HISTORY, int(options.movies * _MAX_SHARE_OF_MOVIES)
    for _ in range(10):  # what the bounds add or take away is made up for by the others
        lengths *= total / np.clip(lengths, *bounds).sum()
    return np.clip(np.round(lengths), *bounds).astype(np.int64)


def _draw_histories(
    lengths: Int64[np.ndarray, " users"],
    popularity: Float64[np.ndarray, " movies"],
    rng: np.random.Generator,
) -> tuple[Int64[np.ndarray, " ratings"], Int64[np.ndarray, " ratings"]]:
    """Draws `lengths` different movies for each user, popular ones more often.

    Returns:
        The user and the movie of each rating, from 0, in the order in which they were drawn.
    """
    # Drawn with replacement and some to spare; of each movie the first draw counts. The longest
    # histories may end up a little short.
    draws = np.repeat(np.arange(len(lengths)), 2 * lengths)
    cumulative = np.cumsum(popularity)
    movies = np.searchsorted(cumulative, rng.random(len(draws)) * cumulative[-1], side="right")
    _, first = np.unique(draws * len(popularity) + movies, return_index=True)
    first.sort()
    users, movies = draws[first], movies[first]
    kept = np.arange(len(users)) - _first_of_user(users) < lengths[users]
    return users[kept], movies[kept]


def _first_of_user(users: Int64[np.ndarray, " ratings"]) -> Int64[np.ndarray, " ratings"]:
    """Returns for each rating where the ratings of its user begin; users are in order."""
    counts = np.bincount(users)
    return np.repeat(np.cumsum(counts) - counts, counts)


def _timestamps(
    users: Int64[np.ndarray, " ratings"], rng: np.random.Generator
) -> Int64[np.ndarray, " ratings"]:
    """Gives each user a start and lets the ratings follow, some within the same second."""
    starts = rng.integers(_FIRST_RATING, _LAST_RATING, users[-1] + 1)
    gaps = rng.exponential(_SECONDS_BETWEEN_RATINGS, len(users)).astype(np.int64)
    elapsed = np.cumsum(gaps)
    return starts[users] + elapsed - elapsed[_first_of_user(users)]
