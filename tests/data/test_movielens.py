import zipfile
from pathlib import Path

import polars as pl
import pytest

from uem_t5x.data.movielens import clean_ratings, read_movielens
from uem_t5x.errors import InputError

MOVIES = """movieId,title,genres
1,Toy Story (1995),Animation|Comedy
3,"Postman, The (1997)",Drama
8,Nameless,(no genres listed)
"""
RATINGS = """userId,movieId,rating,timestamp
1,1,4.0,964982703
1,3,0.5,964981247
2,1,5,964982224
"""
SHARED = Path(__file__).parents[3] / "shared/data/ml-latest-small"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "movies.csv").write_text(MOVIES)
    (tmp_path / "ratings.csv").write_text(RATINGS)
    return tmp_path


def refusal(path):
    """Returns the one line with which a folder is refused."""
    with pytest.raises(InputError) as error:
        read_movielens(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_is_the_example(tables):
    assert tables.movies.rows() == [
        (1, "Toy Story (1995)", ["Animation", "Comedy"]),
        (3, "Postman, The (1997)", ["Drama"]),
        (8, "Nameless", []),
    ]
    assert tables.ratings.rows() == [
        (1, 1, 8, 964982703),
        (1, 3, 1, 964981247),
        (2, 1, 10, 964982224),
    ]


def test_csv_folder(folder):
    assert_is_the_example(read_movielens(folder))


def test_columns_in_any_order_with_others_between_and_windows_line_ends(folder):
    (folder / "ratings.csv").write_bytes(
        b"\xef\xbb\xbftimestamp,note,rating,movieId,userId\r\n"
        b"964982703,x,4.0,1,1\r\n964981247,,0.5,3,1\r\n964982224,x,5.0,1,2\r\n\r\n"
    )
    assert_is_the_example(read_movielens(folder))


def test_missing_last_newline_is_forgiven(folder):
    for name in ("movies.csv", "ratings.csv"):
        (folder / name).write_text((folder / name).read_text().rstrip("\n"))
    assert_is_the_example(read_movielens(folder))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_double_colon_folder(tmp_path, encoding):
    movies = '1::Misérables, Les: a "tale" (1995)::Drama|Children\'s\n2::X (1996)::War\n'
    (tmp_path / "movies.dat").write_text(movies, encoding=encoding)
    (tmp_path / "ratings.dat").write_text("7::2::5::978300760\n7::1::3.5::978302109\n")
    tables = read_movielens(tmp_path)
    assert tables.movies.rows() == [
        (1, 'Misérables, Les: a "tale" (1995)', ["Drama", "Children's"]),
        (2, "X (1996)", ["War"]),
    ]
    assert tables.ratings.rows() == [(7, 2, 10, 978300760), (7, 1, 7, 978302109)]


def test_published_zip(folder, tmp_path):
    path = tmp_path / "ml.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/ml/._movies.csv", "junk")
        archive.writestr("ml/old/movies.csv", "junk")
        archive.writestr("../../escape.csv", "junk")
        for name in ("movies.csv", "ratings.csv"):
            archive.write(folder / name, f"ml/{name}")
    assert_is_the_example(read_movielens(path))
    assert read_movielens(path).sha256 == read_movielens(folder).sha256
    assert {file.name for file in tmp_path.iterdir()} == {"movies.csv", "ratings.csv", "ml.zip"}


@pytest.mark.parametrize(
    ("file", "before", "after", "expected"),
    [
        ("ratings.csv", "0.5,", "0,", "row 3: rating is '0'; it must be 0.5 to 5 stars"),
        ("ratings.csv", "0.5,", "5.5,", "row 3: rating is '5.5'"),
        ("ratings.csv", "0.5,", "3.7,", "row 3: rating is '3.7'"),
        ("ratings.csv", "0.5,", "nan,", "row 3: rating is 'nan'"),
        ("ratings.csv", "0.5,", "good,", "row 3: rating is 'good'"),
        ("ratings.csv", "0.5,", ",", "row 3: rating is missing"),
        ("ratings.csv", "2,1,5", "two,1,5", "row 4: userId is 'two'; it must be a whole number"),
        ("ratings.csv", "1,3,", "1,3x,", "row 3: movieId is '3x'"),
        ("ratings.csv", "964981247", "yesterday", "row 3: timestamp is 'yesterday'"),
        ("ratings.csv", ",964982224", "", "row 4: timestamp is missing (is the file cut off?)"),
        ("ratings.csv", "964982224\n", "9649", "row 4: timestamp is '9649'"),
        ("ratings.csv", "rating", "stars", "no column 'rating'"),
        ("ratings.csv", "964981247", "964981247,9", "line 3: 5 fields where there should be 4"),
        ("movies.csv", '"Postman, The (1997)"', "Postman, The (1997)", "line 3: 4 fields"),
        ("movies.csv", '(1997)"', "(1997)", "a quote is never closed"),
        ("movies.csv", "3,", "three,", "row 3: movieId is 'three'"),
        ("movies.csv", "8,", "1,", "row 4: movieId is '1'; it must be listed once"),
        ("movies.csv", ",Drama", "", "row 3: genres is missing"),
        ("movies.csv", "8,Nameless,(no genres listed)\n", "8,N,Com", "row 4: genres is 'Com'"),
    ],
)
def test_a_bad_value_is_named_with_its_row(folder, file, before, after, expected):
    text = (folder / file).read_text()
    assert before in text
    (folder / file).write_text(text.replace(before, after))
    message = refusal(folder)
    assert f"{folder}/{file}" in message
    assert expected in message


def test_bytes_that_are_not_text(folder):
    (folder / "movies.csv").write_bytes(MOVIES.encode().replace(b"Toy", b"T\xff"))
    assert "movies.csv, line 2: not UTF-8 text" in refusal(folder)


def test_empty_file(folder):
    (folder / "ratings.csv").write_text("")
    assert "ratings.csv" in refusal(folder)


def test_missing_file(folder):
    (folder / "ratings.csv").unlink()
    assert f"{folder}: no ratings.csv in it" in refusal(folder)


def test_missing_folder(tmp_path):
    assert "no such folder or zip file" in refusal(tmp_path / "nowhere")


def test_damaged_zip(folder, tmp_path):
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "movies.csv", "ml/movies.csv")
        archive.writestr("ml/ratings.csv", RATINGS + "3,1,4.0,964982703\n" * 1000)
    data = whole.read_bytes()
    truncated = tmp_path / "truncated.zip"
    truncated.write_bytes(data[: len(data) // 2])
    assert "truncated.zip: neither a folder nor a readable zip file" in refusal(truncated)
    flipped = tmp_path / "flipped.zip"
    place = data.index(b"ml/ratings.csv") + 20
    flipped.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
    assert "flipped.zip: ml/ratings.csv is damaged" in refusal(flipped)


def test_newest_of_duplicates_is_kept_and_unknown_movies_are_dropped():
    movies = pl.DataFrame({"movieId": [1, 2]})
    columns = ["userId", "movieId", "half_stars", "timestamp"]
    ratings = pl.DataFrame(
        [(2, 1, 9, 5), (1, 2, 4, 7), (1, 1, 2, 9), (1, 1, 8, 3), (1, 9, 6, 1), (2, 1, 3, 5)],
        schema=columns,
        orient="row",
    )
    kept, dropped = clean_ratings(ratings, movies)
    # User 2 rated movie 1 twice in the same second: the later line is the newer one.
    assert kept.rows() == [(1, 2, 4, 7), (1, 1, 2, 9), (2, 1, 3, 5)]
    assert dropped == {"unknown_movies": 1, "duplicates": 2}


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/ml-latest-small")
def test_real_movielens():
    tables = read_movielens(SHARED)
    assert (tables.movies.height, tables.ratings.height) == (9742, 100_836)
    assert tables.ratings["userId"].n_unique() == 610
    assert tables.movies.filter(pl.col("genres").list.len() == 0).height == 34
