"""Metrics by name, against scikit-learn, rouge-score, LaMP's own rules, and by hand."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from uem_t5x.base.errors import InputError
from uem_t5x.tastes import answer_metrics, uncertainty

WORDS = st.sampled_from(["sci-fi", "comedy", "true story", "Comedy", " comedy ", "none", ""])
PAIRS = st.lists(
    st.tuples(st.sampled_from(["sci-fi", "comedy", "true story"]), WORDS), min_size=1, max_size=30
)


@given(PAIRS)
def test_classes_as_scikit_learn_scores_them(pairs):
    targets, said = map(list, zip(*pairs))
    names = ["accuracy", "macro_f1", "weighted_f1"]
    scores = answer_metrics.score(names, targets, said)
    stripped = [answer.strip() for answer in said]
    labels = sorted(set(targets))
    assert scores["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(targets, stripped))
    for average in ("macro", "weighted"):
        expected = sklearn.metrics.f1_score(
            targets, stripped, labels=labels, average=average, zero_division=0
        )
        assert scores[f"{average}_f1"] == pytest.approx(expected)
    assert scores["score"] == scores["accuracy"]


def test_numbers_as_scikit_learn_scores_them():
    targets, said = ["1", "5", "3", "4"], ["2", "5.0", "1", " 4 "]
    scores = answer_metrics.score(["mae", "rmse"], targets, said)
    numbers = [float(answer) for answer in said]
    truth = [float(answer) for answer in targets]
    assert scores["mae"] == sklearn.metrics.mean_absolute_error(truth, numbers) == 0.75
    assert scores["rmse"] == sklearn.metrics.root_mean_squared_error(truth, numbers)
    assert scores["score"] == -0.75


def test_what_is_no_number_counts_as_the_end_that_is_farther_away():
    """LaMP's: 1 if that is farther from the truth than 5, else 5."""
    targets = ["1", "2", "3", "4", "5"]
    scores = answer_metrics.score(["mae"], targets, ["good", "", "nan", "inf", "five"])
    assert scores["mae"] == (4 + 3 + 2 + 3 + 4) / 5


def test_rouge_by_hand():
    pytest.importorskip("rouge_score", reason="needs uem-t5x[rouge]")
    scores = answer_metrics.score(
        ["rouge1", "rougeL"], ["the cat sat down", "a dog"], ["down sat the cat", "a dog"]
    )
    assert scores["rouge1"] == 1.0
    assert scores["rougeL"] == (2 / 4 + 1) / 2


@given(PAIRS, st.sampled_from(["accuracy", "macro_f1", "weighted_f1"]))
def test_an_interval_is_of_scores_of_draws(pairs, name):
    """As if every draw were scored by itself."""
    targets, said = map(list, zip(*pairs))
    drawn = answer_metrics.resample([name], targets, said)[name]
    rng = np.random.default_rng(0)
    users = len(targets)
    times = rng.multinomial(users, np.full(users, 1 / users), size=100)[3]
    again = np.repeat(np.arange(users), times)
    labels = sorted(set(targets))
    truth = [targets[user] for user in again]
    answers = [said[user].strip() for user in again]
    if name == "accuracy":
        expected = sklearn.metrics.accuracy_score(truth, answers)
    else:
        expected = sklearn.metrics.f1_score(
            truth, answers, labels=labels, average=name.removesuffix("_f1"), zero_division=0
        )
    assert drawn[3] == pytest.approx(expected)
    interval = answer_metrics.intervals([name], targets, said)[name]
    assert interval == uncertainty.interval(drawn)


def test_baselines():
    answers = ["5", "4", "4.0", "5", "1", "x"]
    assert answer_metrics.most_frequent(answers) == "5"
    assert answer_metrics.most_frequent(["b", "a"]) == "a"
    assert answer_metrics.median(answers) in ("4", "4.0")
    assert answer_metrics.example_scores("mae", ["1", "5"], ["1", "3"]).tolist() == [0, -2]
    assert answer_metrics.example_scores("macro_f1", ["a", "b"], ["a", "c"]).tolist() == [1, 0]


def test_names_that_are_none():
    with pytest.raises(InputError, match="no metric 'f1'; choose some of accuracy, macro_f1"):
        answer_metrics.check(["accuracy", "f1"])
