import re
from pathlib import Path

import polars as pl
import pytest

from uem_t5x.base.errors import InputError
from uem_t5x.data.descriptions import join_by_title, read_descriptions
from uem_t5x.data.movielens import read_movielens

SHARED = Path(__file__).parents[3] / "shared/data"


def match(titles, described):
    """Returns which title gets which description: movies count from 0, so do descriptions."""
    movies = pl.DataFrame({"movieId": range(len(titles)), "title": titles})
    table = pl.DataFrame(
        {
            "title": [title for title, _ in described],
            "description": [str(row) for row in range(len(described))],
            "date": [date for _, date in described],
        },
        schema_overrides={"date": pl.String},
    )
    return {movie: int(row) for movie, row in join_by_title(movies, table).rows()}


@pytest.mark.parametrize(
    ("listed", "described"),
    [
        ("Matrix, The (1999)", "The Matrix"),
        ("matrix, the (1999)", "THE MATRIX"),
        ("Amelie (Fabuleux destin d'Amélie Poulain, Le) (1999)", "Amélie"),
        (
            "Amelie (Fabuleux destin d'Amélie Poulain, Le) (1999)",
            "Le fabuleux destin d\N{RIGHT SINGLE QUOTATION MARK}Amelie Poulain",
        ),
        ("Apartment, The (Appartement, L') (1999)", "L'Appartement"),
        ("Untergang, Der (1999)", "Der Untergang"),
        ("Dolce Vita, La (1999)", "La dolce vita"),
        ("Seven (a.k.a. Se7en) (1999)", "Se7en"),
        (
            "European Vacation (aka National Lampoon's European Vacation) (1999)",
            "European Vacation",
        ),
        ("Bicycle Thieves (a.k.a. The Bicycle Thief) (Ladri) (1999)", "The Bicycle Thief"),
        ("(500) Days of Summer (1999)", "(500) Days of Summer"),
        ("Mr. & Mrs. Smith (1999)", "Mr and Mrs Smith"),
        ("Naked Gun 2 1/2: The Smell of Fear, The (1999)", "The Naked Gun 2½: The Smell of Fear"),
        ("Alien³ (1999)", "Alien 3"),
        ("WALL·E (1999)", "WALL-E"),
        ("Æon Flux (1999)", "Aeon Flux"),
        ("Death Note: Desu nôto (1999\N{EN DASH}2007)", "Death Note: Desu Noto"),
        ("Mouse Hunt (1999)", "MouseHunt"),
        ("Underneath (1999)", "The Underneath"),
        ("Star Wars: Episode V - The Empire Strikes Back (1999)", "The Empire Strikes Back"),
        ("Zathura (1999)", "Zathura: A Space Adventure"),
        ("Mother! (1999)", "mother"),  # where there is no other
        ("Cafe\u0301 (1999)", "Cafe"),
        ("\u304b\u3099 (1999)", "\u304c"),  # GA, in two characters and in one
        ("$ (1999)", "$"),
        ("I \u2764\ufe0f Huckabees (1999)", "I \u2764 Huckabees"),
    ],
)
def test_the_same_movie(listed, described):
    assert match([listed], [(described, "1999-03-24")]) == {0: 0}


@pytest.mark.parametrize(
    ("listed", "described", "date"),
    [
        ("Matrix, The (1999)", "The Matrix", "2001-01-01"),
        ("Matrix, The (1999)", "The Matrix Reloaded", "1999-01-01"),
        ("Underneath (1999)", "The Underneath", "2000-01-01"),  # loose keys want the same year
        ("Zathura (1999)", "Zathura: A Space Adventure", "1998-01-01"),
        ("Alien: Part (1999)", "Aliens: Part", "1999-01-01"),  # parts want all of the other
        ("Them (1999)", "Them: Them", None),
        ("Psycho (1960)", "Psycho (1998)", None),
        ("\u304c (1999)", "\u304b", "1999-01-01"),  # GA and KA
        ("\u30d1\u30d1 (1999)", "\u30cf\u30cf", "1999-01-01"),  # PAPA and HAHA
        ("\u0915\u0940 (1999)", "\u0915\u093f", "1999-01-01"),  # KII and KI
        ("\u0e01\u0e35 (1999)", "\u0e01\u0e37", "1999-01-01"),  # SARA II and SARA UEE
    ],
)
def test_not_the_same_movie(listed, described, date):
    assert match([listed], [(described, date)]) == {}


# Each pair differs in what the keys leave out.
DIFFERENT_TITLES = [
    ("+1", "1"),
    ("Mother!", "Mother"),
    ("C", "C#"),
    ("X/Y", "X+Y"),
    ("Blame!", "Blame"),
    ("\u30cf\u30cf", "\u30d1\u30d1"),
    ("\u0915\u093f", "\u0915\u0940"),
    ("A\u00f1o", "Ano"),
    ("Her", "HER"),
    ("X\u00b2", "X2"),
    ("The Underneath", "Underneath"),
    ("MouseHunt", "Mouse Hunt"),
    ("Emma", "Emma (Ema)"),
    ("Emma (Ema)", "Emma (2)"),
    ("Ema", "Emma (Ema)"),
    ("Zathura", "Zathura: A Space Adventure"),
    ("Zathura", "Zathura: Zathura"),
    ("$", "!"),
]


@pytest.mark.parametrize("years", [("2013", "2013"), ("2013", "2014"), ("2014", "2013")])
@pytest.mark.parametrize("pair", DIFFERENT_TITLES, ids=ascii)
def test_different_titles_get_their_own_descriptions(pair, years):
    for one, two in (0, 1), (1, 0):
        titles = [f"{pair[n]} ({years[n]})" for n in (0, 1)]
        described = [(pair[n], years[n]) for n in (one, two)]
        assert match(titles, described) == {one: 0, two: 1}
        # With one of the two descriptions, the other movie has none.
        assert match(titles, described[:1]) == {one: 0}
        assert match(titles[one : one + 1], described) == {0: 0}


def test_equal_text_comes_before_an_equal_year():
    assert match(["+1 (2013)", "1 (2014)"], [("1", "2013-01-01")]) == {1: 0}
    assert match(["Star Wars: Heat (1999)", "Heat (2000)"], [("Heat", "1999-01-01")]) == {1: 0}


@pytest.mark.parametrize(
    ("titles", "described"),
    [
        (["C# (1999)", "C++ (1999)"], ["C"]),
        (["C (1999)"], ["C#", "C++"]),
        (["Zathura: A (1999)", "Zathura: B (1999)"], ["Zathura"]),
        (["Amelie (Ema) (1999)", "Emma (Ema) (1999)"], ["Ema"]),
    ],
)
def test_between_different_titles_nothing_is_guessed(titles, described):
    assert match(titles, [(title, "1999-01-01") for title in described]) == {}


def test_the_year_may_differ_by_one_and_be_written_in_any_way():
    for date in ("1998-12-31", "Jan 5, 2000", "1/5/1999"):
        assert match(["Heat (1999)"], [("Heat", date)]) == {0: 0}


def test_remakes_get_their_own_description():
    titles = ["Psycho (1960)", "Psycho (1998)", "Psycho (1999)"]
    assert match(titles, [("Psycho", "1998-12-04"), ("Psycho", "1960-06-16")]) == {0: 1, 1: 0}


def test_a_description_goes_to_the_first_of_two_namesakes_and_is_used_once():
    assert match(["Emma (1996)", "Emma (1996)"], [("Emma", "1996-07-01")]) == {0: 0}
    assert match(["Emma (1996)"], [("Emma", "1996-07-01"), ("Emma", "1996-09-01")]) == {0: 0}


def test_a_missing_year_asks_for_a_title_that_occurs_once():
    assert match(["Moonlight"], [("Moonlight", "2016-01-01")]) == {0: 0}
    assert match(["Moonlight (2016)"], [("Moonlight", None)]) == {0: 0}
    assert match(["Moonlight"], [("Moonlight", "2016-01-01"), ("Moonlight", "2002-01-01")]) == {}
    assert match(["Moonlight", "Moonlight (2002)"], [("Moonlight", "2016-01-01")]) == {}


BY_TITLE = "movie_title,movie_info,original_release_date\n"
MOVIES = pl.DataFrame({"movieId": [6, 7], "title": ["Heat (1995)", "None (1995)"]})
NO_TEXTS = [
    "nan",
    "NaN",
    "None",
    "NULL",
    "null",
    "N/A",
    "n/a",
    " NA ",
    "#N/A",
    "<NA>",
    "NaT",
    "\\N",
    "-",
]


@pytest.mark.parametrize("word", NO_TEXTS)
def test_a_word_for_nothing_is_no_description_and_no_date(tmp_path, word):
    by_id, by_title = tmp_path / "id.csv", tmp_path / "title.csv"
    by_id.write_text(f"movieId,description\n6,{word}\n6,A cop.\n7,{word}\n")
    by_title.write_text(BY_TITLE + f"Heat,{word},1995-12-15\nNone,Nobody.,{word}\n")
    descriptions = read_descriptions(by_id, MOVIES)
    assert descriptions.frame.rows() == [(6, "A cop.")]
    assert descriptions.rows == 1
    # A movie may be called None.
    assert read_descriptions(by_title, MOVIES).frame.rows() == [(7, "Nobody.")]


@pytest.mark.parametrize(
    "date",
    [
        *("8/1/91", "Aug 1, '91", "1-Aug-91", "01081991", "0000-00-00", "soon"),
        *("33451", "33451.0", "681004800", "681004800000"),  # days and seconds since some day
        "\u0661\u0669\u0669\u0661",
    ],
)
def test_a_date_without_a_year_is_refused(tmp_path, date):
    path = tmp_path / "table.csv"
    path.write_text(BY_TITLE + f'None,Nobody.,\nHeat,A cop.,"{date}"\n')
    with pytest.raises(InputError) as error:
        read_descriptions(path, MOVIES)
    assert str(error.value) == (
        f"{path}, row 3: original_release_date is {date!r}; it must be a date with the year in "
        "four digits, as 1991-08-01, or empty"
    )


@pytest.mark.parametrize(
    "date",
    [
        *("1995", "1995.0", "19951215", "12/15/1995", "Dec 15, 1995", "15.12.1995 20:00"),
        *("1995-12-15T00:00:00+0200", "Fri Dec 15 20:00:00 +0000 1995"),
        "1995\u5e7412\u670815\u65e5",
    ],
)
def test_a_year_is_found_in_any_date(tmp_path, date):
    path = tmp_path / "table.csv"
    path.write_text(BY_TITLE + f'Heat,A cop.,"{date}"\nHeat,Another.,1997\n')
    movies = pl.DataFrame({"movieId": [5, 6], "title": ["Heat (1990)", "Heat (1995)"]})
    assert read_descriptions(path, movies).frame.rows() == [(6, "A cop.")]


def test_table_by_title(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(
        "critic,movie_title,movie_info,original_release_date\n"
        'x,Heat,"A cop,\n and  a robber. ",1995-12-15\n'
        "x,Ronin,,1998-09-12\n"
    )
    movies = pl.DataFrame({"movieId": [6, 2391], "title": ["Heat (1995)", "Ronin (1998)"]})
    descriptions = read_descriptions(path, movies)
    assert descriptions.frame.rows() == [(6, "A cop, and a robber.")]
    assert descriptions.rows == 1


@pytest.mark.parametrize("column", ["description", "movie_info"])
def test_table_by_movie_id(tmp_path, column):
    path = tmp_path / "table.csv"
    path.write_text(f"movieId,{column}\n6,A cop.\n6,Again.\n7,\n99,Of no movie.\n")
    movies = pl.DataFrame({"movieId": [6, 7], "title": ["Heat (1995)", "Sabrina (1995)"]})
    assert read_descriptions(path, movies).frame.rows() == [(6, "A cop.")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("movie_title,movie_info\nHeat,A cop.\n", "no column 'original_release_date'"),
        ("movieId,text\n6,A cop.\n", "no column 'description'"),
        ("movieId,description\nsix,A cop.\n", "row 2: movieId is 'six'"),
        ("movieId,description\n99,A cop.\n", "none of its 1 descriptions belongs"),
        ('movieId,description\n6,"A cop', "a quote is never closed"),
        ("", "table.csv"),
        (None, "No such file"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(tmp_path, text, expected):
    path = tmp_path / "table.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as error:
        read_descriptions(path, pl.DataFrame({"movieId": [6], "title": ["Heat (1995)"]}))
    assert str(path) in str(error.value)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_real_descriptions():
    movies = read_movielens(SHARED / "ml-latest-small").movies
    found = read_descriptions(SHARED / "movie_descriptions.csv", movies).frame
    assert found["movieId"].is_unique().all()
    assert found.height >= 0.96 * 4343
    described = dict(found.rows())
    assert "Skywalker" in described[1196]  # Star Wars: Episode V - The Empire Strikes Back (1980)
    assert "Norman" in described[1219] and described[1219] != described[2389]  # Psycho, twice
    assert 26958 not in described and 64997 not in described  # namesakes of better known movies


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_described_by_itself_no_title_gets_the_text_of_another():
    titles = read_movielens(SHARED / "ml-latest-small").movies["title"].to_list()
    titles += [f"{title} (2013)" for pair in DIFFERENT_TITLES for title in pair]
    described = [(title, re.search("[0-9]{4}|$", title[-6:])[0]) for title in reversed(titles)]
    found = {titles[movie]: described[row][0] for movie, row in match(titles, described).items()}
    assert {title: other for title, other in found.items() if title != other} == {}
    # Without: four undated ones that are part of another, or its namesake.
    assert len(found) >= len(set(titles)) - 4
