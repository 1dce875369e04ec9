"""Damaged and malicious input: what is drawn, and what must come of it.

All of it is refused in one line, and nothing else happens. `torture/fuzz.py` looks further, with
the same properties.
"""

import tracemalloc

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from uem_t5x.base.errors import InputError

settings.register_profile(
    "hostile",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PROFILE = settings.get_profile("hostile")
MIB = 2**20

MOVIES = 'movieId,title,genres\n1,Heat (1995),Action|Crime\n2,"Ronin, a (1998)",Action\n'
RATINGS = "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,2,0.5,964981247\n"
FILES = {"movies.csv": MOVIES.encode(), "ratings.csv": RATINGS.encode()}
COLUMNS = ["userId", "movieId", "rating", "timestamp"]
# What is special to one of the readers.
AWKWARD = [
    "\x00",
    "\x1c",
    "\x1f",
    "\r",
    "\n",
    '"',
    "::",
    ",",
    "|",
    "\ufeff",
    "\u2028",
    "\U0001f600",
]
NUMBERS = [
    "1",
    "01",
    "+1",
    "-1",
    "1.0",
    "1e3",
    "9" * 19,
    str(2**63),
    "9" * 400,
    "nan",
    "\u0661",
    " 1",
    "",
]


def refusal(function, *arguments):
    """Returns the message with which the arguments are refused, a single line for a terminal."""
    with pytest.raises(InputError) as error:
        function(*arguments)
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


def accepts(function, *arguments):
    """Returns what a function makes of the arguments; None if it refuses them as it should."""
    try:
        return function(*arguments)
    except InputError as error:
        assert str(error).isprintable(), str(error)
        assert len(str(error)) < 1000
        return None


def peak_memory(function, *arguments):
    tracemalloc.start()
    try:
        result = function(*arguments)
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def write_folder(path, files):
    path.mkdir(exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def pieces(*texts):
    """Texts of awkward pieces and of whatever else there is."""
    return st.lists(st.sampled_from([*texts, *AWKWARD, *NUMBERS]) | st.text(max_size=3)).map(
        "".join
    )


@st.composite
def damaged(draw, whole):
    """Data of which a few places are overwritten, cut out or doubled."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        data[start:end] = draw(st.binary(max_size=8) | st.just(bytes(data[start:end]) * 2))
    return bytes(data)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | pieces("\ud800")
    | st.sampled_from([10**400, 1, 4.5]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)
