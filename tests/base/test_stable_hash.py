"""The hash against the published generator: folders, splits and vectors rely on its numbers."""

import numpy as np
import splitmix64

from uem_t5x.base import stable_hash
from uem_t5x.data.splits import split_users

SEED = 1234567
# The first outputs of the authors' reference implementation for this seed.
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_it_gives_the_published_outputs():
    states = [(SEED + n * splitmix64.GAMMA) % splitmix64.WORD for n in range(len(PUBLISHED))]
    assert [splitmix64.output(state) for state in states] == PUBLISHED
    assert stable_hash.mix(np.array(states, np.uint64)).tolist() == PUBLISHED


def test_it_wraps_around_as_the_generator_does():
    values = [0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
    expected = [splitmix64.output(value) for value in values]
    assert stable_hash.mix(np.array(values, np.uint64)).tolist() == expected


def test_the_test_users_of_a_seed_are_the_same_on_every_machine():
    ids = range(1, 101)
    key = splitmix64.output(0)  # of the seed
    expected = [user for user in ids if splitmix64.output(user ^ key) / splitmix64.WORD < 0.1]
    splits = split_users(np.array(ids), {"test": 0.1}, seed=0)
    assert expected == [1, 18, 25, 27, 43, 47, 58, 73, 75]
    assert [ids[index] for index in splits["test"]] == expected
