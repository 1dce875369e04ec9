"""Metrics by name of answers to questions of one's own, which are texts.

Each is a function of sums over examples, such as how many were right; so the bootstrap (see
`uncertainty`) adds up what its draws hold, and scores no answer twice.

- `accuracy`: the share of answers that are the true one, but for white space at their ends.
- `macro_f1`, `weighted_f1`: F1 of each class, which is a true answer; their mean, or that by how
  often each is true. Whatever else is answered is none of them.
- `mae`, `rmse`: of numbers. Of an answer that is none the end of the true numbers counts that is
  farther from the truth, as in LaMP (arXiv 2304.11406).
- `rouge1`, `rouge2`, `rougeL`: the mean F-measure, by the package `rouge-score`.
"""

import collections
import functools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Float64

from uem_t5x.base.errors import InputError
from uem_t5x.tastes import uncertainty
from uem_t5x.tastes.uncertainty import Interval, Resampled

# Sums over the examples of each draw, and what they come to.
_Sums: TypeAlias = Float[np.ndarray, "draws sums"]
_Scores: TypeAlias = Float64[np.ndarray, " draws"]
SCORE = "score"


class _Metric(NamedTuple):
    """How answers become a number.

    Attributes:
        numbers: of true and of given answers what is added up, [examples, sums].
        score: of the sums, and of the number of examples.
        lower_is_better: whether a perfect answer has 0, and not 1.
        of_numbers: whether the true answers must be numbers.
    """

    numbers: Callable[[Sequence[str], Sequence[str]], Float64[np.ndarray, "examples sums"]]
    score: Callable[[_Sums, int], _Scores]
    lower_is_better: bool = False
    of_numbers: bool = False


def check(names: Sequence[str]) -> None:
    """Refuses metrics that there are not, or whose package is not here.

    Raises:
        InputError: if there are any.
    """
    for name in names:
        if name not in METRICS:
            raise InputError(f"no metric {name!r}; choose some of {', '.join(METRICS)}")
        if name.startswith("rouge"):
            _rouge_scorer(name)


def check_answers(names: Sequence[str], answers: Sequence[str]) -> str | None:
    """Returns a true answer that a metric cannot score, being no number; None if there is none."""
    if any(METRICS[name].of_numbers for name in names):
        return next((answer for answer in answers if _number(answer) is None), None)
    return None


def score(
    names: Sequence[str], targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
    """Scores answers.

    Args:
        names: of metrics.
        targets: the true answers.
        predictions: what was answered.

    Returns:
        Each metric by its name, and `score`, by which checkpoints are compared, higher being
        better: the first metric, or what it lacks of 0.
    """
    scores = {}
    for name in names:
        metric = METRICS[name]
        sums = metric.numbers(targets, predictions).sum(axis=0, keepdims=True)
        scores[name] = metric.score(sums, len(targets)).item()
    first = scores[names[0]]
    return {**scores, SCORE: -first if METRICS[names[0]].lower_is_better else first}


def resample(names: Sequence[str], targets: Sequence[str], predictions: Sequence[str]) -> Resampled:
    """Returns each metric of every draw of the examples; see `uncertainty`."""
    drawn = {}
    for name in names:
        metric = METRICS[name]
        sums = uncertainty.sums_of_draws(metric.numbers(targets, predictions))
        drawn[name] = metric.score(sums, len(targets))
    return drawn


def intervals(
    names: Sequence[str], targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, Interval]:
    """Returns where 95 % of the draws of each metric lie; see `resample`."""
    drawn = resample(names, targets, predictions)
    return {name: uncertainty.interval(draws) for name, draws in drawn.items()}


def example_scores(
    name: str, targets: Sequence[str], predictions: Sequence[str]
) -> Float64[np.ndarray, " examples"]:
    """Returns how well each answer does by itself, higher being better: its share of a metric."""
    metric = METRICS["accuracy" if name.endswith("_f1") else name]
    scores = metric.numbers(targets, predictions)[:, 0]
    return -scores if metric.lower_is_better else scores


def most_frequent(answers: Sequence[str]) -> str:
    """Returns the answer that is given most; of several the first by their letters."""
    counts = collections.Counter(answers)
    return min(counts, key=lambda answer: (-counts[answer], answer))


def median(answers: Sequence[str]) -> str:
    """Returns the answer whose number is in the middle, the lower one of two."""
    by_number = {number: answer for answer in answers if (number := _number(answer)) is not None}
    numbers = [number for answer in answers if (number := _number(answer)) is not None]
    return by_number[statistics.median_low(numbers)]


def _is_right(
    targets: Sequence[str], predictions: Sequence[str]
) -> Float64[np.ndarray, "examples sums"]:
    pairs = zip(targets, predictions, strict=True)
    return np.array([[target.strip() == said.strip()] for target, said in pairs], np.float64)


def _mean(sums: _Sums, examples: int) -> _Scores:
    return sums[..., 0] / max(examples, 1)


def _by_class(
    targets: Sequence[str], predictions: Sequence[str]
) -> Float64[np.ndarray, "examples sums"]:
    """Returns for each class whether it is said and true, whether true, and whether said."""
    index = {name: place for place, name in enumerate(sorted({t.strip() for t in targets}))}
    true, said = (
        np.array([index.get(answer.strip(), len(index)) for answer in answers])
        for answers in (targets, predictions)
    )
    one_hot = np.eye(len(index) + 1)[:, :-1]
    return np.concatenate([one_hot[true] * one_hot[said], one_hot[true], one_hot[said]], axis=1)


def _f1(sums: _Sums, examples: int, is_weighted: bool) -> _Scores:
    del examples
    right, true, said = np.split(sums, 3, axis=-1)
    f1 = 2 * right / np.maximum(true + said, 1)
    if not is_weighted:
        return np.mean(f1, axis=-1)
    return np.sum(f1 * true, axis=-1) / np.maximum(np.sum(true, axis=-1), 1)


def _errors(
    targets: Sequence[str], predictions: Sequence[str], power: int
) -> Float64[np.ndarray, "examples sums"]:
    truth = np.array([_number(target) for target in targets], np.float64)
    low, high = truth.min(initial=math.inf), truth.max(initial=-math.inf)
    worst = np.where(truth - low > high - truth, low, high)
    said = np.array([_number(answer) for answer in predictions], np.float64)  # None becomes nan
    return (np.abs(np.where(np.isnan(said), worst, said) - truth) ** power)[:, np.newaxis]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _root_mean(sums: _Sums, examples: int) -> _Scores:
    return np.sqrt(_mean(sums, examples))


def _rouge(
    targets: Sequence[str], predictions: Sequence[str], name: str
) -> Float64[np.ndarray, "examples sums"]:
    scorer = _rouge_scorer(name)
    pairs = zip(targets, predictions, strict=True)
    return np.array([[scorer.score(target, said)[name].fmeasure] for target, said in pairs])


@functools.cache
def _rouge_scorer(name: str) -> Any:
    try:
        from rouge_score import rouge_scorer
    except ImportError as error:
        raise InputError(
            f"the metric {name}: the package {error.name} is missing; install uem-t5x[rouge]"
        ) from error
    return rouge_scorer.RougeScorer([name])


METRICS = {
    "accuracy": _Metric(_is_right, _mean),
    "macro_f1": _Metric(_by_class, functools.partial(_f1, is_weighted=False)),
    "weighted_f1": _Metric(_by_class, functools.partial(_f1, is_weighted=True)),
    "mae": _Metric(functools.partial(_errors, power=1), _mean, True, True),
    "rmse": _Metric(functools.partial(_errors, power=2), _root_mean, True, True),
    **{
        name: _Metric(functools.partial(_rouge, name=name), _mean)
        for name in ("rouge1", "rouge2", "rougeL")
    },
}
