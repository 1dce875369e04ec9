"""What people write of an item, as half-stars."""

import pytest

from uem_t5x.tastes.rating_scale import STARS, RatingScale


def test_numbers_are_stars():
    for half_stars in range(1, 11):
        assert STARS.half_stars(f"{half_stars / 2}") == half_stars
        assert STARS.half_stars(STARS.value(half_stars)) == half_stars
    assert STARS.half_stars("4") == STARS.half_stars("4.00") == STARS.half_stars("4e0") == 8
    for value in ("0", "5.5", "3.7", "-1", "nan", "inf", "", "four"):
        assert STARS.half_stars(value) is None


def test_what_lies_between_is_as_far_between():
    percent = RatingScale((("0", 0.5), ("50", 3.0), ("100", 5.0)), rounds=True)
    values = {"0": 1, "50": 6, "100": 10, "75": 8, "25": 4, "10": 2, "9": 2, "97": 10}
    assert {value: percent.half_stars(value) for value in values} == values
    assert percent.half_stars("101") is percent.half_stars("-0.1") is None
    assert [percent.value(half_stars) for half_stars in (1, 2, 6, 8)] == ["0", "10", "50", "75"]


def test_a_scale_may_run_downwards():
    rank = RatingScale((("1", 5.0), ("10", 0.5)), rounds=True)
    assert [rank.half_stars(value) for value in ("1", "2", "9", "10")] == [10, 9, 2, 1]


def test_words_are_worth_what_is_listed():
    scale = RatingScale((("loved", 5.0), ("fine", 3.5), ("left", 1.0)), rounds=True)
    assert [scale.half_stars(value) for value in ("loved", "fine", "left", "3")] == [10, 7, 2, None]
    assert [scale.value(half_stars) for half_stars in (10, 7, 6, 1)] == [
        *("loved", "fine", "fine", "left"),
    ]


@pytest.mark.parametrize("points", [(), (("1", 0.0),), (("1", 5.5),), (("1", 3.3),)])
def test_points_that_are_none(points):
    with pytest.raises(ValueError, match=r"no value is listed|0\.5 to 5"):
        RatingScale(points)
