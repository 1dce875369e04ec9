"""Damaged and malicious files in a MovieLens folder."""

import os
import re
from pathlib import Path

import pytest
from hostile_input import (
    COLUMNS,
    FILES,
    MOVIES,
    NUMBERS,
    PROFILE,
    RATINGS,
    accepts,
    damaged,
    refusal,
    write_folder,
)
from hypothesis import given
from hypothesis import strategies as st

from uem_t5x.data.movielens import read_movielens


@PROFILE
@given(st.data())
def test_damaged_files_are_read_or_refused(tmp_path, data):
    name = data.draw(st.sampled_from(sorted(FILES)))
    files = FILES | {name: data.draw(damaged(FILES[name]))}
    tables = accepts(read_movielens, write_folder(tmp_path, files))
    if tables:
        assert tables.movies["movieId"].is_unique().all()
        assert tables.ratings["half_stars"].is_between(1, 10).all()
        assert not any(
            frame.select("movieId").null_count().item() for frame in (tables.movies, tables.ratings)
        )


@PROFILE
@given(st.sampled_from(NUMBERS), st.integers(0, 3))
def test_numbers_are_exact_or_refused(tmp_path, number, column):
    fields = ["1", "1", "4.0", "964982703"]
    fields[column] = number
    ratings = f"{','.join(COLUMNS)}\n{','.join(fields)}\n1,2,5,964982703\n"
    files = FILES | {"ratings.csv": ratings.encode()}
    tables = accepts(read_movielens, write_folder(tmp_path, files))
    if column != 2:
        whole = re.fullmatch(r"([+-]?[0-9]+)(\.0+)?", number)
        fits = whole and -(2**63) <= int(whole[1]) < 2 ** (64 if column == 0 else 63)
        assert (tables is not None) == bool(fits)
    if tables:
        read = tables.ratings.row(0)[column] / (2 if column == 2 else 1)
        assert read == float(number)


def test_ids_of_several_spellings_are_one_movie(tmp_path):
    # Else each rating of movie 1 would become two.
    movies = MOVIES + "01,Heat again (1995),Drama\n"
    folder = write_folder(tmp_path, FILES | {"movies.csv": movies.encode()})
    assert "row 4: movieId is '01'; it must be listed once" in refusal(read_movielens, folder)


@pytest.mark.parametrize(
    ("genres", "expected"),
    [
        ("crime", "the genres 'Crime' and 'crime' differ in case or spacing only"),
        ("Film\u00e9|Filme\u0301", "or in how their characters are encoded (NFKC); write them"),
        (" Crime", "the genres ' Crime' and 'Crime' differ"),
        ("Crime|\x1c", "the genres '' and '\\x1c' differ"),
        ("|".join(f"g{n}" for n in range(1000)), "1002 genres"),
        ("x" * 101, "at most 100 letters"),
    ],
)
def test_genres_that_answers_cannot_tell_apart(tmp_path, genres, expected):
    movies = MOVIES + f"3,Collateral (2004),{genres}\n"
    folder = write_folder(tmp_path, FILES | {"movies.csv": movies.encode()})
    assert expected in refusal(read_movielens, folder)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    folder = write_folder(tmp_path, FILES)
    (folder / "ratings.csv").unlink()
    os.mkfifo(folder / "ratings.csv")
    assert "ratings.csv: not a regular file" in refusal(read_movielens, folder)
    assert "no such folder or zip file" in refusal(read_movielens, folder / "ratings.csv")
    assert "neither a folder nor" in refusal(read_movielens, Path("x" * 300))


def test_a_long_value_is_shown_in_part(tmp_path):
    ratings = RATINGS.replace("4.0", "x" * 500_000)
    folder = write_folder(tmp_path, FILES | {"ratings.csv": ratings.encode()})
    assert "row 2: rating is 'xxx" in refusal(read_movielens, folder)
