import zipfile
from pathlib import Path

import polars as pl
import pytest

from uem_t5x.base.errors import InputError
from uem_t5x.data.movielens import clean_ratings, read_movielens

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


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
def test_a_quote_within_a_field_is_a_letter(folder, end):
    """Tags of MovieLens 25M hold inches; from one to the next nothing is swallowed."""
    tags = {1100: 'a 12" single', 2200: 'the 7" cut', 2500: 'so "good"', 2600: '"a ""7"", b"'}
    rows = [f"{row},1,4.0,{964982703 + row},{tags.get(row, 'x')}" for row in range(2780)]
    text = end.join(["userId,movieId,rating,timestamp,tag", *rows, ""])
    (folder / "ratings.csv").write_bytes(text.encode())
    ratings = read_movielens(folder).ratings
    assert ratings.rows() == [(row, 1, 8, 964982703 + row) for row in range(2780)]


@pytest.mark.parametrize(
    "columns",
    [
        ("userId", "movieId", "rating", "timestamp", "tag"),
        ("userId", "movieId", "tag", "rating", "timestamp"),
        ("tag", "userId", "movieId", "rating", "timestamp"),
    ],
)
@pytest.mark.parametrize("last", [3, 300])
def test_rows_that_a_quote_swallows_are_missed(folder, columns, last):
    tags = {2: '"never closed', last: '12"'}
    rows = [
        {"userId": row, "tag": tags.get(row, "x")}
        | {"movieId": 1, "rating": 4.0, "timestamp": 964982703}
        for row in range(1000)
    ]
    lines = [",".join(str(row[column]) for column in columns) for row in rows]
    (folder / "ratings.csv").write_text("\n".join([",".join(columns), *lines, ""]))
    assert f"ratings.csv, line 4 to {last + 2}: no row of a CSV file" in refusal(folder)


def test_text_of_several_lines_is_no_swallowed_row(folder):
    (folder / "movies.csv").write_text(
        "movieId,title,genres,plot\n"
        '1,Toy Story (1995),Animation|Comedy,"Toys, in\n1995, live.\n\n7, 8, ""9"" of them"\n'
        '3,"Postman, The (1997)",Drama,""\n8,Nameless,,\n'
    )
    assert_is_the_example(read_movielens(folder))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_double_colon_folder(tmp_path, encoding):
    movies = '1::Misérables, Les: a "tale" (1995)::Drama|Children\'s\n2::X (1996)::War\n'
    (tmp_path / "movies.dat").write_text(movies, encoding=encoding)
    (tmp_path / "ratings.dat").write_text("\ufeff7::2::5::978300760\n7::1::3.5::978302109\n")
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


def test_a_zip_file_of_windows_whose_separator_is_a_backslash(folder, tmp_path):
    path = tmp_path / "ml.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml\\", "")
        for name in ("movies.csv", "ratings.csv"):
            archive.write(folder / name, f"ml\\{name}")
    assert_is_the_example(read_movielens(path))


MORE = RATINGS + "3,1,4.0,964982703\n"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (
            {"a/movies.csv": MOVIES, "a/ratings.csv": RATINGS, "b/ratings.csv": MORE},
            None,
        ),
        (
            {
                **{"ml/movies.csv": MOVIES, "ml/ratings.csv": RATINGS},
                **{"__MACOSX/movies.csv": "junk", "__MACOSX/ratings.csv": "junk"},
                **{"ml/._movies.csv": "junk", "ml/._ratings.csv": "junk"},
            },
            None,
        ),
        (
            {"a/movies.csv": MOVIES, "b/ratings.csv": RATINGS},
            "movies.csv and ratings.csv are in different folders",
        ),
        (
            {
                **{"ml/movies.csv": MOVIES, "ml/ratings.csv": RATINGS},
                **{"ml/new/movies.csv": MOVIES, "ml/new/ratings.csv": MORE},
            },
            "2 data sets in it, whose movies are ml/movies.csv and ml/new/movies.csv",
        ),
        (
            {
                **{"movies.csv": MOVIES, "ratings.csv": RATINGS},
                **{"movies.dat": "1::X (1996)::War\n", "ratings.dat": "7::1::5::978300760\n"},
            },
            "2 data sets in it, whose movies are movies.csv and movies.dat",
        ),
    ],
)
def test_both_tables_come_from_one_folder(tmp_path, members, expected):
    path = tmp_path / "ml.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    if expected:
        assert f"{path}: {expected}" in refusal(path)
    else:
        assert_is_the_example(read_movielens(path))


def test_several_data_sets_in_a_folder(folder):
    (folder / "movie.csv").write_text(MOVIES)
    assert_is_the_example(read_movielens(folder))
    (folder / "rating.csv").write_text(MORE)
    assert "2 data sets in it, whose movies are movies.csv and movie.csv" in refusal(folder)


def test_20m_as_kaggle_has_it(tmp_path):
    # `date -u -d "2004-07-30 18:45:03" +%s` and so on gave the seconds of the example.
    (tmp_path / "movie.csv").write_text("\ufeff" + MOVIES.replace("movieId", '"movieId"'))
    (tmp_path / "rating.csv").write_text(
        '\ufeff"userId","movieId","rating","timestamp"\n'
        '1,1,4,"2000-07-30 18:45:03"\n1,3,0.5,"2000-07-30T18:20:47Z"\n'
        '2,1,5,"2000-07-30T18:37:04"\n'
    )
    assert_is_the_example(read_movielens(tmp_path))


def test_ids_as_other_tools_write_them(folder):
    (folder / "movies.csv").write_text(MOVIES.replace("\n1,", "\n1.0,").replace("\n3,", "\n3.00,"))
    (folder / "ratings.csv").write_text(
        RATINGS.replace("\n1,1,", "\n1.0,1.0,").replace("964981247", "964981247.0")
    )
    assert_is_the_example(read_movielens(folder))


@pytest.mark.parametrize("highest", [2**63 - 1, 2**63, 2**64 - 1])
def test_user_ids_up_to_64_bits_are_kept(folder, highest):
    (folder / "ratings.csv").write_text(RATINGS.replace("\n2,", f"\n{highest},"))
    assert read_movielens(folder).ratings["userId"].to_list() == [1, 1, highest]


@pytest.mark.parametrize(
    ("user", "other", "expected"),
    [
        (
            2**64,
            1,
            "row 4: userId is '18446744073709551616'; it must be a whole number below 2**64",
        ),
        (2**63, -1, "row 2: userId is '-1'; it must be 0 or more"),
    ],
)
def test_user_ids_that_do_not_fit(folder, user, other, expected):
    ratings = RATINGS.replace("\n2,", f"\n{user},").replace("\n1,", f"\n{other},")
    (folder / "ratings.csv").write_text(ratings)
    assert expected in refusal(folder)


@pytest.mark.parametrize(
    "none",
    ["(No genres listed)", "(no genres listed) ", "no genres listed", "", '""', " ", "nan", "N/A"],
)
def test_spellings_of_no_genre(folder, none):
    (folder / "movies.csv").write_text(MOVIES.replace("(no genres listed)", none))
    assert_is_the_example(read_movielens(folder))


def refusal_of_genres(folder, *genres):
    cells = [genre.replace('"', '""') for genre in genres]
    rows = [f'{row},X (1995),"{cell}"' for row, cell in enumerate(cells, 1)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *rows, ""]))
    return refusal(folder)


@pytest.mark.parametrize(
    ("genres", "row", "mend"),
    [
        (["Drama", "[{'id': 12, 'name': 'Children'}]"], 3, "without brackets: Children|IMAX"),
        (["Drama", '["Children", "IMAX"]', "IMAX"], 3, "without brackets: Children|IMAX"),
        (["[]", "Drama"], 2, "without brackets: Children|IMAX"),
        (["Drama|War", "Children, IMAX", "IMAX", "Children|War"], 3, "as 'Children|IMAX'"),
        (["Drama,War", "War,Comedy", "Comedy,Drama"], 2, "as 'Drama|War'"),
        (["Drama", "Drama; War", "War"], 3, "as 'Drama|War'"),
        (["Drama / War", "War", "Drama / Comedy", "Comedy"], 2, "as 'Drama|War'"),
    ],
)
def test_genres_in_another_notation(folder, genres, row, mend):
    message = refusal_of_genres(folder, *genres)
    assert f"movies.csv, row {row}: genres is {genres[row - 2][:8]!r}"[:-3] in message
    assert f"it must be names joined by |, {mend}" in message


@pytest.mark.parametrize(
    "genres",
    [
        # Names of shops' and games' classes. A part of each occurs in no other.
        ["Patio, Lawn & Garden", "Arts, Crafts & Sewing", "Garden", "Lawn|Rom, Com", "Com"],
        ["Action/Adventure", "Action|Adventure"],
        ["[AC/DC]|[Live]", "Action-Adventure", "Action|Adventure"],
    ],
)
def test_separators_in_names_of_genres(folder, genres):
    rows = [f'{row},X (1995),"{cell}"' for row, cell in enumerate(genres, 1)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *rows, ""]))
    assert read_movielens(folder).movies["genres"].to_list() == [g.split("|") for g in genres]


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
        ("ratings.csv", ",964982224", "", "line 4: 3 fields where there should be 4"),
        ("ratings.csv", "964982224\n", "9649", "row 4: timestamp is '9649'"),
        ("ratings.csv", "rating", "stars", "no column 'rating'"),
        ("ratings.csv", "964981247", "964981247,9", "line 3: 5 fields where there should be 4"),
        ("movies.csv", '"Postman, The (1997)"', "Postman, The (1997)", "line 3: 4 fields"),
        (
            "movies.csv",
            '(1997)"',
            "(1997)",
            "line 3 to 4: no row of a CSV file; a quote is never",
        ),
        (
            "movies.csv",
            '"Postman, The',
            '"The \\"Postman\\"',
            'write a quote as "", not as " or \\"',
        ),
        ("movies.csv", "8,Nameless", '8,"Name" less', "line 4: no row of a CSV file; in a quoted"),
        ("movies.csv", "3,", "three,", "row 3: movieId is 'three'"),
        ("movies.csv", "8,", "1,", "row 4: movieId is '1'; it must be listed once"),
        ("movies.csv", ",Drama", "", "line 3: 2 fields where there should be 3; the file is cut"),
        ("movies.csv", "8,Nameless,(no genres listed)\n", "8,N,Com", "row 4: genres is 'Com'"),
        ("movies.csv", "8,Nameless,(no genres listed)\n", "8,N,", "row 4: genres is missing"),
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
