"""Makes up movies: titles, genres, years, and descriptions whose words hint at the genres."""

import itertools

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64, Shaped

# The share of the movies in MovieLens that have each genre, and phrases that hint at it.
_SHARES_AND_HINTS = {
    "Action": (0.19, ["a car chase", "an armed standoff", "a rooftop fight", "an explosion"]),
    "Adventure": (0.13, ["a lost map", "a voyage", "a jungle expedition", "a hidden treasure"]),
    "Animation": (
        0.06,
        ["a talking fox", "hand-drawn skies", "a singing teapot", "toys that wake"],
    ),
    "Children": (0.07, ["a brave little girl", "a runaway puppy", "a school play", "a tree house"]),
    "Comedy": (
        0.39,
        ["a mix-up", "a clumsy waiter", "a hopeless bet", "a prank that goes too far"],
    ),
    "Crime": (0.12, ["a bank robbery", "a crooked cop", "a mob boss", "a stolen diamond"]),
    "Documentary": (0.05, ["interviews", "archive footage", "eyewitnesses", "a true account"]),
    "Drama": (0.45, ["a family secret", "a hard farewell", "an illness", "a father's regret"]),
    "Fantasy": (0.08, ["a dragon", "a cursed ring", "an enchanted forest", "a wizard's bargain"]),
    "Film-Noir": (0.01, ["a weary detective", "a femme fatale", "rain on neon", "a double cross"]),
    "Horror": (0.10, ["a haunted cellar", "a masked killer", "a séance", "something in the walls"]),
    "IMAX": (0.02, ["a vast panorama", "a giant screen", "a flight over glaciers", "deep oceans"]),
    "Musical": (
        0.03,
        ["a show-stopping song", "a dance number", "a chorus line", "an opening night"],
    ),
    "Mystery": (0.06, ["a vanished heir", "a coded letter", "a locked room", "a missing witness"]),
    "Romance": (0.16, ["a first kiss", "a love letter", "a summer affair", "a wedding postponed"]),
    "Sci-Fi": (0.10, ["a distant planet", "a rogue android", "a time machine", "an alien signal"]),
    "Thriller": (0.19, ["a deadly deadline", "a stalker", "a hostage", "a race against the clock"]),
    "War": (0.04, ["the trenches", "a platoon", "an occupied village", "a last letter home"]),
    "Western": (0.02, ["a gunslinger", "a dusty frontier town", "a cattle drive", "a sheriff"]),
}
GENRES = tuple(_SHARES_AND_HINTS)
_HINTS = np.array([hints for _, hints in _SHARES_AND_HINTS.values()])
_SHARE_WITH_GENRES = [0.35, 0.4, 0.25]  # of movies with one, two and three genres

_HINTS_A_MOVIE = 3

_ADJECTIVES = (
    "Silent Crimson Broken Golden Hidden Last Distant Burning Frozen Hollow Secret Wild Quiet "
    "Bitter Gentle Lonely Electric Endless Fallen Scarlet Invisible Midnight Paper Velvet Iron "
    "Restless Painted Stolen Forgotten Glass Northern Savage Second Perfect Strange Blue"
)
_NOUNS = (
    "Harbor Garden Letter River Mountain Promise Shadow Kingdom Summer Winter Bridge Mirror Train "
    "Island Orchard Station Stranger Daughter Brother Captain Dancer Soldier Thief Teacher Painter "
    "Clockmaker Lighthouse Carnival Horizon Storm Empire Valley Circus Library Hotel Highway"
)
_PLACES = "Marlow Ostrava Calder Bayview Tarn Lisboa Ravenna Dunmore Kestrel Arden Solvang Vesper"
_ROLES = "nurse sailor student widow journalist farmer pianist lawyer mechanic baker twin pilot"
_MOODS = "tender tense playful sombre hopeful restless"
_FIRST_YEAR, _LAST_YEAR = 1930, 2018


def make_movies(count: int, rng: np.random.Generator) -> pl.DataFrame:
    """Makes up movies.

    Returns:
        A frame of `movieId`, `title` and `genres` as MovieLens writes them, and of `movie_title`,
        `movie_info` and `original_release_date` as the Rotten Tomatoes table does.
    """
    genres = _draw_genres(count, rng)
    hints = _draw_hints(genres, rng)
    age = np.floor(rng.beta(1, 3, count) * (_LAST_YEAR - _FIRST_YEAR + 1)).astype(np.int64)
    words = {
        name: _draw_words(vocabulary, count, rng)
        for name, vocabulary in (("role", _ROLES), ("home", _PLACES), ("mood", _MOODS))
    }
    frame = pl.DataFrame(
        {
            "movieId": np.arange(1, count + 1),
            "year": _LAST_YEAR - age,
            "day": rng.integers(0, 365, count),
            "genres": [[GENRES[genre] for genre in row if genre >= 0] for row in genres],
            **words,
            **{f"hint{slot}": hints[:, slot] for slot in range(_HINTS_A_MOVIE)},
            **_draw_titles(count, rng),
        }
    )
    first_day = pl.date(pl.col("year"), 1, 1)
    return frame.select(
        "movieId",
        title=pl.format("{} ({})", "listed_title", "year"),
        genres=pl.col("genres").list.join("|"),
        movie_title="spoken_title",
        movie_info=pl.format(
            "A {} film about a {} from {}: {}, {} and, in the end, {}.",
            *("mood", "role", "home", "hint0", "hint1", "hint2"),
        ),
        original_release_date=first_day + pl.duration(days="day"),
    )


def genre_matrix(movies: pl.DataFrame) -> Bool[np.ndarray, "movies genres"]:
    """Returns True where a movie of `make_movies` has a genre, in the order of `GENRES`."""
    has = pl.col("genres").str.split("|").list.contains
    return movies.select(has(genre).alias(genre) for genre in GENRES).to_numpy()


def _draw_genres(count: int, rng: np.random.Generator) -> Int64[np.ndarray, "movies slots"]:
    """Draws one to three different genres a movie, popular ones more often; -1 pads."""
    shares = np.array([share for share, _ in _SHARES_AND_HINTS.values()])
    # Adding Gumbel noise to logarithms and taking the largest draws without replacement.
    noisy = np.log(shares) + rng.gumbel(size=(count, len(shares)))
    slots = len(_SHARE_WITH_GENRES)
    genres = np.argsort(-noisy, axis=1)[:, :slots]
    numbers = rng.choice(slots, count, p=_SHARE_WITH_GENRES) + 1
    return np.where(np.arange(slots) < numbers[:, None], np.sort(genres, axis=1), -1)


def _draw_hints(
    genres: Int64[np.ndarray, "movies slots"], rng: np.random.Generator
) -> Shaped[np.ndarray, "movies hints"]:
    """Draws phrases that hint at a movie's genres, each genre in turn, none twice."""
    numbers = np.sum(genres >= 0, axis=1, keepdims=True)
    turns = np.arange(_HINTS_A_MOVIE)[None]
    chosen = np.take_along_axis(np.sort(genres, axis=1)[:, ::-1], turns % numbers, axis=1)
    first = rng.integers(0, _HINTS.shape[1], (len(genres), 1))
    return _HINTS[chosen, (first + turns) % _HINTS.shape[1]]


def _draw_words(
    vocabulary: str, count: int, rng: np.random.Generator
) -> Shaped[np.ndarray, " count"]:
    words = np.array(vocabulary.split())
    return words[rng.integers(0, len(words), count)]


def _draw_titles(count: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """Makes up different titles: as they are spoken, and as MovieLens lists them."""
    names = [
        (f"{adjective} {noun}", ending)
        for adjective, noun, ending in itertools.product(
            _ADJECTIVES.split(), _NOUNS.split(), ("", "The", "A", *_PLACES.split())
        )
    ]
    order = rng.permutation(len(names))
    listed, spoken = [], []
    for movie in range(count):
        sequel, position = divmod(movie, len(names))
        name, ending = names[order[position]]
        name += f" {sequel + 1}" if sequel else ""
        if ending in ("The", "A"):
            listed.append(f"{name}, {ending}")
            spoken.append(f"{ending} {name}")
        else:
            listed.append(f"{name} in {ending}" if ending else name)
            spoken.append(listed[-1])
    return {"listed_title": listed, "spoken_title": spoken}
