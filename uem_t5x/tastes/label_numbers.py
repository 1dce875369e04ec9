"""The numbers of the label rule, apart from what computes with them, which takes time to import."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class LabelRule:
    """The numbers of the label rule; by default the paper's.

    Attributes:
        min_count: how often a genre must occur to count.
        most: how many are liked at most, and how many disliked.
        liked_above: a liked genre's mean rating is above it, in stars.
        disliked_below: a disliked genre's mean rating is below it, in stars.
    """

    min_count: int = 3
    most: int = 3
    liked_above: float = 3.5
    disliked_below: float = 3.0


PAPER = LabelRule()
