import numpy as np
import polars as pl
import pytest

from uem_t5x import cli
from uem_t5x.data import synthetic
from uem_t5x.data.descriptions import read_descriptions
from uem_t5x.data.movielens import clean_ratings, read_movielens
from uem_t5x.data.synthetic import SynthesizeOptions

FILES = ["README.txt", "descriptions.csv", "movies.csv", "ratings.csv", "tastes.csv"]


def synthesize(output, **options):
    synthetic.synthesize(SynthesizeOptions(output=output, **options))
    return output


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("synthetic") / "ml", users=400, movies=800)


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    again = contents(synthesize(tmp_path / "again", users=400, movies=800))
    assert list(again) == FILES
    assert again == contents(folder)
    other = contents(synthesize(tmp_path / "other", users=400, movies=800, seed=1))
    assert other["ratings.csv"] != again["ratings.csv"]


def test_the_reader_finds_nothing_to_mend(folder):
    tables = read_movielens(folder)
    assert tables.movies.height == 800
    assert tables.ratings["userId"].n_unique() == 400
    _, dropped = clean_ratings(tables.ratings, tables.movies)
    assert dropped == {"unknown_movies": 0, "duplicates": 0}
    descriptions = read_descriptions(folder / "descriptions.csv", tables.movies)
    assert descriptions.frame.height == descriptions.rows == 800


def test_histories_have_the_shape_of_real_ones(folder):
    ratings = read_movielens(folder).ratings
    lengths = ratings.group_by("userId").len()["len"]
    assert lengths.min() == 20
    assert 60 < lengths.median() < 110
    assert lengths.max() > 3 * lengths.median()
    assert 95 * 400 < ratings.height < 125 * 400
    by_movie = ratings.group_by("movieId").len()["len"].sort(descending=True)
    assert by_movie.head(80).sum() > 0.3 * ratings.height  # a tenth of the movies


def test_ratings_follow_the_taste_behind_them(folder):
    """A user rates the genres of the highest affinity above those of the lowest."""
    tables = read_movielens(folder)
    tastes = pl.read_csv(folder / "tastes.csv").unpivot(
        index="userId", variable_name="genre", value_name="affinity"
    )
    means = (
        tables.ratings.join(tables.movies.explode("genres"), on="movieId")
        .group_by("userId", genre="genres")
        .agg(pl.col("half_stars").mean(), pl.len())
        .filter(pl.col("len") >= 5)
        .join(tastes, on=["userId", "genre"])
        .with_columns(
            pl.col("half_stars", "affinity")
            - pl.col("half_stars", "affinity").mean().over("userId")
        )
    )
    assert np.corrcoef(means["half_stars"], means["affinity"])[0, 1] > 0.5


def test_the_number_of_ratings_can_be_asked_for(tmp_path):
    few = read_movielens(synthesize(tmp_path / "few", users=100, movies=300, ratings=5000))
    assert 4500 < few.ratings.height < 6500


def test_many_movies_have_different_titles(tmp_path):
    movies = read_movielens(synthesize(tmp_path / "many", users=1, movies=20_000)).movies
    assert movies["title"].n_unique() == 20_000


def test_the_command(tmp_path, capsys):
    output = tmp_path / "ml"
    command = ["synthesize", "--output", str(output), "--users", "30", "--movies", "100"]
    assert cli.main(command) == 0
    assert "30 users, 100 movies" in capsys.readouterr().out
    assert cli.main(command) == 2
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert cli.main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--users", "0"], "--users 0: must be at least 1"),
        (["--movies", "5"], "--movies 5: must be at least 40"),
        (["--ratings", "-1"], "--ratings -1"),
        (["--seed", "-1"], "--seed -1"),
    ],
)
def test_impossible_sizes(tmp_path, capsys, arguments, expected):
    assert cli.main(["synthesize", "--output", str(tmp_path / "ml"), *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
