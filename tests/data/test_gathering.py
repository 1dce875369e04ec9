"""Tables that are read part by part, and users gathered on the disk: all as if it came at once."""

import io

import own_questions
import polars as pl
import published_forms
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_folders import assert_same_folder

from uem_t5x.base.errors import InputError
from uem_t5x.data import gathering, tables
from uem_t5x.data.gathering import GatheredByUser
from uem_t5x.data.options import PrepareOptions
from uem_t5x.data.prepare import prepare
from uem_t5x.data.sources import Table

IDS = st.sampled_from(["1", "2", "10", "-3", "2.0", "b", "a", "10.00", "007", "999999999999999999"])
NUMBERS = st.sampled_from(["1", "2", "10", "-3", "999999999999999999"])


@pytest.mark.parametrize("name", ["amazon-reviews-2023", "movielens-100k", "goodreads"])
@pytest.mark.parametrize("rows", [1, 60, 700])
def test_a_folder_is_the_same_however_much_memory_there_is(name, rows, tmp_path, monkeypatch):
    data = published_forms.write(name, tmp_path / "data")
    options = PrepareOptions(source=name, data=data, encoder_width=16, vocabulary_size=700)
    folders = []
    for held in (10**9, rows):
        monkeypatch.setattr(GatheredByUser.__init__, "__defaults__", (held,))
        if held == rows:
            monkeypatch.setattr(tables, "_BLOCK_BYTES", 500)
            monkeypatch.setattr(tables, "_LEAST_BYTES", 100)
        output = tmp_path / f"dataset {held}"
        folders.append(prepare(replaced(options, output=output)).path)
    assert_same_folder(*folders)


@pytest.mark.parametrize("rows", [1, 30])
def test_so_are_questions(rows, tmp_path, monkeypatch):
    data = own_questions.write(tmp_path / "data")
    options = PrepareOptions(source=str(data / "asked.toml"), data=data, encoder_width=8)
    folders = []
    for held in (10**9, rows):
        monkeypatch.setattr(GatheredByUser.__init__, "__defaults__", (held,))
        if held == rows:
            monkeypatch.setattr("uem_t5x.data.asking._ITEMS_AT_A_TIME", 5)
        output = tmp_path / f"dataset {held}"
        folders.append(prepare(replaced(options, output=output)).path)
    assert_same_folder(*folders)


def replaced(options, **changes):
    import dataclasses

    return dataclasses.replace(options, **changes)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.lists(IDS, min_size=1, max_size=30), st.lists(NUMBERS, min_size=1, max_size=30)),
    st.integers(1, 9),
    st.integers(1, 5),
)
def test_users_come_in_order_with_their_rows_in_order(tmp_path_factory, ids, rows, at_once):
    frame = pl.DataFrame({"userId": ids, "row": range(len(ids))}, {"userId": pl.String, "row": int})
    whole = GatheredByUser(None)
    parts = GatheredByUser(tmp_path_factory.mktemp("gathered") / "scratch", rows)
    whole.add(frame)
    for start in range(0, len(ids), at_once):
        parts.add(frame[start : start + at_once])
    (expected,) = whole.parts()
    found = list(parts.parts())
    users = [part["userId"].unique().sort() for part in found]
    assert pl.concat(users).to_list() == expected["userId"].unique().sort().to_list()
    by_user = expected.sort("userId", maintain_order=True).drop("order")
    in_parts = [part.sort("userId", "order").drop("order") for part in found]
    assert pl.concat(in_parts).equals(by_user)
    assert parts.height == len(ids)


LINE = st.sampled_from(
    ["a,1\n", "b,2\r\n", '"c",3\n', '"d, e",4\n', '"f\ng",5\n', '"h ""i""",6\n', 'j"k,7\n', "é,8\n"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(LINE, min_size=1, max_size=40), st.integers(8, 60), st.booleans())
def test_a_file_in_blocks_is_the_same_table(lines, block, has_end):
    text = "name,number\n" + "".join(lines)
    data = (text if has_end else text.removesuffix("\n")).encode()
    table = Table(("*",))

    def read():
        parts = tables._read_csv(io.BytesIO(data), "file.csv", ".csv", table, ["name", "number"])
        return list(parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_BLOCK_BYTES", block)
        patch.setattr(tables, "_LEAST_BYTES", 1)
        parts = read()
    (whole,) = read()
    assert pl.concat(part.frame for part in parts).equals(whole.frame)
    assert parts[-1].sha256 == whole.sha256 and parts[-1].ends_mid_line == whole.ends_mid_line
    row = whole.first_row
    for part in parts:
        assert part.first_row == row
        row += part.frame.height


@pytest.mark.parametrize("separator", [None, "::"])
@pytest.mark.parametrize("line", [2, 5, 17, 40])
@pytest.mark.parametrize("wrong", ["a", "\xff", "a,1,2"])
def test_what_is_wrong_in_a_later_block_is_named_by_its_line(separator, line, wrong, monkeypatch):
    if separator:
        wrong = wrong.replace(",", separator)
    lines = ["name,number", *(f"x{number},{number}" for number in range(2, 50))]
    lines = [text.replace(",", separator or ",") for text in lines]
    lines[line - 1] = wrong
    data = "\n".join([*lines, ""]).encode("latin-1")
    monkeypatch.setattr(tables, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(tables, "_LEAST_BYTES", 1)
    table = Table(("*",), separator=separator)
    with pytest.raises(InputError, match=rf"file.csv, line {line}\b"):
        list(tables._read_csv(io.BytesIO(data), "file.csv", ".csv", table, ["name", "number"]))


def test_parquet_comes_in_parts(tmp_path, monkeypatch):
    frame = pl.DataFrame({"a": range(100), "b": [str(row) for row in range(100)]})
    frame.write_parquet(tmp_path / "t.parquet", row_group_size=10)
    monkeypatch.setattr(tables, "_BATCH_ROWS", 10)
    parts = list(tables.read(tmp_path, "t.parquet", Table(("*",)), ["b", "a"]))
    assert len(parts) > 5
    assert pl.concat(part.frame for part in parts)["b"].to_list() == frame["b"].to_list()
    assert [part.first_row for part in parts][:2] == [1, 1 + parts[0].frame.height]
    frame.clear().write_parquet(tmp_path / "empty.parquet")
    (empty,) = tables.read(tmp_path, "empty.parquet", Table(("*",)), ["b"])
    assert empty.frame.height == 0 and len(empty.sha256) == 64


def test_what_is_kept_for_a_second_reading(tmp_path):
    frames = [pl.DataFrame({"a": [number]}) for number in range(3)]
    for scratch in (None, tmp_path):
        stored = gathering.StoredFrames(scratch)
        for frame in frames:
            stored.append(frame)
        for _ in range(2):
            assert [frame["a"][0] for frame in stored] == [0, 1, 2]
    assert len(list(tmp_path.iterdir())) == 3
