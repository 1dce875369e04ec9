"""Whose examples a training batch holds, and how the data are parted."""

import numpy as np
import pytest

from uem_t5x.base.errors import InputError
from uem_t5x.inputs import batches, data_sources, feature_converters
from uem_t5x.inputs import users as users_lib
from uem_t5x.tasks import movielens


@pytest.mark.parametrize("is_mixture", [False, True])
def test_the_users_of_a_batch(is_mixture, mixture, dataset_folder):
    with data_sources.use_dataset_folder(dataset_folder):
        config = batches.DatasetConfig(
            mixture if is_mixture else movielens.uem_task(20),
            {"inputs": 8, "targets": 8, "history_items": 20, "history_ratings": 20},
            "train",
            batch_size=16,
            shuffle=True,
            seed=3,
            num_shards=2,
        )
        iterator = batches.TrainIterator(config, feature_converters.UserEmbeddingFeatureConverter)
        users = users_lib.read(dataset_folder, "train").most_recent(20)
        histories = {user: users.history(index)[0] for index, user in enumerate(users.ids)}
        for index, batch in zip(range(5), iterator):  # more than an epoch
            told = [histories[user] for user in iterator.user_ids(index)]
            for items, expected in zip(batch["history_items"], told, strict=True):
                items = items[items > 0]
                np.testing.assert_array_equal(items, expected[len(expected) - len(items) :])
                assert len(items) in (
                    {len(expected), min(5, len(expected))} if is_mixture else {len(expected)}
                )


def test_more_parts_of_the_data_than_users(dataset_folder):
    lengths = {"inputs": 8, "targets": 8, "history_items": 20, "history_ratings": 20}
    with data_sources.use_dataset_folder(dataset_folder):
        config = batches.DatasetConfig(
            movielens.uem_task(20), lengths, "test", batch_size=64, shuffle=True, num_shards=64
        )
        with pytest.raises(InputError, match=r"SHARDS=64 .* 'test' has \d+ users"):
            batches.TrainIterator(config, feature_converters.UserEmbeddingFeatureConverter)
