"""The steps that change training examples: parts, other tastes, crossed histories."""

import numpy as np
import pytest
import seqio

from uem_t5x.base.errors import InputError
from uem_t5x.data import dataset_folder
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.inputs import data_sources, preprocessors
from uem_t5x.tastes import labels

pytestmark = pytest.mark.usefixtures("current_folder")
SEED = 7


def read(split="train"):
    return data_sources.DatasetFolderSource().get_dataset(split, shuffle=False)


def stretched(dataset, seed=SEED, **settings):
    with seqio.utils.map_seed_manager(seed):
        return list(
            preprocessors.training_stretches(
                dataset, probability=1.0, **settings
            ).as_numpy_iterator()
        )


def with_random_tastes(dataset, seed=SEED, **settings):
    with seqio.utils.map_seed_manager(seed):
        return list(
            preprocessors.random_tastes(dataset, probability=1.0, **settings).as_numpy_iterator()
        )


def assert_same(examples, others):
    for example, other in zip(examples, others, strict=True):
        assert example.keys() == other.keys()
        for name in example:
            np.testing.assert_array_equal(example[name], other[name])


def names(labels_of_user, genres):
    return [genres[label].encode() for label in labels_of_user if label != labels.NO_GENRE]


def label(example, folder):
    items, half_stars = example["history_items"], example["history_ratings"]
    ends = np.array([0, len(items)])
    statistics = labels.genre_statistics(folder.genre_matrix(), items, half_stars, ends)
    liked, disliked = (of_users[0] for of_users in labels.label_genres(*statistics))
    return names(liked, folder.genres), names(disliked, folder.genres)


def is_part_of(part, whole):
    remaining = iter(whole)
    return all(item in remaining for item in part)


class TestTrainingStretches:
    def test_are_off_unless_asked_for(self):
        dataset = read()

        assert preprocessors.training_stretches(dataset) is dataset

    def test_are_parts_of_the_history_with_labels_of_their_own(self, current_folder):
        for whole, part in zip(read().as_numpy_iterator(), stretched(read(), max_length=30)):
            assert 20 <= len(part["history_items"]) <= 30
            assert part["history_items"].tobytes() in whole["history_items"].tobytes()
            assert part["history_ratings"].tobytes() in whole["history_ratings"].tobytes()
            liked, disliked = label(part, current_folder)
            assert part["liked"].tolist() == liked
            assert part["disliked"].tolist() == disliked

    def test_may_take_any_items_in_time_order(self, current_folder):
        parts = stretched(read(), min_length=5, max_length=10, contiguous=False)

        for whole, part in zip(read().as_numpy_iterator(), parts):
            assert 5 <= len(part["history_items"]) <= 10
            assert is_part_of(part["history_items"], whole["history_items"])
            assert (part["liked"].tolist(), part["disliked"].tolist()) == label(
                part, current_folder
            )

    @pytest.mark.parametrize("split", ["validation", "test"])
    def test_never_touch_other_splits(self, split):
        assert_same(read(split).as_numpy_iterator(), stretched(read(split)))

    def test_differ_by_epoch_and_repeat_by_seed(self):
        one_user = read().take(1)
        draws = [part["history_items"].tolist() for part in stretched(one_user.repeat(8))]
        again = [part["history_items"].tolist() for part in stretched(one_user.repeat(8))]
        other = [part["history_items"].tolist() for part in stretched(one_user.repeat(8), seed=8)]

        assert len({tuple(draw) for draw in draws}) > 4
        assert draws == again
        assert draws != other

    @pytest.mark.parametrize("log_uniform", [False, True])
    def test_lengths_span_the_range(self, log_uniform):
        one_user = read().take(1)
        size = len(next(one_user.as_numpy_iterator())["history_items"])

        parts = stretched(one_user.repeat(300), min_length=1, log_uniform=log_uniform)
        lengths = [len(part["history_items"]) for part in parts]

        assert min(lengths) == 1
        assert max(lengths) == size
        below = np.mean(np.array(lengths) <= size**0.5)
        assert below == pytest.approx(0.5 if log_uniform else size**-0.5, abs=0.1)

    @pytest.mark.parametrize("min_length", [1, 20])
    def test_of_no_items_there_are_none(self, min_length):
        nobody = (
            read()
            .take(1)
            .map(
                lambda example: {
                    **example,
                    "history_items": example["history_items"][:0],
                    "history_ratings": example["history_ratings"][:0],
                }
            )
        )
        for options in ({}, {"contiguous": False}):
            parts = stretched(nobody.repeat(8), min_length=min_length, log_uniform=True, **options)
            assert [len(part["history_items"]) for part in parts] == [0] * 8

    def test_probability_is_the_share_of_replaced_examples(self):
        one_user = read().take(1)
        size = len(next(one_user.as_numpy_iterator())["history_items"])
        with seqio.utils.map_seed_manager(SEED):
            dataset = preprocessors.training_stretches(
                one_user.repeat(300), probability=0.25, min_length=1, max_length=2
            )

        whole = [len(example["history_items"]) == size for example in dataset]

        assert np.mean(whole) == pytest.approx(0.75, abs=0.08)

    @pytest.mark.parametrize(
        "settings",
        [
            {"probability": 1.5},
            {"probability": 1.0, "min_length": 0},
            {"probability": 1.0, "min_length": 30, "max_length": 20},
        ],
    )
    def test_refuse_what_makes_no_sense(self, settings):
        with pytest.raises(InputError, match=r"^preprocessors\.training_stretches.*bind"):
            preprocessors.training_stretches(read(), **settings)

    def test_differ_between_the_parts_of_the_data(self):
        # The users of two hosts that stand at the same place: SeqIO gives both the same seed.
        lengths = [
            [len(example["history_items"]) for example in stretched(part, min_length=10)]
            for part in (read().shard(2, 0), read().shard(2, 1))
        ]
        same = np.mean([one == other for one, other in zip(*lengths)])
        assert same < 0.3


class TestRandomTastes:
    def test_are_off_unless_asked_for(self):
        dataset = read()

        assert preprocessors.random_tastes(dataset) is dataset

    def test_change_ratings_and_their_labels_and_nothing_else(self, current_folder):
        changed = 0
        for own, other in zip(read().as_numpy_iterator(), with_random_tastes(read())):
            np.testing.assert_array_equal(own["history_items"], other["history_items"])
            assert own["user_id"] == other["user_id"]
            assert (other["liked"].tolist(), other["disliked"].tolist()) == label(
                other, current_folder
            )
            assert 1 <= other["history_ratings"].min() <= other["history_ratings"].max() <= 10
            changed += (own["history_ratings"] != other["history_ratings"]).any()
        assert changed > 30

    def test_are_tastes_for_genres(self, current_folder):
        """Movies of the same genres gain the same, and different ones do not."""
        genres = current_folder.genre_matrix()
        gains = []
        for own, other in zip(
            read().as_numpy_iterator(),
            with_random_tastes(read(), bias_stddev=0.0, least_own_share=1.0),
        ):
            inside = (other["history_ratings"] > 1) & (other["history_ratings"] < 10)
            gain = (other["history_ratings"] - own["history_ratings"])[inside]
            of_genres = {}
            for item, gained in zip(own["history_items"][inside], gain):
                of_genres.setdefault(genres[item].tobytes(), set()).add(int(gained))
            assert all(len(same) == 1 for same in of_genres.values())
            gains.append(len(set().union(*of_genres.values())))
        assert np.mean(gains) > 2

    def test_without_deviations_they_are_the_users_own(self):
        same = with_random_tastes(read(), genre_stddev=0.0, bias_stddev=0.0, least_own_share=1.0)
        assert_same(read().as_numpy_iterator(), same)

    @pytest.mark.parametrize("split", ["validation", "test"])
    def test_never_touch_other_splits(self, split):
        assert_same(read(split).as_numpy_iterator(), with_random_tastes(read(split)))

    def test_differ_by_epoch_and_repeat_by_seed(self):
        one_user = read().take(1)
        draws = [
            [other["history_ratings"].tolist() for other in with_random_tastes(one_user.repeat(8))]
            for _ in range(2)
        ]

        assert len(set(map(tuple, draws[0]))) > 4
        assert draws[0] == draws[1]

    @pytest.mark.parametrize(
        "settings", [{"probability": -0.5}, {"least_own_share": 1.5}, {"genre_stddev": -1.0}]
    )
    def test_refuse_what_makes_no_sense(self, settings):
        settings = {"probability": 1.0, **settings}
        with pytest.raises(InputError, match=r"^preprocessors\.random_tastes.*bind"):
            preprocessors.random_tastes(read(), **settings)


def crossed(dataset, seed=SEED, **settings):
    with seqio.utils.map_seed_manager(seed):
        changed = preprocessors.crossed_histories(dataset, probability=1.0, **settings)
        return list(changed.as_numpy_iterator())


def ratings(example):
    return list(zip(example["history_items"].tolist(), example["history_ratings"].tolist()))


class TestCrossedHistories:
    def test_are_off_unless_asked_for(self):
        dataset = read()

        assert preprocessors.crossed_histories(dataset) is dataset

    def test_are_parts_of_two_histories_with_the_labels_of_both(self, current_folder):
        """About half of one's own, the rest of one other user, each movie once, in any order."""
        users = [ratings(example) for example in read().as_numpy_iterator()]
        own_shares, partners, in_order = [], set(), 0
        for own, other in zip(users, crossed(read())):
            mixed = ratings(other)
            items = [item for item, _ in mixed]
            assert len(set(items)) == len(items)
            kept = [rating for rating in mixed if rating in own]
            foreign = set(mixed) - set(own)
            found = {index for index, user in enumerate(users) if foreign <= set(user)}
            assert found
            partners |= found if foreign else set()
            own_shares.append(len(kept) / len(own))
            in_order += is_part_of(kept, own)
            of_example = other["liked"].tolist(), other["disliked"].tolist()
            assert of_example == label(other, current_folder)
        assert 0.4 < np.mean(own_shares) < 0.6
        assert len(partners) > 15
        assert in_order < len(users) / 4

    def test_keep_one_item_of_each_at_least(self):
        for own, other in zip(read().as_numpy_iterator(), crossed(read(), kept=0.0)):
            # Of whom a user is crossed with, there may be nothing new.
            assert 1 <= len(other["history_items"]) <= 2
            assert set(ratings(other)) & set(ratings(own))

    def test_keep_all_where_nothing_is_thinned_out(self):
        for own, other in zip(read().as_numpy_iterator(), crossed(read(), kept=1.0)):
            assert set(ratings(own)) <= set(ratings(other))

    @pytest.mark.parametrize("split", ["validation", "test"])
    def test_never_touch_other_splits(self, split):
        assert_same(read(split).as_numpy_iterator(), crossed(read(split)))

    def test_differ_by_epoch_and_repeat_by_seed(self):
        one_user = read().take(1)
        draws = [[str(ratings(other)) for other in crossed(one_user.repeat(8))] for _ in range(2)]

        assert len(set(draws[0])) == 8
        assert draws[0] == draws[1]

    def test_a_catalogue_has_nobody_to_cross_with(self, tmp_path, current_folder):
        """A trained model is asked by its task's steps, where no users are."""
        catalogue = tmp_path / "catalogue"
        dataset_folder.copy_catalogue(current_folder, catalogue, current_folder.vocabulary_path)
        dataset = read("test")
        with data_sources.use_dataset_folder(DatasetFolder.open(catalogue)):
            assert preprocessors.crossed_histories(dataset, probability=1.0) is dataset

    @pytest.mark.parametrize("settings", [{"probability": 1.5}, {"kept": -0.1}])
    def test_refuse_what_makes_no_sense(self, settings):
        with pytest.raises(InputError, match=r"^preprocessors\.crossed_histories.*bind"):
            preprocessors.crossed_histories(read(), **{"probability": 1.0, **settings})
