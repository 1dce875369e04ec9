"""What `predict` makes of a line of input."""

import json

import pytest

from uem_t5x import errors, predict

ROWS = {1: 7, 260: 9}


def read(*lines):
    refused = []
    encoded = [line.encode() for line in lines]
    users = list(predict.read_users(encoded, "in.jsonl", ROWS, refused.append))
    return users, [error.line for error in refused]


def line(*history, user_id="u"):
    return json.dumps({"user_id": user_id, "history": history})


def test_known_movies_become_rows_and_stars_half_stars():
    users, refused = read(line({"movieId": 260, "rating": 4.5}, {"movieId": 1, "rating": 1}))
    assert users == [predict.User("u", (9, 7), (9, 2), unknown=0)]
    assert not refused


def test_unknown_movies_are_counted_or_taken_as_described():
    described = {"movieId": 5, "title": "Space War", "genres": "Sci-Fi|War", "rating": 5}
    ((user,), _) = read(line({"movieId": 5, "rating": 3}, described))
    assert user.items == (predict.Movie("Space War", ("Sci-Fi", "War"), ""),)
    assert user.half_stars == (10,)
    assert user.unknown == 1


def test_a_described_movie_is_refused_where_a_model_cannot_be_told_of_it():
    described = {"title": "Space War", "rating": 5}
    lines = [line(described), line({"movieId": 1, "rating": 5}, user_id="v")]
    refused = []
    users = list(
        predict.read_users(map(str.encode, lines), "in.jsonl", ROWS, refused.append, "leave it out")
    )
    assert [user.user_id for user in users] == ["v"]
    assert [error.line for error in refused] == [
        "in.jsonl: line 1: item 1 of the history: leave it out"
    ]


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
