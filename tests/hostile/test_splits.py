"""Any users, seed and shares: each user is in one split."""

import hypothesis
import numpy as np
from hostile_input import PROFILE, accepts
from hypothesis import given
from hypothesis import strategies as st

from uem_t5x.data import splits


@PROFILE
@given(
    st.sets(st.integers(-(2**63), 2**63 - 1)),
    st.integers() | st.sampled_from([2**64, -(2**200)]),
    st.integers(0, 5) | st.floats(0, 1),
    st.integers(0, 5) | st.floats(0, 1),
)
@hypothesis.example(set(range(9)), 0, 5, 0.0)
def test_each_user_is_in_one_split(users, seed, validation, test):
    ids = np.array(sorted(users), np.int64)
    shares = {"validation": validation, "test": test}
    parts = accepts(splits.split_users, ids, shares, seed)
    if parts:
        assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(ids)))
        assert len(parts["train"])
