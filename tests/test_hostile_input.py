"""What comes from outside, damaged or malicious: refused in one line, and nothing else happens.

`tests/torture/fuzz.py` looks further, with the same properties.
"""

import ast
import csv
import dataclasses
import io
import json
import os
import re
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import hypothesis
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import uem_t5x
from uem_t5x.answers import predict, user_lines
from uem_t5x.base.errors import InputError
from uem_t5x.data import descriptions, splits, text_tables
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.manifest import Channel, EncoderRecord, Manifest, Split
from uem_t5x.data.movielens import read_movielens
from uem_t5x.tastes.verbalizer import normalize, read_answer, write_answer

settings.register_profile(
    "hostile",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PROFILE = settings.get_profile("hostile")
MIB = 2**20

MOVIES = 'movieId,title,genres\n1,Heat (1995),Action|Crime\n2,"Ronin, a (1998)",Action\n'
RATINGS = "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,2,0.5,964981247\n"
FILES = {"movies.csv": MOVIES.encode(), "ratings.csv": RATINGS.encode()}
COLUMNS = ["userId", "movieId", "rating", "timestamp"]
# What is special to one of the readers.
AWKWARD = [
    "\x00",
    "\x1c",
    "\x1f",
    "\r",
    "\n",
    '"',
    "::",
    ",",
    "|",
    "\ufeff",
    "\u2028",
    "\U0001f600",
]
NUMBERS = [
    "1",
    "01",
    "+1",
    "-1",
    "1.0",
    "1e3",
    "9" * 19,
    str(2**63),
    "9" * 400,
    "nan",
    "\u0661",
    " 1",
    "",
]


def refusal(function, *arguments):
    """Returns the message with which the arguments are refused, a single line for a terminal."""
    with pytest.raises(InputError) as error:
        function(*arguments)
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


def accepts(function, *arguments):
    """Returns what a function makes of the arguments; None if it refuses them as it should."""
    try:
        return function(*arguments)
    except InputError as error:
        assert str(error).isprintable(), str(error)
        assert len(str(error)) < 1000
        return None


def peak_memory(function, *arguments):
    tracemalloc.start()
    try:
        result = function(*arguments)
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def write_folder(path, files):
    path.mkdir(exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def pieces(*texts):
    """Texts of awkward pieces and of whatever else there is."""
    return st.lists(st.sampled_from([*texts, *AWKWARD, *NUMBERS]) | st.text(max_size=3)).map(
        "".join
    )


@st.composite
def damaged(draw, whole):
    """Data of which a few places are overwritten, cut out or doubled."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        data[start:end] = draw(st.binary(max_size=8) | st.just(bytes(data[start:end]) * 2))
    return bytes(data)


class TestTables:
    @PROFILE
    @given(
        st.binary() | pieces("userId", "movieId").map(lambda text: text.encode("utf-8", "ignore")),
        st.booleans(),
    )
    def test_any_bytes_are_a_table_or_refused(self, data, has_header):
        header = b"timestamp,x,rating,userId,movieId\n" if has_header else b""
        for columns in (COLUMNS, COLUMNS[:1]):
            table = accepts(text_tables.read_csv, header + data, "t.csv", columns)
            assert table is None or set(table.frame.columns) == set(columns)
        table = accepts(text_tables.read_double_colon, data, "t.dat", COLUMNS)
        assert table is None or table.frame.columns == COLUMNS

    @PROFILE
    @given(st.lists(st.tuples(*[pieces()] * 3), min_size=1), st.sampled_from(["\n", "\r\n"]))
    def test_what_python_writes_is_read_as_it_was(self, rows, end):
        # An empty row of one field is a blank line; the first field is never empty here.
        rows = [(f"x{row[0]}", *row[1:]) for row in rows]
        file = io.StringIO(newline="")
        csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(
            [("a", "b", "c"), *rows]
        )
        for columns in (["a", "b", "c"], ["a", "c"]):
            table = text_tables.read_csv(file.getvalue().encode(), "t.csv", columns)
            places = ["abc".index(column) for column in columns]
            read = [
                tuple(value or "" for value in row) for row in table.frame.select(columns).rows()
            ]
            assert read == [tuple(row[place] for place in places) for row in rows]

    def test_quoted_lines_are_read_by_several_threads_as_by_one(self):
        rows = [(str(row), 'He said "no",\n' * (row % 7), "x") for row in range(50_000)]
        file = io.StringIO(newline="")
        csv.writer(file).writerows([("a", "b", "c"), *rows])
        frame = text_tables.read_csv(file.getvalue().encode(), "t.csv", ["a", "b"]).frame
        assert [(a, b or "") for a, b in frame.rows()] == [row[:2] for row in rows]

    def test_what_begins_as_compressed_data_does_is_text(self):
        """polars would unpack it, to any size; a fuzzer found that."""
        table = text_tables.read_csv(b"x^,b\n1,2\n", "t.csv", ["x^", "b"])
        assert table.frame.rows() == [("1", "2")]
        table = text_tables.read_double_colon(b"x^::2\n", "t.dat", ["a", "b"])
        assert table.frame.rows() == [("x^", "2")]

    @pytest.mark.parametrize("reader", [text_tables.read_csv, text_tables.read_double_colon])
    @pytest.mark.parametrize("start", ["", "userId,movieId,rating,timestamp\n"])
    def test_an_endless_line_is_refused_without_a_copy_of_it(self, reader, start):
        data = start.encode() + bytes(64 * MIB)
        message, peak = peak_memory(refusal, reader, data, "t", COLUMNS)
        assert f"t, line {1 + bool(start)}: longer than 1 MiB" in message
        assert peak < 2 * MIB

    def test_the_longest_line_is_read(self):
        line = b"1," + b"x" * (text_tables.MAX_LINE_BYTES - 2)
        data = b"a,b\n" + line + b"\n2,y\n"
        assert text_tables.read_csv(data, "t", ["a", "b"]).frame.height == 2
        too_long = data.replace(b"1,", b"11,")
        assert "t, line 2: longer than" in refusal(text_tables.read_csv, too_long, "t", ["a", "b"])

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"a,b,b\n1,2,3\n", "line 1: two columns 'b'"),
            (b",".join(b"%d" % n for n in range(1001)) + b"\n", "line 1: 1001 columns"),
            (b'a,"b\n', "not the header"),
            (b"a\rb\r1\r2\r", "not the header"),
            ("a,b\n1,2\n".encode("utf-16"), "not the header"),
            (b"a\nb" * 3, "no column 'b' in its first line"),
            (b"a,b\n" + b"\n" * 10**6 + b"1,2\n", "line 2: 1 field where there should be 2"),
            (b'a,b\n"\n",2\n' + b"\n" * 10**6 + b"1,2\n", "line 4: 1 field where there should"),
            # A field too many, behind the columns that are asked for and before them.
            (b"a,b,c\n1,2,3\n1,2,3,4\n", "line 3: 4 fields where there should be 3"),
            (b"c,a,b\n1,2,3\n1,2,3,4\n", "line 3: 4 fields where there should be 3"),
            (b"a,b,c\n1,2,\xff\n", "line 2: not UTF-8"),
            (b"a,b,c\n1,\rx,2\n", "line 2: no row of a CSV file; end lines in a line feed"),
            (
                b'a,b,c\n1,2,"' + b"x\n" * 2**19 + b'y"\n',
                "line 2 to 524290: no row of a CSV file; a",
            ),
        ],
    )
    def test_what_is_wrong_is_told(self, data, expected):
        assert expected in refusal(text_tables.read_csv, data, "t.csv", ["a", "b"])

    @pytest.mark.parametrize("letter", ["x", "x,", "x\n", '""'])
    def test_a_long_field_is_read_wherever_it_stands(self, letter):
        field = (letter * 150_000)[:200_000]
        cell = f'"{field}"' if letter != "x" else field
        for row in (f"{cell},1,2", f"1,{cell},2", f"1,2,{cell}"):
            data = f"a,b,c\n{row}\n".encode()
            for columns in (["a", "b", "c"], ["a", "b"]):
                assert text_tables.read_csv(data, "t.csv", columns).frame.height == 1

    @PROFILE
    @given(st.lists(st.sampled_from(['"', '""', ",", "\n", "\r\n", "\r", "x", "x,y,z\n", '"x",'])))
    def test_every_table_is_what_python_reads_in_it(self, parts):
        text = "a,b,c\n" + "".join(parts)
        ended = text.rstrip("\r\n") if text.endswith(("\n\n", "\r\n\r\n", "\r")) else text
        try:
            rows = list(csv.reader(io.StringIO(ended, newline="\n"), strict=True))
        except csv.Error:
            rows = [[]]
        for columns in (["a", "b", "c"], ["a", "c"]):
            table = accepts(text_tables.read_csv, text.encode(), "t.csv", columns)
            assert (table is not None) == all(len(row) == 3 for row in rows)
            places = ["abc".index(column) for column in columns]
            if table:
                read = table.frame.select(columns).rows()
                assert read == [tuple(row[p] or None for p in places) for row in rows[1:]]

    def test_a_field_too_many_is_found_behind_a_quote(self):
        # In this format a quote is a letter.
        data = b'1::"Heat::3\n2::x::3::4\n'
        message = refusal(text_tables.read_double_colon, data, "t.dat", ["a", "b", "c"])
        assert "line 2: 4 fields" in message

    def test_a_long_value_is_shown_in_part(self, tmp_path):
        ratings = RATINGS.replace("4.0", "x" * 500_000)
        folder = write_folder(tmp_path, FILES | {"ratings.csv": ratings.encode()})
        assert "row 2: rating is 'xxx" in refusal(read_movielens, folder)


class TestMovieLens:
    @PROFILE
    @given(st.data())
    def test_damaged_files_are_read_or_refused(self, tmp_path, data):
        name = data.draw(st.sampled_from(sorted(FILES)))
        files = FILES | {name: data.draw(damaged(FILES[name]))}
        tables = accepts(read_movielens, write_folder(tmp_path, files))
        if tables:
            assert tables.movies["movieId"].is_unique().all()
            assert tables.ratings["half_stars"].is_between(1, 10).all()
            assert not any(
                frame.select("movieId").null_count().item()
                for frame in (tables.movies, tables.ratings)
            )

    @PROFILE
    @given(st.sampled_from(NUMBERS), st.integers(0, 3))
    def test_numbers_are_exact_or_refused(self, tmp_path, number, column):
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

    def test_ids_of_several_spellings_are_one_movie(self, tmp_path):
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
    def test_genres_that_answers_cannot_tell_apart(self, tmp_path, genres, expected):
        movies = MOVIES + f"3,Collateral (2004),{genres}\n"
        folder = write_folder(tmp_path, FILES | {"movies.csv": movies.encode()})
        assert expected in refusal(read_movielens, folder)

    def test_what_is_no_file_is_not_waited_for(self, tmp_path):
        folder = write_folder(tmp_path, FILES)
        (folder / "ratings.csv").unlink()
        os.mkfifo(folder / "ratings.csv")
        assert "ratings.csv: not a regular file" in refusal(read_movielens, folder)
        assert "no such folder or zip file" in refusal(read_movielens, folder / "ratings.csv")
        assert "neither a folder nor" in refusal(read_movielens, Path("x" * 300))


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def declare(path, size):
    """Makes the last member of a zip file claim another size."""
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.rindex(signature) + offset
        data[place : place + 4] = struct.pack("<L", size)
    path.write_bytes(data)


class TestZipFiles:
    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_nothing_is_written_and_the_outermost_member_is_read(self, tmp_path):
        path = tmp_path / "in/ml.zip"
        path.parent.mkdir()
        junk = [
            *("../../movies.csv", "/etc/ratings.csv", "ml/old/movies.csv", "..\\..\\movies.csv"),
            *("ml/movies.csv/", "ml/\x1b[2Jx/ratings.csv", "\n/ratings.csv", "a/b/../movies.csv"),
        ]
        members = [(name, b"junk") for name in junk]
        before = sorted(tmp_path.rglob("*"))
        zipped(
            path, [*members, ("ml/movies.csv", b"old"), *[(f"ml/{n}", d) for n, d in FILES.items()]]
        )
        tables = read_movielens(path)
        assert (tables.movies.height, tables.ratings.height) == (2, 2)
        assert sorted(tmp_path.rglob("*")) == sorted([*before, path])

    @PROFILE
    @given(st.data())
    def test_damaged_archives_are_read_or_refused(self, tmp_path, data):
        path = zipped(tmp_path / "ml.zip", FILES.items(), data.draw(st.sampled_from([0, 8])))
        path.write_bytes(data.draw(damaged(path.read_bytes())))
        accepts(read_movielens, path)

    @pytest.mark.parametrize(
        "compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    )
    @pytest.mark.parametrize("declared", [None, 1000])
    def test_a_bomb_is_not_unpacked(self, tmp_path, compression, declared):
        bomb = bytes((100 if compression == zipfile.ZIP_DEFLATED else 20) * MIB)
        path = zipped(
            tmp_path / "ml.zip", [("movies.csv", MOVIES), ("ratings.csv", bomb)], compression
        )
        del bomb
        if declared:
            declare(path, declared)
        message, peak = peak_memory(refusal, read_movielens, path)
        assert re.search("bytes, but only|not compressed by deflate|is damaged", message)
        assert peak < 2 * MIB

    def test_a_large_table_is_no_bomb(self, tmp_path):
        # More regular than any real one, and not small.
        rows = "".join(f"{n},1,4.0,{964982703 + n}\n" for n in range(3_000_000))
        ratings = "userId,movieId,rating,timestamp\n" + rows
        path = zipped(tmp_path / "ml.zip", [("movies.csv", MOVIES), ("ratings.csv", ratings)])
        assert len(ratings) > 64 * MIB
        assert read_movielens(path).ratings.height == 3_000_000


TITLES = st.builds(
    "{}{}".format,
    st.sampled_from(
        [
            *("Emma", "Emma!", "EMMA", "\u00c9mma", "E m ma", "Emma (Ema)", "Psycho (a.k.a. Emma)"),
            *("The Emma: Part", "Emma - Part"),
        ]
    )
    | pieces("Emma", "(", ")", ": ", " - ", ", The"),
    st.sampled_from(["", " (1996)", " (1997)", " (1998\u20132001)", " (\u0661\u0669\u0669\u0666)"]),
)
ROWS = st.lists(
    st.tuples(TITLES, st.sampled_from([None, "1996", "May 1, 1997", "\u0661\u0669\u0669\u0666"]))
)


def described(rows):
    titles, dates = zip(*rows) if rows else ((), ())
    columns = {"title": titles, "description": map(str, range(len(rows))), "date": dates}
    return pl.DataFrame(
        {name: list(values) for name, values in columns.items()},
        schema=dict.fromkeys(columns, pl.String),
    )


def movie_frame(titles, ids):
    schema = {"movieId": pl.Int64, "title": pl.String}
    return pl.DataFrame({"movieId": ids, "title": titles}, schema=schema)


def every_pair(movies, rows):
    """The join as the module's docstring says it, on every pair of titles."""
    year_of_title = descriptions._year_of_title()
    movies = movies.select("movieId", "title", year=year_of_title)
    year_of_date = pl.col("date").str.extract("([0-9]{4})").cast(pl.Int32)
    rows = rows.with_row_index("row").with_columns(year=pl.coalesce(year_of_date, year_of_title))
    pairs = []
    of_rows = descriptions._keys(rows, "row").rows(named=True)
    for movie in descriptions._keys(movies, "movieId").rows(named=True):
        for row in of_rows:
            if (movie["form"], movie["key"]) != (row["form"], row["key"]):
                continue
            cost = movie["form"] + movie["kind"] + row["kind"]
            if None in (movie["year"], row["year"]):
                whole = movie["form"] == 32 and max(movie["kind"], row["kind"]) <= 2
                likely = whole and movie["owners"] == row["owners"] == 1
                cost = 256
            else:
                gap = abs(movie["year"] - row["year"])
                cost += 16 * gap
                likely = gap <= 1 and cost < (64 if gap else 256)
            if likely:
                pairs.append((cost, movie["movieId"], row["row"], movie["title"], row["title"]))

    def preferred(owner, other):
        found = {}
        for pair in pairs:
            found.setdefault(pair[owner], []).append(pair)
        for name, of_one in found.items():
            nearest = [pair for pair in of_one if pair[0] == min(of_one)[0]]
            if len({pair[other + 2] for pair in nearest}) == 1:
                yield name, min(pair[other] for pair in nearest)

    of_movie, of_row = dict(preferred(1, 2)), dict(preferred(2, 1))
    return {m: rows["description"][r] for m, r in of_movie.items() if of_row.get(r) == m}


class TestDescriptions:
    @PROFILE
    @given(st.lists(TITLES, max_size=8), ROWS, st.randoms())
    def test_the_join_is_that_of_every_pair(self, titles, rows, shuffle):
        ids = list(range(len(titles)))
        movies = movie_frame(titles, ids)
        table = described(rows)
        joined = dict(descriptions.join_by_title(movies, table).rows())
        assert joined == every_pair(movies, table)
        assert len(set(joined.values())) == len(joined)
        # The order of the movies says nothing.
        order = ids.copy()
        shuffle.shuffle(order)
        assert dict(descriptions.join_by_title(movies[order], table).rows()) == joined

    @pytest.mark.parametrize(
        ("title", "date", "expected"),
        [("Emma", "1996", [(0, "0")]), ("Emma", None, []), ("Emma!{}!", "1996", [(0, "0")])],
    )
    def test_namesakes_take_linear_time(self, title, date, expected):
        count = 20_000
        titles = [title.format("?" * (n % 100)) + " (1996)" for n in range(count)]
        rows = [(title.format("." * (n % 100)), date) for n in range(count)]
        movies = movie_frame(titles, list(range(count)))
        start = time.process_time()
        joined = descriptions.join_by_title(movies, described(rows))
        assert time.process_time() - start < 10
        assert joined.rows() == expected

    @PROFILE
    @given(
        pieces("movieId,description\n", "1,x\n", "movie_title,movie_info,original_release_date\n")
    )
    def test_any_table_is_joined_or_refused(self, tmp_path, text):
        path = tmp_path / "t.csv"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        accepts(descriptions.read_descriptions, path, movie_frame(["Emma (1996)"], [1]))


GENRES = st.lists(
    (
        pieces(
            "like",
            "likes",
            "n't",
            "doesn't like",
            " and ",
            "user",
            "'",
            "\u2019",
            "\u0130",
            "\u00df",
            "\u0301",
            "\uff02",
            "\uff0c",
            "\uff21\uff2e\uff24",
        )
    ),
    min_size=1,
    max_size=8,
    unique_by=normalize,
).filter(lambda genres: all(map(normalize, genres)))


class TestVerbalizer:
    @PROFILE
    @given(GENRES, st.data())
    @hypothesis.example(["like'", "War"], None)
    def test_answers_are_read_as_they_were_written(self, genres, data):
        cut = data.draw(st.integers(0, len(genres))) if data else 1
        liked, disliked = genres[:cut], genres[cut:]
        assert read_answer(write_answer(liked, disliked), genres) == (liked, disliked)

    @PROFILE
    @given(st.text() | pieces("likes ", "doesn't like ", "War", "\ud800"), GENRES)
    def test_any_text_names_each_genre_once_or_not(self, text, genres):
        liked, disliked = read_answer(text, genres)
        assert len({*liked, *disliked}) == len(liked) + len(disliked)
        assert {*liked, *disliked} <= set(genres)


def read_lines(data, **options):
    refused = []
    lines = user_lines.read_lines(io.BytesIO(data))
    users = list(user_lines.read_users(lines, "in.jsonl", {1: 7}, refused.append, **options))
    for error in refused:
        assert str(error).isprintable()
        assert len(str(error)) < 400
    return users, [int(re.match(r"in\.jsonl: line (\d+): ", str(error))[1]) for error in refused]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | pieces("\ud800")
    | st.sampled_from([10**400, 1, 4.5]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)
ITEMS = JSON | st.fixed_dictionaries(
    {},
    optional={
        "movieId": st.just(1) | JSON,
        "rating": st.just(4.5) | JSON,
        "timestamp": st.sampled_from([3, 2.5, "2015-03-09", "2015-03-09T12:52:18Z"]) | JSON,
        **{name: st.just("War") | JSON for name in ("title", "genres", "description")},
    },
)
USERS = JSON | st.fixed_dictionaries(
    {"history": st.lists(ITEMS, max_size=3)}, optional={"user_id": JSON}
)


def strict(constant):
    raise AssertionError(constant)


class TestPredict:
    @PROFILE
    @given(st.lists(USERS, max_size=4), st.booleans())
    def test_each_line_is_answered_or_refused(self, records, ascii_only):
        lines = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
        data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
        users, refused = read_lines(data)
        assert len(users) + len(refused) == len(records)
        answered = [r for n, r in enumerate(records, start=1) if n not in refused]
        for user, record in zip(users, answered):
            dropped = user.unknown + user.outdated
            assert len(user.items) + dropped == len(record["history"])
            assert set(user.half_stars) <= set(range(1, 11))
            line = predict.write_line({"user_id": user.user_id, "answer": "\ud800"})
            written = json.loads(line.encode(), parse_constant=strict)["user_id"]
            assert "\n" not in line
            assert written == record.get("user_id")
            for item in user.items:
                assert item == 7 or json.dumps(item.title, ensure_ascii=False).encode()

    @PROFILE
    @given(st.lists(st.binary()))
    def test_bytes_spoil_their_own_line_only(self, lines):
        good = b'{"user_id": "u", "history": [{"movieId": 1, "rating": 4.5}]}'
        data = b"".join(line.replace(b"\n", b"") + b"\n" + good + b"\n" for line in lines)
        users, refused = read_lines(data)
        assert all(number % 2 for number in refused)
        assert [user.items for user in users].count((7,)) >= len(lines)

    @pytest.mark.parametrize(
        "line",
        [
            b"[" * 10**6,
            b'{"history": ' + b"[" * 900 + b"]" * 900 + b"}",
            b'{"a":' * 10**5,
            b'{"user_id": %s, "history": []}' % (b"9" * 5000),
            b" " * (user_lines.MAX_LINE_BYTES + 1) + b'{"user_id": "u", "history": []}',
            b'{"user_id": 1e400, "history": []}',
            b'{"user_id": NaN, "history": []}',
            b'{"user_id": -Infinity, "history": []}',
            b'{"user_id": {"a": 1}, "history": []}',
            b'{"user_id": "\xff", "history": []}',
            b'{"user_id": "\xed\xa0\x80", "history": []}',
            b'{"history": [{"movieId": 1, "rating": 1e400}]}',
            b'{"history": [{"movieId": 1, "rating": %s}]}' % (b"9" * 4000),
            b'{"history": [{"movieId": %s, "rating": 1}]}' % (b"[" * 500 + b"]" * 500),
            b'{"history": [{"movieId": "%s", "rating": 1}]}' % (b"x" * 10**6),
            b'{"history": [{"title": "\\ud800", "rating": 1}]}',
            '{"history": []}'.encode("utf-16"),
        ],
    )
    def test_a_hostile_line_is_refused_and_the_next_one_answered(self, line):
        users, refused = read_lines(line + b'\n{"user_id": "next", "history": []}')
        assert refused == [1]
        assert [user.user_id for user in users] == ["next"]

    @pytest.mark.parametrize(
        ("line", "user_id"),
        [
            (b'\xef\xbb\xbf{"user_id": "u", "history": []}\r', "u"),
            (b'{"user_id": "u", "history": [], "user_id": 3}', 3),  # the last one, as in Python
            (b'{"user_id": "\\ud800", "history": []}', "\ud800"),
            (b'{"history": []}', None),
        ],
    )
    def test_an_unusual_line_is_answered(self, line, user_id):
        ((user,), refused) = read_lines(line)
        assert (user.user_id, refused) == (user_id, [])

    @PROFILE
    @given(st.lists(st.integers(0, 40)), st.booleans())
    def test_lines_up_to_the_limit_are_whole(self, lengths, ends):
        limit = 16
        data = b"\n".join(bytes([65 + n % 26]) * length for n, length in enumerate(lengths))
        data += b"\n" * ends
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(user_lines, "MAX_LINE_BYTES", limit)
            patch.setattr(user_lines, "_CHUNK_BYTES", 7)
            lines = list(user_lines.read_lines(io.BytesIO(data)))
        assert lines == [line[: limit + 1] for line in data.splitlines(keepends=True)]

    def test_an_endless_line_takes_no_more_memory_than_the_limit(self, tmp_path):
        path = tmp_path / "in.jsonl"
        with path.open("wb") as file:
            file.truncate(512 * MIB)
            file.seek(0, os.SEEK_END)
            file.write(b'\n{"user_id": "next", "history": []}\n')

        def read():
            refused = []
            with path.open("rb") as file:
                lines = user_lines.read_lines(file)
                users = list(user_lines.read_users(lines, "in.jsonl", {}, refused.append))
            return users, refused

        (users, refused), peak = peak_memory(read)
        assert [user.user_id for user in users] == ["next"]
        assert str(refused[0]) == (
            "in.jsonl: line 1: longer than 16 MiB; give the most recent items of the history"
        )
        assert peak < 3 * user_lines.MAX_LINE_BYTES

    def test_a_line_of_nothing_but_items_takes_some_memory_and_time(self):
        line = b'{"history": [' + b"[]," * 500_000 + b"[]]}"
        (users, refused), peak = peak_memory(read_lines, line)
        assert (users, refused) == ([], [1])
        assert peak < 40 * len(line)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """A folder with a manifest, the manifest, and the bytes of its file."""
    folder = tmp_path_factory.mktemp("manifest")
    written = Manifest(
        genres=("Drama", "Spaß"),
        channels=(Channel("rating", 8, "rating"),),
        encoder=EncoderRecord("hashing", 8),
        splits={"train": Split(10, 1)},
        has_vocabulary=False,
        counts={"users": 10, "labels_per_user": 2.5},
        options={"seed": 0, "validation_users": 0.1},
        inputs={"movies": "00"},
        files={"items/movies.parquet": "00"},
    )
    written.write(folder)
    return folder, written, (folder / "manifest.json").read_bytes()


def parts(value, path=()):
    """Yields where each value of a JSON document lies in it."""
    yield path
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from parts(inner, (*path, key))


class TestManifest:
    @PROFILE
    @given(st.data())
    def test_only_what_was_written_is_read(self, manifest, data):
        folder, written, whole = manifest
        (folder / "manifest.json").write_bytes(data.draw(st.binary() | damaged(whole)))
        assert accepts(Manifest.read, folder) in (None, written)

    @PROFILE
    @given(st.data())
    def test_no_other_value_is_read(self, manifest, data):
        folder, _, whole = manifest
        fields = json.loads(whole)
        *outer, key = data.draw(st.sampled_from([path for path in parts(fields) if path]))
        place = fields
        for step in outer:
            place = place[step]
        before = json.dumps(place[key])
        if data.draw(st.booleans()):
            del place[key]
        else:
            place[key] = data.draw(JSON)
            hypothesis.assume(json.dumps(place[key]) != before)
        (folder / "manifest.json").write_text(json.dumps(fields))
        assert accepts(Manifest.read, folder) is None
        assert accepts(DatasetFolder.open, folder) is None

    def test_white_space_and_order_say_nothing(self, manifest):
        folder, written, whole = manifest
        fields = dict(reversed(json.loads(whole).items()))
        (folder / "manifest.json").write_text(json.dumps(fields, indent=7))
        assert Manifest.read(folder) == written

    @pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", ".."])
    def test_no_path_leaves_the_folder(self, manifest, name):
        # Signed anew, as by someone who means harm.
        folder, written, _ = manifest
        dataclasses.replace(written, files={name: "00"}).write(folder)
        assert "which lies outside of it" in refusal(DatasetFolder.open, folder)


class TestSplits:
    @PROFILE
    @given(
        st.sets(st.integers(-(2**63), 2**63 - 1)),
        st.integers() | st.sampled_from([2**64, -(2**200)]),
        st.integers(0, 5) | st.floats(0, 1),
        st.integers(0, 5) | st.floats(0, 1),
    )
    @hypothesis.example(set(range(9)), 0, 5, 0.0)
    def test_each_user_is_in_one_split(self, users, seed, validation, test):
        ids = np.array(sorted(users), np.int64)
        shares = {"validation": validation, "test": test}
        parts = accepts(splits.split_users, ids, shares, seed)
        if parts:
            assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(ids)))
            assert len(parts["train"])


def test_nothing_is_unpickled_or_evaluated():
    """No module can run what it reads: by pickle, as Python, or as an array of objects."""
    modules = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
    files = list(Path(uem_t5x.__file__).parent.rglob("*.py"))
    assert len(files) > 40
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert modules.isdisjoint(name.partition(".")[0] for name in names), file
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else None
                assert called not in ("eval", "exec", "__import__"), file
                assert "allow_pickle" not in [keyword.arg for keyword in node.keywords], file
