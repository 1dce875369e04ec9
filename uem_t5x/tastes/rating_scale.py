"""The scale of ratings: half-stars, whole numbers from 1 to 10, and 0 for padding.

Whatever people write of an item becomes half-stars once, by a `RatingScale`.
"""

import bisect
import dataclasses
import functools
import itertools

HALF_STARS_PER_STAR = 2
MAX_HALF_STARS = 10
RATING_ROWS = MAX_HALF_STARS + 1  # of a matrix that half-stars select from


@dataclasses.dataclass(frozen=True)
class RatingScale:
    """What values of one's own mean in stars.

    A value that is listed is worth what stands there. A number between two listed ones lies as far
    between their stars. By default numbers are stars.

    Attributes:
        points: values, as they are written, and what each is worth, 0.5 to 5 stars.
        rounds: whether what lies between is rounded to half a star; else it must be some.

    Raises:
        ValueError: if there is none, or one is worth anything else.
    """

    points: tuple[tuple[str, float], ...] = (("0.5", 0.5), ("5", 5.0))
    rounds: bool = False

    def __post_init__(self) -> None:
        if not self.points:
            raise ValueError("no value is listed")
        for value, stars in self.points:
            half_stars = HALF_STARS_PER_STAR * stars
            if not 1 <= half_stars <= MAX_HALF_STARS or half_stars != int(half_stars):
                raise ValueError(f"{value!r} is {stars} stars; give 0.5 to 5 in steps of 0.5")

    def half_stars(self, value: str) -> int | None:
        """Returns what a value is worth, 1 to 10; None if it is not on the scale."""
        if (listed := self._listed.get(value)) is not None:
            return listed
        number = _number(value)
        if number is None or not self._numbers:
            return None
        numbers, worths = zip(*self._numbers)
        above = bisect.bisect_left(numbers, number)
        if above < len(numbers) and numbers[above] == number:
            return worths[above]
        if above in (0, len(numbers)):
            return None
        (low, worth), (high, more) = self._numbers[above - 1 : above + 1]
        exact = worth + (more - worth) * (number - low) / (high - low)
        rounded = int(exact + 0.5)
        return rounded if self.rounds or rounded == exact else None

    @functools.cached_property
    def _listed(self) -> dict[str, int]:
        return {value: int(HALF_STARS_PER_STAR * stars) for value, stars in self.points}

    @functools.cached_property
    def _numbers(self) -> list[tuple[float, int]]:
        """The points that are numbers, in order."""
        numbers = ((_number(value), worth) for value, worth in self._listed.items())
        return sorted((number, worth) for number, worth in numbers if number is not None)

    def value(self, half_stars: int) -> str:
        """Returns the value of so many half-stars: listed, or in between, or else the nearest."""
        by_worth = {worth: value for value, worth in reversed(self._listed.items())}
        if half_stars in by_worth:
            return by_worth[half_stars]
        points = sorted((worth, number) for number, worth in self._numbers)
        for (worth, low), (more, high) in itertools.pairwise(points):
            if worth < half_stars < more:
                return f"{low + (high - low) * (half_stars - worth) / (more - worth):.3g}"
        return by_worth[min(by_worth, key=lambda worth: abs(worth - half_stars))]


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if number - number == 0 else None  # neither infinite nor nan


STARS = RatingScale()
