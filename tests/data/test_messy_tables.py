"""Tables as people have them: what is read is what is there, or it is refused with its row."""

import dataclasses
import json

import own_source
import polars as pl
import pytest
from own_source import BOUGHT, THINGS, histories, read, tables

from uem_t5x.base.errors import InputError


@pytest.fixture
def data(tmp_path):
    return own_source.write(tmp_path)


def interactions(data, rows, **changes):
    """Returns the histories of rows of who, what, when and score."""
    (data / "bought1.csv").write_text("\n".join(["who;what;when;score", *rows, ""]))
    return histories(read(data, **changes), data)


def unit(name):
    return ('time = "when"', f'time = "when"\ntime_unit = "{name}"')


def test_times_are_as_exact_as_they_are_written(data):
    """And ties stand as the file has them; of an item the newest, then the last one counts."""
    start = 1_600_000_000_000
    rows = ["u;a3;{}100;10", "u;a2;{}500;10", "u;a1;{}900;2", "u;a1;{}050;10"]
    rows = [row.format(start // 1000) for row in rows]
    expected = {"u": [("a3", 10), ("a2", 10), ("a1", 3)]}
    assert interactions(data, rows, unit=unit("milliseconds")) == expected
    dated = ["u;a3;{}.100Z;10", "u;a2;{}.5;10", "u;a1;{}.9 UTC;2", "u;a1;{}.05+00:00;10"]
    assert interactions(data, [row.format("2020-01-01T10:00:00") for row in dated]) == expected
    days = ["u;a3;2020-01-01;10", "u;a1;2020-01-01;0", "u;a2;2020-01-01;10", "u;a1;2020-01-01;10"]
    assert interactions(data, days)["u"] == [("a3", 10), ("a2", 10), ("a1", 10)]
    floats = ["u;a3;1600000000.1;10", "u;a1;1600000000.5;10", "u;a2;1600000000.25;10"]
    assert interactions(data, floats)["u"] == [("a3", 10), ("a2", 10), ("a1", 10)]


@pytest.mark.parametrize(
    ("when", "unit_name", "message"),
    [
        (
            "1600000000",
            "milliseconds",
            "row 2: when is '1600000000'; it must be a time as millisec",
        ),
        ("1600000000000", "seconds", "row 2: .* a time as seconds since 1970; say another"),
        ("1600000000000000000", "seconds", "row 2: .* a time as seconds since 1970; say another"),
        # 2**64 more microseconds than a time has: by an overflow it would be one.
        (
            str((2**64 + 1_600_000_000 * 10**6) // 10**6 + 1),
            "seconds",
            "row 2: .* a time as second",
        ),
        ("20240131", "seconds", "when holds dates such as 20240131; write them as 2024-01-31"),
        ("", "seconds", "row 2: when is missing; it must be seconds since 1970"),
    ],
)
def test_times_of_another_unit(data, when, unit_name, message):
    with pytest.raises(InputError, match=message):
        interactions(data, [f"u;a1;{when};10"], unit=unit(unit_name))
    # Of a row that is left out anyway, the time is nothing.
    rows = [f"u;a1;{when};?", "u;a3;2020-01-01;10"]
    if message.startswith("row"):
        assert interactions(data, rows, unit=unit(unit_name)) == {"u": [("a3", 10)]}


def things(data, records, **changes):
    """Returns the items of JSON lines."""
    (data / "things.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    files = ("things.csv", "things.jsonl")
    separator = ('class_separator = ";"\n', "")
    source = read(data, files=files, separator=separator, two=("classes = 2\n", ""), **changes)
    items = tables(source, data).items
    return dict(items.select("movieId", "genres").rows()), items


def thing(tags, **fields):
    return {"sku": "a1", "name": "Lamp", "alias": None, "tags": tags, "text": None, **fields}


@pytest.mark.parametrize(
    ("tags", "classes"),
    [
        (["AC\\DC", "tab\tx", 'a "quote"'], ["AC\\DC", "tab x", 'a "quote"']),
        ([{"id": 18, "name": "Drama"}, {"id": 2, "name": "War"}], ["Drama", "War"]),
        ([["Books", "Kids"], ["Books"]], ["Books", "Kids"]),
        ({"Drama": 3, "War": 1}, ["Drama", "War"]),
        ([0, 1.5, 2.0], ["0", "1.5", "2"]),
        ("A|B", ["A", "B"]),
    ],
)
def test_lists_of_json_are_what_they_are(data, tags, classes):
    found, _ = things(data, [thing(tags)])
    assert found == {"a1": classes}


def test_texts_of_json_that_look_like_lists_are_texts(data):
    _, items = things(data, [thing(["A"], name="[2012]", text='{"a": 1}')])
    assert items.select("title", "about").rows() == [("[2012]", '{"a": 1}')]
    _, items = things(data, [thing(["A"], text=["one\ttwo", "three \\ four"])])
    assert items["about"].to_list() == ["one two three \\ four"]


def test_lists_and_texts_in_one_column_are_refused(data):
    with pytest.raises(InputError, match=r"row 2: tags is 'A\|B', and a list in other rows"):
        things(data, [thing([]), thing("A|B", sku="a2"), thing("B", sku="a3")])
    with pytest.raises(InputError, match="row 1: tags is a list of objects without a name"):
        things(data, [thing([{"id": 3}])])


def test_json_in_other_forms_is_refused_by_its_row(data):
    for text in (json.dumps([thing(["A"])]), json.dumps(thing(["A"]), indent=1)):
        (data / "things.jsonl").write_text(text)
        with pytest.raises(InputError, match=r"row 1: .* is no JSON object; .*jq -c"):
            tables(read(data, files=("things.csv", "things.jsonl")), data)


def test_json_of_python_is_read(data):
    """With a BOM, NaN, blank lines, and a column that comes late."""
    rows = [{"who": "u", "what": "a1", "when": 1, "score": 10, "x": float("nan")}] * 1100
    rows.append({"who": "[deleted]", "what": "a3", "when": 2, "score": "loved", "late": 1})
    text = "\ufeff" + "\n\n".join(map(json.dumps, rows))
    (data / "bought.jsonl").write_text(text)
    source = read(data, files=("bought*.csv", "bought.jsonl"), user=('user = "who"', 'user="who"'))
    assert histories(source, data)["[deleted]"] == [("a3", 10)]
    late = read(data, files=("bought*.csv", "bought.jsonl"), none=('none = ["?"]', 'none = ["9"]'))
    late = dataclasses.replace(
        late, interactions=dataclasses.replace(late.interactions, time="late", value=None)
    )
    with pytest.raises(InputError, match="row 1: late is missing"):
        tables(late, data)


def test_a_file_without_a_header_may_have_a_bom(data):
    header = (
        'separator = ";"\nuser',
        'separator = ";"\nheader = ["who","what","when","score"]\nuser',
    )
    rows = "u;a1;1;10\nu;a3;2;10\n"
    (data / "bought1.csv").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    assert histories(read(data, header=header), data) == {"u": [("a1", 10), ("a3", 10)]}
    (data / "bought1.csv").write_text(rows + "u;a3;2\n")
    with pytest.raises(InputError, match="line 3: 3 fields where there should be 4"):
        histories(read(data, header=header), data)
    (data / "bought1.csv").write_text(BOUGHT)
    with pytest.raises(InputError, match="its first line names the columns itself"):
        histories(read(data, header=header), data)


def test_a_zst_file_that_is_cut_off_is_refused(data):
    import zstandard

    rows = "".join(f"u{n};a1;{1_600_000_000 + n};10\n" for n in range(200_000))
    whole = zstandard.compress(("who;what;when;score\n" + rows).encode())
    (data / "bought1.csv").unlink()
    files = ("bought*.csv", "bought.csv.zst")
    for part in range(1, 8):
        (data / "bought.csv.zst").write_bytes(whole[: len(whole) * part // 8])
        with pytest.raises(InputError, match=r"zst: cannot be read \(it ends within a frame"):
            histories(read(data, files=files), data)
    (data / "bought.csv.zst").write_bytes(whole + zstandard.compress(b"v;a3;1600000000;10\n"))
    assert len(histories(read(data, files=files), data)) == 200_001


def test_a_last_row_that_is_cut_off_is_refused(data):
    (data / "bought1.csv").write_text("who;what;score;when\nu;a1;10;1600000000\nu;a3;10;16000")
    with pytest.raises(InputError, match="row 3: when is '16000'; it must be whole"):
        histories(read(data), data)
    # Times of other lengths are no sign of it, nor is one that is nothing.
    (data / "bought1.csv").write_text(
        "who;what;score;when\nu;a1;10;2020-01-01T10:00:00.5\nu;a3;10;2020-01-02\nu;a2;?;"
    )
    assert histories(read(data), data) == {"u": [("a1", 10), ("a3", 10)]}


def test_ids_of_one_number_are_one(data):
    """As pandas writes them where some are missing; others stay as they are written."""
    (data / "things.csv").write_text(THINGS.replace("a1", "1").replace("a3", "3.0"))
    rows = ["7;1.0;2020-01-01;10", "7.0;3;2020-01-02;10", "7;01;2020-01-03;10"]
    (data / "things.csv").write_text("sku,name,alias,tags,text\n1,Lamp,,Home,\n3.0,Chair,,Home,\n")
    assert interactions(data, rows) == {7: [(1, 10), (3, 10)]}
    (data / "things.csv").write_text("sku,name,alias,tags,text\n007,Lamp,,Home,\n3,Chair,,Home,\n")
    rows = ["u;007;2020-01-01;10", "u;7;2020-01-02;10"]
    assert interactions(data, rows) == {"u": [("007", 10)]}
    with pytest.raises(InputError, match=r"ids are such as '7' there, and '007', '3' among"):
        interactions(data, ["u;7;2020-01-02;10"])


def test_rows_of_nobody_are_left_out(data):
    rows = ["NULL;a1;2020-01-01;10", ";a1;2020-01-01;10", "u;nan;2020-01-01;10"]
    rows.append("u;a1;2020-01-01;10")
    assert interactions(data, rows) == {"u": [("a1", 10)]}
    assert tables(read(data), data).counts["nameless"] == 3


def test_files_that_are_not_meant_are_not_read(data):
    (data / ".ipynb_checkpoints").mkdir()
    (data / ".ipynb_checkpoints/bought-checkpoint.csv").write_text(BOUGHT)
    assert len(histories(read(data), data)) == 2
    (data / "old").mkdir()
    (data / "old/things.csv").write_text(THINGS)
    with pytest.raises(InputError, match=r"are both 'things\.csv', which \[items\] asks for"):
        read_all = read(data)
        tables(read_all, data)
    (data / "old/things.csv").unlink()
    (data / "bought\u00a02.csv").write_text(BOUGHT)
    with pytest.raises(InputError, match="holds what cannot be shown"):
        tables(read(data), data)


def test_flags_that_are_none_are_refused(data):
    (data / "things.csv").write_text("sku,name,alias,text,Light,Home\na1,L,,,1,0.0\na3,C,,,Yes,x\n")
    flags = ('classes = "tags"\nclass_separator = ";"', 'class_flags = ["Light", "Home"]')
    items = tables(read(data, flags=flags), data).items
    assert items["genres"].to_list() == [["Light"], ["Light", "Home"]]
    (data / "things.csv").write_text("sku,name,alias,text,Light,Home\na1,Lamp,,,2,0\n")
    with pytest.raises(InputError, match="row 2: Light is '2'; it must be 1 of an item of"):
        tables(read(data, flags=flags), data)


def test_latin_1_is_not_taken_for_utf_8(data):
    (data / "things.csv").write_bytes(THINGS.replace("Chair", "Caf\u00e9").encode("latin-1"))
    for quoted in ("true", "false"):
        change = ('files = "things.csv"', f'files = "things.csv"\nquoted = {quoted}')
        with pytest.raises(InputError, match="line 4: not utf-8 text; say another encoding ="):
            tables(read(data, change=change), data)
        change = (change[0], change[1] + '\nencoding = "latin-1"')
        assert "Caf\u00e9" in tables(read(data, change=change), data).items["title"]


def test_names_that_another_separator_joins(data):
    text = THINGS.replace(";", ",").replace("Light,Home", '"Light, Home"')
    text = text.replace("light, Home ,Rare", '"Home, Rare"') + 'a5,X,,"Light, Rare",\n'
    (data / "things.csv").write_text(text)
    change = ('class_separator = ";"\n', "")
    with pytest.raises(InputError, match=r"reads as several classes.* class_separator = ','"):
        tables(read(data, change=change), data)


@pytest.mark.parametrize("column", ["who", "what", "when", "score"])
def test_parquet_lists_where_none_may_be(data, column):
    bought = pl.read_csv(data / "bought1.csv", separator=";", infer_schema=False)
    (data / "bought1.csv").unlink()
    bought.with_columns(pl.concat_list(column)).write_parquet(data / "bought.parquet")
    with pytest.raises(InputError, match=rf"{column} is of type List.*; give a text or a number"):
        tables(read(data, b=("bought*.csv", "bought.parquet")), data)


def test_parquet_of_structs(data):
    listed = pl.read_csv(data / "things.csv", infer_schema=False).with_columns(
        tags=pl.lit([{"id": 1, "name": "Home"}])
    )
    listed.write_parquet(data / "things.parquet")
    source = read(data, a=("things.csv", "things.parquet"))
    assert tables(source, data).items["genres"].to_list() == [["Home"]] * 4
