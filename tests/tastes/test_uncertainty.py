"""Bootstrap intervals of weighted F1, and differences of two models on the same users."""

import numpy as np
import pytest
from scipy import stats

from uem_t5x.base.errors import InputError
from uem_t5x.tastes import metrics, uncertainty
from uem_t5x.tastes.uncertainty import Marks

GENRES = ["Action", "Comedy", "Drama", "War"]


def draw_tastes(users, seed, unreadable=0):
    rng = np.random.default_rng(seed)
    tastes = []
    for _ in range(users):
        order = rng.permutation(GENRES).tolist()
        tastes.append((order[: rng.integers(3)], order[2 : 2 + rng.integers(3)]))
    return tastes[: users - unreadable] + [None] * unreadable


def noisy(tastes, wrong, seed):
    """Replaces what is said of some users."""
    rng = np.random.default_rng(seed)
    others = draw_tastes(len(tastes), seed)
    return [other if rng.random() < wrong else own for own, other in zip(tastes, others)]


def test_a_draw_is_scored_as_those_users_are():
    """scikit-learn's F1 of the users that were drawn, each as often as it was."""
    truth, said = draw_tastes(30, 0), draw_tastes(30, 1, unreadable=4)
    drawn = uncertainty.resample(truth, said, GENRES)
    rng = np.random.default_rng(0)
    for index, times in enumerate(rng.multinomial(30, np.full(30, 1 / 30), size=5)):
        users = np.repeat(np.arange(30), times)
        expected = metrics.score([truth[u] for u in users], [said[u] for u in users], GENRES)
        for name in uncertainty.F1S:
            assert drawn[name][index] == pytest.approx(expected[name], abs=1e-12)


def test_an_interval_is_that_of_scipy():
    truth = draw_tastes(80, 2)
    said = noisy(truth, 0.5, 3)

    def f1(users):
        return metrics.score([truth[u] for u in users], [said[u] for u in users], GENRES)["f1"]

    peer = stats.bootstrap(
        (np.arange(80),), f1, n_resamples=600, vectorized=False, method="percentile", rng=4
    ).confidence_interval
    low, high = uncertainty.intervals(truth, said, GENRES)["f1"]
    assert (low, high) == pytest.approx(peer, abs=0.02)
    assert low < metrics.score(truth, said, GENRES)["f1"] < high


def test_an_interval_narrows_with_the_square_root_of_the_users():
    widths = []
    for users in (100, 1600):
        truth = draw_tastes(users, 5)
        low, high = uncertainty.intervals(truth, noisy(truth, 0.5, 6), GENRES)["f1"]
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.2)


def test_differences_are_paired():
    """Two models that err alike differ by much less than either owes to the users."""
    truth = draw_tastes(200, 7)
    first = noisy(truth, 0.4, 8)
    second = [*noisy(first[:10], 0.9, 9), *first[10:]]
    drawn = [Marks.of(truth, said, GENRES).resampled()["f1"] for said in (first, second)]
    low, high = uncertainty.interval(drawn[0] - drawn[1])
    low_of_first, high_of_first = uncertainty.interval(drawn[0])
    assert high - low < (high_of_first - low_of_first) / 2


@pytest.mark.parametrize("users", [1, 3])
def test_users_without_labels_score_nothing(users):
    nothing = [([], [])] * users
    assert uncertainty.intervals(nothing, nothing, GENRES)["f1"] == (0.0, 0.0)


def test_what_was_said_is_read_back():
    said = [(["Drama"], ["War", "Action"]), None, ([], []), (["War"], ["War"])]
    marks = Marks.of(draw_tastes(4, 0), said, GENRES)
    assert marks.said == ["-.+-", None, "....", "...*"]
    one = Marks.of(said[:1], said[:1], GENRES).resampled()
    assert one["f1"] == pytest.approx(1)


def test_models_are_compared_on_the_same_users():
    truth = draw_tastes(4, 0)
    ours = Marks.of(truth, truth, GENRES)
    uncertainty.check_same_users(ours, Marks.of(truth, draw_tastes(4, 1), GENRES), "b.json")
    for theirs in (
        Marks.of(truth[:3], truth[:3], GENRES),
        Marks.of(truth[::-1], truth, GENRES),
        Marks.of(truth, truth, GENRES)._replace(genres=[*GENRES[:3], "Western"]),
    ):
        with pytest.raises(InputError, match=r"^b\.json: scores on other users"):
            uncertainty.check_same_users(ours, theirs, "b.json")
