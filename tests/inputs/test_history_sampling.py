"""Which items of a longer history are read."""

import dataclasses
import shutil

import numpy as np
import pytest
import seqio
import tensorflow as tf
from etils import epath

from uem_t5x.base.errors import InputError
from uem_t5x.data import dataset_folder, seal
from uem_t5x.inputs import data_sources, history_sampling
from uem_t5x.inputs import users as users_lib

pytestmark = pytest.mark.usefixtures("current_folder")
LENGTH = 7


def read(split="train"):
    return data_sources.DatasetFolderSource().get_dataset(split, shuffle=False)


def sampled(sampling, split="train", seed=0, length=LENGTH):
    with seqio.map_seed_manager(seed):
        dataset = history_sampling.named(sampling)(read(split), length)
    return list(dataset.as_numpy_iterator())


def pairs(example):
    return list(zip(example["history_items"].tolist(), example["history_ratings"].tolist()))


@pytest.mark.parametrize("sampling", history_sampling.SAMPLINGS)
def test_items_stay_in_time_order_with_their_ratings(sampling):
    for whole, part in zip(read().as_numpy_iterator(), sampled(sampling)):
        kept = pairs(part)
        assert len(kept) == LENGTH
        everything = pairs(whole)
        assert kept == [pair for pair in everything if pair in set(kept)]


@pytest.mark.parametrize("sampling", history_sampling.SAMPLINGS)
def test_shorter_histories_are_read_whole(sampling):
    for whole, part in zip(read().as_numpy_iterator(), sampled(sampling, length=10_000)):
        assert pairs(part) == pairs(whole)


def test_recent_ones_are_the_last():
    for whole, part in zip(read().as_numpy_iterator(), sampled("recent")):
        assert pairs(part) == pairs(whole)[-LENGTH:]


def test_random_ones_are_drawn_anew_in_training_and_are_the_users_own_elsewhere():
    first, second = (list(map(pairs, sampled("random", "train", seed))) for seed in (0, 1))
    assert first == list(map(pairs, sampled("random", "train", 0)))
    assert sum(one != other for one, other in zip(first, second)) > 0.9 * len(first)
    first, second = (list(map(pairs, sampled("random", "validation", seed))) for seed in (0, 1))
    assert first == second


def test_any_items_are_drawn():
    places = np.zeros(3)
    for seed in range(5):
        for whole, part in zip(read().as_numpy_iterator(), sampled("random", seed=seed)):
            where = {pair: place for place, pair in enumerate(pairs(whole))}
            for pair in pairs(part):
                places[3 * where[pair] // len(where)] += 1
    np.testing.assert_allclose(places / places.sum(), 1 / 3, atol=0.05)


def test_the_long_tail_is_what_the_fewest_users_of_training_rated(current_folder):
    users = users_lib.read(current_folder, "train")
    counts = np.bincount(users.items, minlength=len(current_folder.movies()))
    np.testing.assert_array_equal(current_folder.rating_counts(), counts)
    for whole, part in zip(
        read("validation").as_numpy_iterator(), sampled("long_tail", "validation")
    ):
        items = whole["history_items"]
        newest_first = sorted(range(len(items)), key=lambda place: (counts[items[place]], -place))
        assert pairs(part) == [pairs(whole)[place] for place in sorted(newest_first[:LENGTH])]


def test_a_folder_without_the_numbers_says_what_to_do(current_folder, tmp_path):
    older = epath.Path(shutil.copytree(current_folder.path, tmp_path / "older"))
    (older / dataset_folder.RATING_COUNTS).unlink()
    with (
        data_sources.use_dataset_folder(dataclasses.replace(current_folder, path=older)),
        pytest.raises(InputError, match=r"rating_counts.parquet: missing.*`uem-t5x seal "),
    ):
        sampled("long_tail")
    sealed = seal.seal(older)
    np.testing.assert_array_equal(sealed.rating_counts(), current_folder.rating_counts())


def test_what_has_no_name_is_refused():
    with pytest.raises(InputError, match=r"^HISTORY_SAMPLING='newest': choose one of 'recent', 'r"):
        history_sampling.named("newest")


def test_an_empty_history_stays_empty():
    example = {
        "user_id": tf.constant("nobody"),
        "split": tf.constant("asked"),
        "history_items": tf.constant([], tf.int32),
        "history_ratings": tf.constant([], tf.int32),
    }
    for sampling in history_sampling.SAMPLINGS:
        dataset = tf.data.Dataset.from_tensors(example)
        with seqio.map_seed_manager(0):
            (made,) = history_sampling.named(sampling)(dataset, 3).as_numpy_iterator()
        assert pairs(made) == []
