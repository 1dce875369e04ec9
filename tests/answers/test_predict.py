"""What `predict` makes of a line of input, and of an answer."""

import json

import polars as pl
import pytest

from uem_t5x.answers import predict, user_lines
from uem_t5x.base import errors
from uem_t5x.data import movielens
from uem_t5x.tastes.rating_scale import STARS, RatingScale
from uem_t5x.tastes.telling import Telling

ROWS = {1: 7, 260: 9}
# Row 0 is padding, as in every movie table; two movies share a title.
MOVIES = pl.DataFrame(
    {
        "row": [0, 1, 2, 3, 4],
        "movieId": [0, 1, 260, 838, 26776],
        "title": ["", "Toy Story (1995)", "Am\u00e9lie (2001)", "Emma (1996)", "Emma (1996)"],
    }
)


def read(*lines, rows=ROWS, titles=None, why_not_described=None, scale=STARS, **options):
    refused = []
    telling = Telling(scale=scale)
    encoded = [line.encode() for line in lines]
    reader = user_lines.UserReader(rows, titles or {}, why_not_described, telling, **options)
    users = list(reader.users(encoded, "in.jsonl", refused.append))
    return users, [error.line for error in refused]


def read_by_title(*lines, **options):
    rows, titles = user_lines.movie_rows(MOVIES), user_lines.movie_titles(MOVIES)
    return read(*lines, rows=rows, titles=titles, **options)


def line(*history, user_id="u"):
    return json.dumps({"user_id": user_id, "history": history})


def test_known_movies_become_rows_and_stars_half_stars():
    users, refused = read(line({"movieId": 260, "rating": 4.5}, {"movieId": 1, "rating": 1}))
    assert users == [predict.User("u", (9, 7), (9, 2), unknown=0)]
    assert not refused


TEXT_ROWS = {"B01": 4, "B02": 5, "7": 6}


def test_ids_of_ones_own_are_texts_or_numbers():
    items = [{"item": "B02", "rating": 4}, {"item": 7, "rating": 5}, {"item": "B9", "rating": 5}]
    users, refused = read(line(*items), rows=TEXT_ROWS)
    assert users == [predict.User("u", (5, 6), (8, 10), unknown=1)]
    items = [{"item": "260", "rating": 4}, {"item": 1, "rating": 5}, {"item": "B9", "rating": 5}]
    users, _ = read(line(*items))
    assert users == [predict.User("u", (9, 7), (8, 10), unknown=1)]
    assert not refused
    _, refused = read(line({"item": [1], "rating": 4}))
    assert "item [1] is neither a text nor a whole number" in refused[0]


def test_ids_of_ones_own_in_time_order():
    """Ties by the id, as `prepare` has them; what is described comes last."""
    items = [
        {"title": "New", "rating": 1, "timestamp": 5},
        {"item": "B02", "rating": 4, "timestamp": 5},
        {"title": "Newer", "rating": 1, "timestamp": 5},
        {"item": "B01", "rating": 5, "timestamp": 5},
    ]
    ((user,), _) = read(line(*items), rows=TEXT_ROWS)
    assert user.items[:2] == (4, 5)
    ((as_given,), _) = read(line(*items), rows=TEXT_ROWS, ties_by_id=False)
    assert [as_given.items[1], as_given.items[3]] == [5, 4]
    assert {movie.title for movie in user.items[2:]} == {"New", "Newer"}


def test_values_on_a_scale_of_ones_own():
    scale = RatingScale((("0", 0.5), ("10", 5.0), ("loved", 5.0)), rounds=True)
    items = [{"item": "B01", "rating": value} for value in (0, 7.4, "10", "loved")]
    ((user,), refused) = read(line(*items), rows=TEXT_ROWS, scale=scale)
    assert user.half_stars == (1, 8, 10, 10) and not refused
    for wrong in (11, "great", None, True):
        _, refused = read(line({"item": "B01", "rating": wrong}), rows=TEXT_ROWS, scale=scale)
        assert "is not on the scale of the data: 0, 10, loved" in refused[0]
    bought = RatingScale((("all", 4.0),), rounds=True)
    ((user,), _) = read(line({"item": "B01"}), rows=TEXT_ROWS, scale=bought)
    assert user.half_stars == (8,)


def test_unknown_movies_are_counted_or_taken_as_described():
    described = {"movieId": 5, "title": "Space War", "genres": "Sci-Fi|War", "rating": 5}
    ((user,), _) = read(line({"movieId": 5, "rating": 3}, described))
    assert user.items == (predict.Movie("Space War", ("Sci-Fi", "War"), ""),)
    assert user.half_stars == (10,)
    assert user.unknown == 1


def test_a_described_movie_is_refused_where_a_model_cannot_be_told_of_it():
    described = {"title": "Space War", "rating": 5}
    lines = [line(described), line({"movieId": 1, "rating": 5}, user_id="v")]
    users, refused = read(*lines, why_not_described="leave it out")
    assert [user.user_id for user in users] == ["v"]
    assert refused == ["in.jsonl: line 1: item 1 of the history: leave it out"]


def test_a_title_of_the_catalogue_is_that_movie():
    titles = ["Toy Story (1995)", " Ame\u0301lie (2001)", "Toy Story (1996)"]
    history = [{"title": title, "genres": ["War"], "rating": 4} for title in titles]
    ((user,), _) = read_by_title(line(*history))
    assert user.items == (1, 2, predict.Movie("Toy Story (1996)", ("War",), ""))
    # A model that cannot be told of other movies still knows these.
    ((user,), refused) = read_by_title(line(*history[:2]), why_not_described="leave it out")
    assert (user.items, refused) == ((1, 2), [])


def test_a_movie_id_says_more_than_a_title():
    title = {"title": "Toy Story (1995)", "rating": 4}
    history = [{**title, "movieId": 260}, {**title, "movieId": 5}, {**title, "movieId": None}]
    ((user,), _) = read_by_title(line(*history))
    assert user.items == (2, 1, 1)


def test_a_title_of_two_movies_is_neither():
    emma = {"title": "Emma (1996)", "rating": 4}
    ((user,), refused) = read_by_title(line(emma), line({**emma, "movieId": 838}))
    assert user.items == (3,)
    assert refused == [
        "in.jsonl: line 1: item 1 of the history: title 'Emma (1996)' is that of 2 movies of the "
        "catalogue; give the movieId, 838 or 26776"
    ]


SECONDS = [964982703, 964981247, 964983815.5, 964981247]
DATES = [  # the same, as many ways as there are to write them
    "2000-07-30T18:45:03Z",
    "2000-07-30 18:20:47",
    "2000-07-30T21:03:35.500+02:00",
    "2000-07-30T18:20:47+00:00",
]


@pytest.mark.parametrize("times", [SECONDS, DATES])
def test_timestamps_decide_the_order(times):
    rated = zip([260, 838, 1, 26776], [9, 8, 2, 7], times)
    history = [{"movieId": id_, "rating": stars / 2, "timestamp": t} for id_, stars, t in rated]
    expected = predict.User("u", (3, 4, 2, 1), (8, 7, 9, 2))
    for given in (history, history[::-1]):
        users, refused = read_by_title(line(*given))
        assert (users, refused) == ([expected], [])
    as_given = [{**item, "timestamp": None} for item in history]
    assert read_by_title(line(*as_given))[0] == [predict.User("u", (2, 3, 1, 4), (9, 8, 2, 7))]


def test_ratings_with_timestamps_are_taken_as_prepare_takes_them():
    """Ties, and movies that are rated again, in the same second or later or earlier."""
    ratings = pl.DataFrame(
        {
            "userId": 1,
            "movieId": [260, 838, 1, 26776, 1, 838, 260, 4],
            "half_stars": [9, 8, 2, 7, 3, 4, 5, 6],
            "timestamp": [50, 50, 70, 50, 60, 90, 50, 10],
        }
    )
    kept, dropped = movielens.clean_ratings(ratings, MOVIES)
    history = [
        {"movieId": row["movieId"], "rating": row["half_stars"] / 2, "timestamp": row["timestamp"]}
        for row in ratings.iter_rows(named=True)
    ]
    ((user,), _) = read_by_title(line(*history))
    rows = user_lines.movie_rows(MOVIES)
    assert user.items == tuple(rows[movie] for movie in kept["movieId"]) == (2, 4, 1, 3)
    assert user.half_stars == tuple(kept["half_stars"]) == (5, 7, 2, 4)
    assert (user.unknown, user.outdated) == (1, 3)
    assert dropped == {"unknown_movies": user.unknown, "duplicates": user.outdated}


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([3, 4, None], "item 3 of the history has nothing for a timestamp, and the first one"),
        ([None, 4, 5], "item 2 of the history has seconds for a timestamp, and the first one noth"),
        ([3, "2015-03-09"], "item 2 of the history has a date for a timestamp, and the first one"),
        (["964982703"], "item 1 of the history: timestamp '964982703' is neither a number of sec"),
        (["1112010112123"], "timestamp '1112010112123' is neither"),  # Python: the year 1112
        (["2015-13-01"], "timestamp '2015-13-01' is neither"),
        ([True], "timestamp True is neither"),
        ([float("inf")], "timestamp inf is neither"),
        ([[3]], "timestamp [3] is neither"),
    ],
)
def test_timestamps_that_tell_no_order_are_refused(times, message):
    history = [{"movieId": 1, "rating": 4, "timestamp": time} for time in times]
    users, (told,) = read(line(*history))
    assert not users
    assert message in told


@pytest.mark.parametrize("movie_id", ["1.0", "260.0", "2.6e2"])
def test_a_whole_number_may_be_written_with_a_point(movie_id):
    ((user,), _) = read(f'{{"history": [{{"movieId": {movie_id}, "rating": 4}}]}}')
    assert user.items == (ROWS[int(float(movie_id))],)


@pytest.mark.parametrize("user_id", [2**63, -(2**64), 10**30, "9" * 5000, 1.0])
def test_a_user_id_may_be_of_any_size(user_id):
    ((user,), _) = read(line(user_id=user_id))
    assert json.loads(predict.write_line({"user_id": user.user_id}))["user_id"] == user_id


@pytest.mark.parametrize(
    ("encoding", "text"), [("ascii", r"Spa\u00df \ud83d\ude00"), ("utf-8", "Spa\u00df \U0001f600")]
)
def test_an_answer_is_json_in_any_encoding(encoding, text):
    answer = {"liked": ["Spa\u00df \U0001f600"]}
    written = predict.write_line(answer, encoding)
    assert written == f'{{"liked": ["{text}"]}}'
    assert json.loads(written.encode(encoding)) == answer


@pytest.mark.parametrize(
    ("items", "half_stars", "message"),
    [
        ((5,), (9, 2, 3), "user 'u': 1 items and 3 ratings"),
        ((5, 6), (9, 50), "user 'u': 50 half-stars; give 1 to 10"),
        ((5,), (0,), "user 'u': 0 half-stars"),
    ],
)
def test_a_user_has_a_rating_of_each_item(items, half_stars, message):
    """Of several users of a batch, what one has too many would be another's."""
    with pytest.raises(errors.InputError, match=message):
        predict.User("u", items, half_stars)


def test_an_empty_history_and_blank_lines_are_fine():
    users, refused = read(line(), "", "  \n", line(user_id=3))
    assert [user.user_id for user in users] == ["u", 3]
    assert not refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "no JSON"),
        ("[1]", 'expected {"user_id"'),
        ('{"user_id": "u"}', 'expected {"user_id"'),
        (line(4), "item 1 of the history: expected"),
        (line({"rating": 4}), "neither a movieId nor a title"),
        (line({"movieId": "1", "rating": 4}), "movieId '1' is not a whole number"),
        (line({"movieId": 1.5, "rating": 4}), "movieId 1.5 is not a whole number"),
        (line({"movieId": 2.0**53, "rating": 4}), "is not a whole number"),  # or the one after it
        (line({"movieId": 1, "rating": 7}), "rating 7 is not one of"),
        (line({"movieId": 1, "rating": 4.2}), "rating 4.2 is not one of"),
        (line({"movieId": 1, "rating": None}), "rating None is not a number"),
        (line({"movieId": 1, "rating": float("nan")}), "rating nan is not one of"),
        (line({"title": 3, "rating": 4}), "must be texts"),
        ("[" * 100_000, "line 1"),
    ],
)
def test_a_refused_line_is_named_and_the_others_answered(text, message):
    users, refused = read(text, line(user_id="next"))
    assert [user.user_id for user in users] == ["next"]
    assert len(refused) == 1
    assert refused[0].startswith("in.jsonl: line 1: ")
    assert message in refused[0]
