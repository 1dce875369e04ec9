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
    places = positions(user_ids, seed)
    order = np.argsort(places, kind="stable")
    ends = _ends(places[order], shares)
    starts = [0, *ends]
    splits = {name: np.sort(order[start:end]) for name, start, end in zip(shares, starts, ends)}
    return {TRAIN: np.sort(order[starts[-1] :]), **splits}


def boundaries(
    shares: Mapping[str, int | float], places: Float64[np.ndarray, " users"] | None = None
) -> Float64[np.ndarray, " shares"]:
    """Returns where the splits end, for whoever splits users by `positions` without all the others.

    Args:
        shares: as of `split_users`.
        places: the positions of all users; None if all shares are fractions, which need none.
    """
    if places is None:
        return np.cumsum([float(share) for share in shares.values()])
    places = np.sort(places)
    return np.append(places, 1.0)[_ends(places, shares)]


def split_of(
    places: Float64[np.ndarray, " users"], ends: Float64[np.ndarray, " shares"]
) -> Int64[np.ndarray, " users"]:
    """Returns the number of each user's split among the shares, or how many shares for `train`."""
    return np.searchsorted(ends, places, side="right")


def check_sizes(sizes: Mapping[str, int], shares: Mapping[str, int | float]) -> None:
    """Refuses splits that lack the users asked for; see `split_users`."""
    for name, share in shares.items():
        if share > 0 and (not sizes[name] or (isinstance(share, int) and sizes[name] < share)):
            raise _too_few(sum(sizes.values()), shares, name)
    if not sizes[TRAIN]:
        raise _too_few(sum(sizes.values()), shares, [*shares][-1])


def _ends(places: Float64[np.ndarray, " users"], shares: Mapping[str, int | float]) -> list[int]:
    """Returns how many of sorted positions are before the end of each split."""
    ends: list[int] = []
    start, edge = 0, 0.0
    for name, share in shares.items():
        if isinstance(share, int):
            end = start + share
            edge = places[end - 1] if 0 < end <= len(places) else edge
        else:
            edge += share
            end = max(start, int(np.searchsorted(places, edge)))
        if end >= len(places) or (share > 0 and end == start):
            raise _too_few(len(places), shares, name)
        ends.append(end)
        start = end
    return ends


def _too_few(users: int, shares: Mapping[str, int | float], name: str) -> InputError:
    asked = " and ".join(f"{share} for {split}" for split, share in shares.items())
    return InputError(
        f"{users} users are too few for the asked split ({asked}, the rest for {TRAIN}); lower "
        f"--{name}-users or --min-history, or give more data"
    )


def positions(user_ids: Shaped[np.ndarray, " users"], seed: int) -> Float64[np.ndarray, " users"]:
    """Returns a pseudo-random number in [0, 1) for each id, the same in every integer type."""
    if user_ids.dtype == object:  # texts
        digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in user_ids]
        user_ids = np.frombuffer(b"".join(digests), "<u8")
    (key,) = stable_hash.mix(np.array([seed % 2**64], np.uint64))
    return stable_hash.mix(user_ids.astype(np.uint64) ^ key) / 2.0**64
