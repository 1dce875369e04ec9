"""Any titles and any table of descriptions: joined as every pair would be, in linear time."""

import time

import polars as pl
import pytest
from hostile_input import PROFILE, accepts, pieces
from hypothesis import given
from hypothesis import strategies as st

from uem_t5x.data import descriptions

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


@PROFILE
@given(st.lists(TITLES, max_size=8), ROWS, st.randoms())
def test_the_join_is_that_of_every_pair(titles, rows, shuffle):
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
def test_namesakes_take_linear_time(title, date, expected):
    count = 20_000
    titles = [title.format("?" * (n % 100)) + " (1996)" for n in range(count)]
    rows = [(title.format("." * (n % 100)), date) for n in range(count)]
    movies = movie_frame(titles, list(range(count)))
    start = time.process_time()
    joined = descriptions.join_by_title(movies, described(rows))
    assert time.process_time() - start < 10
    assert joined.rows() == expected


@PROFILE
@given(pieces("movieId,description\n", "1,x\n", "movie_title,movie_info,original_release_date\n"))
def test_any_table_is_joined_or_refused(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    accepts(descriptions.read_descriptions, path, movie_frame(["Emma (1996)"], [1]))
