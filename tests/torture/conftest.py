"""What the torture tests share."""

import os

# The forks must find the programs compiled already, the smallest ones too.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
