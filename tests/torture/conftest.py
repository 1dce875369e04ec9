"""What the torture tests share."""

import os
import random
import time

import pytest

# The forks must find the programs compiled already, the smallest ones too.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# Begun first: together they take most of the time.
LONGEST = ("test_killed", "test_soak", "test_killed_commands")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="module")
def rng():
    """Moments, drawn anew each time; UEM_T5X_TORTURE_SEED repeats those of a run that failed."""
    seed = int(os.environ.get("UEM_T5X_TORTURE_SEED", time.time_ns() % 10**6))
    print(f"UEM_T5X_TORTURE_SEED={seed}")
    return random.Random(seed)
