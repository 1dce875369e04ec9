import numpy as np
import pytest

from uem_t5x.inputs import data_sources
from uem_t5x.inputs import users as users_lib
from uem_t5x.tastes import baselines, metrics
from uem_t5x.tastes.labels import LabelRule


@pytest.fixture
def users(dataset_folder):
    return users_lib.read(dataset_folder, "train")


@pytest.fixture
def genres(dataset_folder):
    """A matrix, and the names of its columns."""
    return dataset_folder.genre_matrix(), dataset_folder.genres


def histories(users):
    return zip(
        np.split(users.items, users.offsets[1:-1]), np.split(users.half_stars, users.offsets[1:-1])
    )


def test_reads_users_in_the_order_of_the_files(users, dataset_folder):
    with data_sources.use_dataset_folder(dataset_folder):
        source = data_sources.DatasetFolderSource()
        examples = list(source.get_dataset("train", shuffle=False).as_numpy_iterator())

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


def test_genre_statistics_are_those_of_the_label_rule(users, genres):
    genre_matrix, _ = genres
    counts, sums = users.genre_statistics(genre_matrix)

    for user, (items, half_stars) in enumerate(histories(users)):
        occurs = genre_matrix[items].astype(int)
        np.testing.assert_array_equal(counts[user], occurs.sum(axis=0))
        np.testing.assert_array_equal(sums[user], half_stars @ occurs)


def test_counting_names_the_most_frequent_genres(users, genres):
    genre_matrix, names = genres
    counts, _ = users.genre_statistics(genre_matrix)

    for user, (liked, disliked) in enumerate(baselines.counting(users, *genres)):
        chosen = [counts[user, names.index(genre)] for genre in liked]
        assert chosen == sorted(counts[user], reverse=True)[:3]
        assert disliked == []


def test_the_rule_on_whole_histories_gives_the_labels(users, genres):
    assert baselines.rule(users, *genres) == users.tastes


def test_the_rule_on_short_histories_is_the_limit_of_what_can_be_known(users, genres):
    _, names = genres
    scores = [
        metrics.score(users.tastes, baselines.rule(users.most_recent(p), *genres), names)["f1"]
        for p in (2, 10, 20, 10_000)
    ]

    assert scores == sorted(scores)
    assert scores[0] == 0.0  # no genre can occur three times in two items
    assert scores[-1] == 1.0


def test_a_lower_count_gives_the_rule_more_to_say(users, genres):
    recent = users.most_recent(2)

    assert any(
        liked or disliked
        for liked, disliked in baselines.rule(recent, *genres, LabelRule(min_count=1))
    )
