"""Answers with any genres, and any text as an answer."""

import hypothesis
from hostile_input import PROFILE, pieces
from hypothesis import given
from hypothesis import strategies as st

from uem_t5x.tastes.verbalizer import normalize, read_answer, write_answer

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


@PROFILE
@given(GENRES, st.data())
@hypothesis.example(["like'", "War"], None)
def test_answers_are_read_as_they_were_written(genres, data):
    cut = data.draw(st.integers(0, len(genres))) if data else 1
    liked, disliked = genres[:cut], genres[cut:]
    assert read_answer(write_answer(liked, disliked), genres) == (liked, disliked)


@PROFILE
@given(st.text() | pieces("likes ", "doesn't like ", "War", "\ud800"), GENRES)
def test_any_text_names_each_genre_once_or_not(text, genres):
    liked, disliked = read_answer(text, genres)
    assert len({*liked, *disliked}) == len(liked) + len(disliked)
    assert {*liked, *disliked} <= set(genres)
