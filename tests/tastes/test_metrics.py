import math

import pytest

from uem_t5x.checkpoints import folders
from uem_t5x.inputs import data_sources
from uem_t5x.inputs import metrics as task_metrics
from uem_t5x.tastes import metrics

GENRES = ("Action", "Comedy", "Drama")

# As liked: Action has support 2 and is found once, without a false alarm; Drama has support 1 and
# is found, with one false alarm. As disliked: Comedy has support 1 and is missed.
TARGETS = [(["Action", "Drama"], ["Comedy"]), (["Action"], [])]
PREDICTIONS = [(["Action", "Drama"], []), (["Drama"], [])]


def test_scores_are_weighted_by_support():
    scores = metrics.score(TARGETS, PREDICTIONS, GENRES)

    assert scores["liked_precision"] == pytest.approx((2 * 1 + 1 * 0.5) / 3)
    assert scores["liked_recall"] == pytest.approx((2 * 0.5 + 1 * 1) / 3)
    assert scores["liked_f1"] == pytest.approx(2 / 3)
    assert scores["disliked_f1"] == scores["disliked_precision"] == scores["disliked_recall"] == 0
    assert scores["precision"] == pytest.approx((2 * 1 + 1 * 0.5 + 1 * 0) / 4)
    assert scores["recall"] == pytest.approx((2 * 0.5 + 1 * 1 + 1 * 0) / 4)
    assert scores["f1"] == pytest.approx((2 * 2 / 3 + 1 * 2 / 3 + 1 * 0) / 4)
    assert scores["unparseable"] == 0


def test_a_single_genre_is_scored_as_any_other():
    # As liked: support 2, found once, one false alarm. As disliked: support 1, said of nobody.
    targets = [(["Drama"], []), (["Drama"], []), ([], []), ([], ["Drama"])]
    predictions = [(["Drama"], []), ([], []), (["Drama"], []), ([], [])]

    scores = metrics.score(targets, predictions, ("Drama",))

    assert scores["liked_precision"] == scores["liked_recall"] == scores["liked_f1"] == 0.5
    assert scores["disliked_f1"] == scores["disliked_precision"] == scores["disliked_recall"] == 0
    assert scores["f1"] == pytest.approx((2 * 0.5 + 1 * 0) / 3)
    assert scores["precision"] == scores["recall"] == pytest.approx(1 / 3)


def test_liking_what_is_disliked_is_wrong():
    scores = metrics.score([(["Drama"], [])], [([], ["Drama"])], GENRES)

    assert scores["f1"] == scores["liked_f1"] == 0


def test_the_truth_scores_one_in_any_order():
    predictions = [(liked[::-1], disliked) for liked, disliked in TARGETS]

    scores = metrics.score(TARGETS, predictions, GENRES)

    assert scores.pop("unparseable") == 0
    assert set(scores.values()) == {1.0}


def test_unreadable_answers_count_as_no_genre_and_are_counted():
    scores = metrics.score(TARGETS, [None, ([], [])], GENRES)

    assert scores.pop("unparseable") == 0.5
    assert set(scores.values()) == {0.0}


def test_scores_are_finite_where_nobody_has_a_label():
    scores = metrics.score([([], [])], [(["Drama"], [])], GENRES)

    assert all(math.isfinite(value) for value in scores.values())


def test_per_genre_rows():
    rows = metrics.per_genre(TARGETS, PREDICTIONS, GENRES)

    assert len(rows) == 2 * len(GENRES)
    action, comedy, drama = rows[0], rows[4], rows[2]
    assert (action.genre, action.kind, action.support) == ("Action", "liked", 2)
    assert (action.precision, action.recall) == (1.0, 0.5)
    assert action.f1 == pytest.approx(2 / 3)
    assert (drama.precision, drama.recall, drama.support) == (0.5, 1.0, 1)
    assert comedy == metrics.GenreScore("Comedy", "disliked", 0.0, 0.0, 0.0, 1)


def test_confusion_counts_what_was_said_of_what():
    counts = metrics.confusion(
        [*TARGETS, (["Comedy"], [])], [*PREDICTIONS, ([], ["Comedy"])], GENRES
    )

    # Action, Drama right, Comedy missed; Action missed, Drama made up; Comedy the wrong way round.
    assert counts == {
        "liked": {"liked": 2, "disliked": 1, "neither": 1},
        "disliked": {"liked": 0, "disliked": 0, "neither": 1},
        "neither": {"liked": 1, "disliked": 0, "neither": 3},
    }


def test_the_f1_of_one_user():
    assert metrics.user_f1(TARGETS[0], PREDICTIONS[0]) == pytest.approx(2 * 2 / 5)
    assert metrics.user_f1((["Drama"], []), ([], ["Drama"])) == 0
    assert metrics.user_f1(([], []), ([], [])) == 1
    assert metrics.user_f1(([], []), (["Drama"], [])) == 0


@pytest.mark.parametrize("target", [([], []), (["Drama"], [])])
def test_an_unreadable_answer_is_right_for_no_user(target):
    assert metrics.user_f1(target, None) == 0


def test_the_metric_function_knows_the_genres_of_the_folder(dataset_folder):
    with data_sources.use_dataset_folder(dataset_folder):
        scores = task_metrics.genre_scores([([dataset_folder.genres[-1]], [])], [([], [])])

    assert scores["liked_recall"] == 0


@pytest.mark.parametrize("f1s", [(0.5, float("nan")), (float("inf"), -float("inf"))])
def test_a_mean_over_tasks_is_no_score_where_one_has_none(f1s):
    means = metrics.mean_scores([{"f1": f1, "loss": 2.0 * f1} for f1 in (0.25, 0.75)])
    assert means == {"f1": 0.5, "loss": 1.0}
    assert not folders.has_score(metrics.mean_scores([{"f1": f1} for f1 in f1s]))


def test_a_mixture_is_scored_by_the_mean_of_its_tasks():
    one, other = {"f1": 0.5, "liked_f1": 0.25}, {"f1": 0.25, "rouge": 1}
    assert metrics.mean_scores([one]) == one
    assert metrics.mean_scores([one, other]) == {"f1": 0.375, "liked_f1": 0.25, "rouge": 1.0}
