"""Any bytes are a table of texts, or refused in a line."""

import csv
import io

import pytest
from hostile_input import COLUMNS, MIB, PROFILE, accepts, peak_memory, pieces, refusal
from hypothesis import given
from hypothesis import strategies as st

from uem_t5x.data import csv_rows, text_tables


@PROFILE
@given(
    st.binary() | pieces("userId", "movieId").map(lambda text: text.encode("utf-8", "ignore")),
    st.booleans(),
)
def test_any_bytes_are_a_table_or_refused(data, has_header):
    header = b"timestamp,x,rating,userId,movieId\n" if has_header else b""
    for columns in (COLUMNS, COLUMNS[:1]):
        table = accepts(text_tables.read_csv, header + data, "t.csv", columns)
        assert table is None or set(table.frame.columns) == set(columns)
    table = accepts(text_tables.read_unquoted, data, "t.dat", COLUMNS)
    assert table is None or table.frame.columns == COLUMNS


@PROFILE
@given(st.lists(st.tuples(*[pieces()] * 3), min_size=1), st.sampled_from(["\n", "\r\n"]))
def test_what_python_writes_is_read_as_it_was(rows, end):
    # An empty row of one field is a blank line; the first field is never empty here.
    rows = [(f"x{row[0]}", *row[1:]) for row in rows]
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("a", "b", "c"), *rows])
    for columns in (["a", "b", "c"], ["a", "c"]):
        table = text_tables.read_csv(file.getvalue().encode(), "t.csv", columns)
        places = ["abc".index(column) for column in columns]
        read = [tuple(value or "" for value in row) for row in table.frame.select(columns).rows()]
        assert read == [tuple(row[place] for place in places) for row in rows]


def test_quoted_lines_are_read_by_several_threads_as_by_one():
    rows = [(str(row), 'He said "no",\n' * (row % 7), "x") for row in range(50_000)]
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("a", "b", "c"), *rows])
    frame = text_tables.read_csv(file.getvalue().encode(), "t.csv", ["a", "b"]).frame
    assert [(a, b or "") for a, b in frame.rows()] == [row[:2] for row in rows]


def test_what_begins_as_compressed_data_does_is_text():
    """polars would unpack it, to any size; a fuzzer found that."""
    table = text_tables.read_csv(b"x^,b\n1,2\n", "t.csv", ["x^", "b"])
    assert table.frame.rows() == [("1", "2")]
    table = text_tables.read_unquoted(b"x^::2\n", "t.dat", ["a", "b"])
    assert table.frame.rows() == [("x^", "2")]


@pytest.mark.parametrize("reader", [text_tables.read_csv, text_tables.read_unquoted])
@pytest.mark.parametrize("start", ["", "userId,movieId,rating,timestamp\n"])
def test_an_endless_line_is_refused_without_a_copy_of_it(reader, start):
    data = start.encode() + bytes(64 * MIB)
    message, peak = peak_memory(refusal, reader, data, "t", COLUMNS)
    assert f"t, line {1 + bool(start)}: longer than 1 MiB" in message
    assert peak < 2 * MIB


def test_the_longest_line_is_read():
    line = b"1," + b"x" * (csv_rows.MAX_LINE_BYTES - 2)
    data = b"a,b\n" + line + b"\n2,y\n"
    assert text_tables.read_csv(data, "t", ["a", "b"]).frame.height == 2
    too_long = data.replace(b"1,", b"11,")
    assert "t, line 2: longer than" in refusal(text_tables.read_csv, too_long, "t", ["a", "b"])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a,b,b\n1,2,3\n", "line 1: two columns 'b'"),
        (b",".join(b"%d" % n for n in range(1001)) + b"\n", "line 1: 1001 columns"),
        (b'a,"b\n', "not the header"),
        (b"a\rb\r1\r2\r", "not the header"),
        ("a,b\n1,2\n".encode("utf-16"), "not the header"),
        (b"a\nb" * 3, "no column 'b' in its first line"),
        (b"a,b\n" + b"\n" * 10**6 + b"1,2\n", "line 2: 1 field where there should be 2"),
        (b'a,b\n"\n",2\n' + b"\n" * 10**6 + b"1,2\n", "line 4: 1 field where there should"),
        # A field too many, behind the columns that are asked for and before them.
        (b"a,b,c\n1,2,3\n1,2,3,4\n", "line 3: 4 fields where there should be 3"),
        (b"c,a,b\n1,2,3\n1,2,3,4\n", "line 3: 4 fields where there should be 3"),
        (b"a,b,c\n1,2,\xff\n", "line 2: not UTF-8"),
        (b"a,b,c\n1,\rx,2\n", "line 2: no row of a CSV file; end lines in a line feed"),
        (
            b'a,b,c\n1,2,"' + b"x\n" * 2**19 + b'y"\n',
            "line 2 to 524290: no row of a CSV file; a",
        ),
    ],
)
def test_what_is_wrong_is_told(data, expected):
    assert expected in refusal(text_tables.read_csv, data, "t.csv", ["a", "b"])


@pytest.mark.parametrize("letter", ["x", "x,", "x\n", '""'])
def test_a_long_field_is_read_wherever_it_stands(letter):
    field = (letter * 150_000)[:200_000]
    cell = f'"{field}"' if letter != "x" else field
    for row in (f"{cell},1,2", f"1,{cell},2", f"1,2,{cell}"):
        data = f"a,b,c\n{row}\n".encode()
        for columns in (["a", "b", "c"], ["a", "b"]):
            assert text_tables.read_csv(data, "t.csv", columns).frame.height == 1


@PROFILE
@given(st.lists(st.sampled_from(['"', '""', ",", "\n", "\r\n", "\r", "x", "x,y,z\n", '"x",'])))
def test_every_table_is_what_python_reads_in_it(parts):
    text = "a,b,c\n" + "".join(parts)
    ended = text.rstrip("\r\n") if text.endswith(("\n\n", "\r\n\r\n", "\r")) else text
    try:
        rows = list(csv.reader(io.StringIO(ended, newline="\n"), strict=True))
    except csv.Error:
        rows = [[]]
    for columns in (["a", "b", "c"], ["a", "c"]):
        table = accepts(text_tables.read_csv, text.encode(), "t.csv", columns)
        assert (table is not None) == all(len(row) == 3 for row in rows)
        places = ["abc".index(column) for column in columns]
        if table:
            read = table.frame.select(columns).rows()
            assert read == [tuple(row[p] or None for p in places) for row in rows[1:]]


def test_a_field_too_many_is_found_behind_a_quote():
    # In this format a quote is a letter.
    data = b'1::"Heat::3\n2::x::3::4\n'
    message = refusal(text_tables.read_unquoted, data, "t.dat", ["a", "b", "c"])
    assert "line 2: 4 fields" in message
