"""How histories are told, and what is asked of them: what other data than movies say otherwise."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from uem_t5x.tastes import label_numbers, rating_scale, sentences, verbalizer
from uem_t5x.tastes.label_numbers import LabelRule
from uem_t5x.tastes.rating_scale import RATING_ROWS, RatingScale
from uem_t5x.tastes.verbalizer import Wording

_T = TypeVar("_T", LabelRule, Wording)


@dataclasses.dataclass(frozen=True)
class Telling:
    """What a dataset folder says of its histories; by default the paper's of MovieLens.

    Attributes:
        question: that is asked of every history, unless each has its own.
        sentences: the template of each channel that is made of text, by the channel's name.
        rule: by which histories are labelled.
        wording: of the answers.
        scale: of the ratings.
        metrics: by which answers to questions of one's own are scored, see `answer_metrics`; empty
            where the one question is of classes.
        task: what a benchmark calls the task, in whose form answers can be written; else empty.
    """

    question: str = sentences.INSTRUCTION
    sentences: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: dict(sentences.OF_MOVIES)
    )
    rule: LabelRule = label_numbers.PAPER
    wording: Wording = verbalizer.USUAL
    scale: RatingScale = rating_scale.STARS
    metrics: tuple[str, ...] = ()
    task: str = ""

    @property
    def has_questions(self) -> bool:
        """Whether every example has a question and an answer of its own, and no labels."""
        return bool(self.metrics)

    def rating_sentences(self, template: str) -> list[str]:
        """Writes a sentence about each number of half-stars, 0, which is padding, first."""
        return [
            sentences.write_rating(template, half_stars, self.scale)
            for half_stars in range(RATING_ROWS)
        ]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Telling":
        """Returns what `dataclasses.asdict` made a record of.

        Raises:
            TypeError, KeyError, ValueError: if it is the record of something else.
        """
        scale = record["scale"]
        points = tuple((str(value), float(stars)) for value, stars in scale["points"])
        return cls(
            question=str(record["question"]),
            sentences={str(name): str(text) for name, text in record["sentences"].items()},
            rule=_like(label_numbers.PAPER, record["rule"]),
            wording=_like(verbalizer.USUAL, record["wording"]),
            scale=RatingScale(**{**scale, "points": points}),
            metrics=tuple(map(str, record.get("metrics", ()))),
            task=str(record.get("task", "")),
        )


MOVIELENS = Telling()


def _like(usual: _T, record: Mapping[str, Any]) -> _T:
    """Returns an object of the class of another one, with its attributes of the same types."""
    kinds = {name: type(value) for name, value in dataclasses.asdict(usual).items()}
    return type(usual)(**{name: kinds[name](value) for name, value in record.items()})
