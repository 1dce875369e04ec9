"""Which users are in which split."""

import numpy as np
import pytest

from uem_t5x.base.errors import InputError
from uem_t5x.data.dataset_folder import SPLITS
from uem_t5x.data.splits import split_users

IDS = np.arange(1, 2001)


def test_a_fraction_does_not_move_when_users_are_added():
    shares = {"test": 0.1, "validation": 0.2}
    few = split_users(IDS[::2], shares, seed=3)
    many = split_users(IDS, shares, seed=3)
    for split in SPLITS:
        before = set(IDS[::2][few[split]])
        assert before == set(IDS[many[split]]) & set(IDS[::2])
    assert 150 < len(many["test"]) < 250
    assert 330 < len(many["validation"]) < 470


def test_a_user_of_a_large_id_does_not_move_the_others():
    ids = np.append(IDS.astype(np.uint64), np.uint64(2**63))
    shares = {"test": 0.1, "validation": 0.2}
    few, many = (split_users(some, shares, seed=3) for some in (IDS, ids))
    for split in SPLITS:
        np.testing.assert_array_equal(few[split], many[split][many[split] < len(IDS)])


def test_numbers_are_exact():
    splits = split_users(IDS, {"test": 7, "validation": 5}, seed=0)
    assert [len(splits[split]) for split in SPLITS] == [1988, 5, 7]
    assert len(np.unique(np.concatenate(list(splits.values())))) == 2000


def test_another_seed_is_another_split():
    one, other = (split_users(IDS, {"test": 0.5}, seed) for seed in (0, 1))
    assert len(np.intersect1d(one["test"], other["test"])) < 650


@pytest.mark.parametrize(
    "shares",
    [{"test": 2000}, {"test": 1999, "validation": 1}, {"test": 3000}, {"test": 1e-6}],
)
def test_too_few_users(shares):
    with pytest.raises(InputError, match="2000 users are too few for the asked split"):
        split_users(IDS, shares, seed=0)
