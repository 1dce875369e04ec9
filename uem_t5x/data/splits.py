"""Splits users into train, validation and test by a seeded hash of their ids."""

import hashlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from uem_t5x.base import stable_hash
from uem_t5x.base.errors import InputError

TRAIN = "train"


def split_users(
    user_ids: Shaped[np.ndarray, " users"], shares: Mapping[str, int | float], seed: int
) -> dict[str, Int64[np.ndarray, " split"]]:
    """Splits users; who is in a split of a given fraction does not change when users are added.

    Each user has a position between 0 and 1. The splits follow each other from 0 upwards: a
    fraction takes the users in an interval of that length, a number takes that many users. The rest
    is `train`.

    Args:
        user_ids: distinct ids, integers or texts.
        shares: of each split but `train`: a number of users (int) or a fraction of them (float).
        seed: draws other positions.

    Returns:
        The indices of each split's users, in increasing order.

    Raises:
        InputError: if a split, `train` among them, would be left without the users asked for.
    """
    positions = _positions(user_ids, seed)
    order = np.argsort(positions, kind="stable")
    positions = positions[order]
    splits: dict[str, np.ndarray] = {}
    start, edge = 0, 0.0
    for name, share in shares.items():
        if isinstance(share, int):
            end = start + share
            edge = positions[end - 1] if 0 < end <= len(order) else edge
        else:
            edge += share
            end = max(start, int(np.searchsorted(positions, edge)))
        too_few = end > len(order) or (share > 0 and end == start)
        if too_few or end == len(order):
            asked = " and ".join(f"{share} for {split}" for split, share in shares.items())
            raise InputError(
                f"{len(order)} users are too few for the asked split ({asked}, the rest for "
                f"{TRAIN}); lower --{name}-users or --min-history, or give more data"
            )
        splits[name] = np.sort(order[start:end])
        start = end
    return {TRAIN: np.sort(order[start:]), **splits}


def _positions(user_ids: Shaped[np.ndarray, " users"], seed: int) -> Float64[np.ndarray, " users"]:
    """Returns a pseudo-random number in [0, 1) for each id, the same in every integer type."""
    if user_ids.dtype == object:  # texts
        digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in user_ids]
        user_ids = np.frombuffer(b"".join(digests), "<u8")
    (key,) = stable_hash.mix(np.array([seed % 2**64], np.uint64))
    return stable_hash.mix(user_ids.astype(np.uint64) ^ key) / 2.0**64
