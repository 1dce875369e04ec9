import numpy as np
import pytest

from uem_t5x.inputs import data_sources
from uem_t5x.tastes import baselines, metrics


@pytest.fixture(autouse=True)
def current_folder(dataset_folder):
    with data_sources.use_dataset_folder(dataset_folder):
        yield dataset_folder


@pytest.fixture
def users(current_folder):
    return baselines.Users.read("train")


def histories(users):
    return zip(
        np.split(users.items, users.offsets[1:-1]), np.split(users.half_stars, users.offsets[1:-1])
    )


def test_reads_users_in_the_order_of_the_files(users):
    examples = list(
        data_sources.DatasetFolderSource().get_dataset("train", False).as_numpy_iterator()
    )

    assert len(users.tastes) == len(users.offsets) - 1 == len(examples)
    for example, (items, half_stars), (liked, _) in zip(examples, histories(users), users.tastes):
        np.testing.assert_array_equal(items, example["history_items"])
        np.testing.assert_array_equal(half_stars, example["history_ratings"])
        assert [name.encode() for name in liked] == example["liked"].tolist()


def test_most_recent_items_are_the_last(users):
    for (whole, _), (recent, _) in zip(histories(users), histories(users.most_recent(7))):
        np.testing.assert_array_equal(recent, whole[-7:])
    np.testing.assert_array_equal(users.most_recent(10_000).offsets, users.offsets)
    each = np.arange(len(users.tastes))
    for user, items_read in enumerate(each):
        recent, _ = users.most_recent(each).history(user)
        np.testing.assert_array_equal(recent, users.most_recent(int(items_read)).history(user)[0])
        assert len(recent) == min(items_read, len(users.history(user)[0]))


def test_genre_statistics_are_those_of_the_label_rule(users, current_folder):
    counts, sums = users.genre_statistics(current_folder)

    for user, (items, half_stars) in enumerate(histories(users)):
        occurs = current_folder.genre_matrix()[items].astype(int)
        np.testing.assert_array_equal(counts[user], occurs.sum(axis=0))
        np.testing.assert_array_equal(sums[user], half_stars @ occurs)


def test_counting_names_the_most_frequent_genres(users, current_folder):
    counts, _ = users.genre_statistics(current_folder)

    for user, (liked, disliked) in enumerate(baselines.counting(users, current_folder)):
        chosen = [counts[user, current_folder.genres.index(genre)] for genre in liked]
        assert chosen == sorted(counts[user], reverse=True)[:3]
        assert disliked == []


def test_the_rule_on_whole_histories_gives_the_labels(users, current_folder):
    assert baselines.rule(users, current_folder) == users.tastes


def test_the_rule_on_short_histories_is_the_limit_of_what_can_be_known(users, current_folder):
    scores = [
        metrics.score(
            users.tastes,
            baselines.rule(users.most_recent(p), current_folder),
            current_folder.genres,
        )["f1"]
        for p in (2, 10, 20, 10_000)
    ]

    assert scores == sorted(scores)
    assert scores[0] == 0.0  # no genre can occur three times in two items
    assert scores[-1] == 1.0


def test_a_lower_count_gives_the_rule_more_to_say(users, current_folder):
    recent = users.most_recent(2)

    assert any(liked or disliked for liked, disliked in baselines.rule(recent, current_folder, 1))
