"""SplitMix64 (Steele, Lea and Flood, 2014) in plain Python, from its published algorithm."""

GAMMA = 0x9E3779B97F4A7C15
WORD = 2**64


def output(state: int) -> int:
    """Returns what a generator in this state puts out next; its state grows by `GAMMA`."""
    z = (state + GAMMA) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)
