"""Small inputs of `prepare`."""

import pytest

MOVIES = {
    1: ("Toy Story (1995)", "Comedy"),
    2: ("Heat (1995)", "Crime|Drama"),
    3: ("Postman, The (1997)", "Drama"),
    4: ("Undescribed (1999)", "War"),
    5: ("Genreless (1999)", "(no genres listed)"),
    6: ("Alien (1979)", "Horror"),
}
DESCRIBED = [1, 2, 3, 5, 6]
# (userId, movieId, stars, timestamp). User 1: Drama 4.5 (2, 3, 3 is rated anew), Crime 4.0, ...
RATINGS = [
    (1, 3, 1.0, 10),
    (1, 3, 5.0, 50),
    (1, 2, 4.0, 40),
    (1, 1, 2.0, 30),
    (1, 6, 0.5, 30),
    (1, 4, 5.0, 20),
    (1, 5, 5.0, 20),
    (1, 99, 5.0, 20),
    (2, 1, 3.0, 5),
    (3, 1, 3.5, 6),
    (3, 2, 4.5, 4),
]


def write_inputs(folder):
    """Writes six movies, five descriptions and the ratings of three users."""
    movies = [f'{movie},"{title}",{genres}' for movie, (title, genres) in MOVIES.items()]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *movies, ""]))
    ratings = [",".join(map(str, row)) for row in RATINGS]
    header = "userId,movieId,rating,timestamp"
    (folder / "ratings.csv").write_text("\n".join([header, *ratings, ""]))
    described = [f"{movie},About movie {movie}." for movie in DESCRIBED]
    (folder / "descriptions.csv").write_text("\n".join(["movieId,description", *described, ""]))


@pytest.fixture
def inputs(tmp_path):
    write_inputs(tmp_path)
    return tmp_path
