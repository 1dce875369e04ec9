"""Damaged and malicious zip files of MovieLens."""

import re
import struct
import zipfile

import pytest
from hostile_input import FILES, MIB, MOVIES, PROFILE, accepts, damaged, peak_memory, refusal
from hypothesis import given
from hypothesis import strategies as st

from uem_t5x.data.movielens import read_movielens


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def declare(path, size):
    """Makes the last member of a zip file claim another size."""
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.rindex(signature) + offset
        data[place : place + 4] = struct.pack("<L", size)
    path.write_bytes(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_nothing_is_written_and_the_outermost_member_is_read(tmp_path):
    path = tmp_path / "in/ml.zip"
    path.parent.mkdir()
    junk = [
        *("../../movies.csv", "/etc/ratings.csv", "ml/old/movies.csv", "..\\..\\movies.csv"),
        *("ml/movies.csv/", "ml/\x1b[2Jx/ratings.csv", "\n/ratings.csv", "a/b/../movies.csv"),
    ]
    members = [(name, b"junk") for name in junk]
    before = sorted(tmp_path.rglob("*"))
    zipped(path, [*members, ("ml/movies.csv", b"old"), *[(f"ml/{n}", d) for n, d in FILES.items()]])
    tables = read_movielens(path)
    assert (tables.movies.height, tables.ratings.height) == (2, 2)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])


@PROFILE
@given(st.data())
def test_damaged_archives_are_read_or_refused(tmp_path, data):
    path = zipped(tmp_path / "ml.zip", FILES.items(), data.draw(st.sampled_from([0, 8])))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    accepts(read_movielens, path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("declared", [None, 1000])
def test_a_bomb_is_not_unpacked(tmp_path, compression, declared):
    bomb = bytes((100 if compression == zipfile.ZIP_DEFLATED else 20) * MIB)
    path = zipped(tmp_path / "ml.zip", [("movies.csv", MOVIES), ("ratings.csv", bomb)], compression)
    del bomb
    if declared:
        declare(path, declared)
    message, peak = peak_memory(refusal, read_movielens, path)
    assert re.search("bytes, but only|not compressed by deflate|is damaged", message)
    assert peak < 2 * MIB


def test_a_large_table_is_no_bomb(tmp_path):
    # More regular than any real one, and not small.
    rows = "".join(f"{n},1,4.0,{964982703 + n}\n" for n in range(3_000_000))
    ratings = "userId,movieId,rating,timestamp\n" + rows
    path = zipped(tmp_path / "ml.zip", [("movies.csv", MOVIES), ("ratings.csv", ratings)])
    assert len(ratings) > 64 * MIB
    assert read_movielens(path).ratings.height == 3_000_000
