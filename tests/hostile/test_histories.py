"""Any lines of histories: each is answered, or refused by its number."""

import io
import json
import os
import re

import pytest
from hostile_input import JSON, MIB, PROFILE, peak_memory
from hypothesis import given
from hypothesis import strategies as st

from uem_t5x.answers import json_input, predict, user_lines


def read_lines(data, **options):
    refused = []
    lines = json_input.read_lines(io.BytesIO(data))
    users = list(user_lines.UserReader({1: 7}, **options).users(lines, "in.jsonl", refused.append))
    for error in refused:
        assert str(error).isprintable()
        assert len(str(error)) < 400
    return users, [int(re.match(r"in\.jsonl: line (\d+): ", str(error))[1]) for error in refused]


ITEMS = JSON | st.fixed_dictionaries(
    {},
    optional={
        "movieId": st.just(1) | JSON,
        "rating": st.just(4.5) | JSON,
        "timestamp": st.sampled_from([3, 2.5, "2015-03-09", "2015-03-09T12:52:18Z"]) | JSON,
        **{name: st.just("War") | JSON for name in ("title", "genres", "description")},
    },
)
USERS = JSON | st.fixed_dictionaries(
    {"history": st.lists(ITEMS, max_size=3)}, optional={"user_id": JSON}
)


def strict(constant):
    raise AssertionError(constant)


@PROFILE
@given(st.lists(USERS, max_size=4), st.booleans())
def test_each_line_is_answered_or_refused(records, ascii_only):
    lines = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
    data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
    users, refused = read_lines(data)
    assert len(users) + len(refused) == len(records)
    answered = [r for n, r in enumerate(records, start=1) if n not in refused]
    for user, record in zip(users, answered):
        dropped = user.unknown + user.outdated
        assert len(user.items) + dropped == len(record["history"])
        assert set(user.half_stars) <= set(range(1, 11))
        line = predict.write_line({"user_id": user.user_id, "answer": "\ud800"})
        written = json.loads(line.encode(), parse_constant=strict)["user_id"]
        assert "\n" not in line
        assert written == record.get("user_id")
        for item in user.items:
            assert item == 7 or json.dumps(item.title, ensure_ascii=False).encode()


@PROFILE
@given(st.lists(st.binary()))
def test_bytes_spoil_their_own_line_only(lines):
    good = b'{"user_id": "u", "history": [{"movieId": 1, "rating": 4.5}]}'
    data = b"".join(line.replace(b"\n", b"") + b"\n" + good + b"\n" for line in lines)
    users, refused = read_lines(data)
    assert all(number % 2 for number in refused)
    assert [user.items for user in users].count((7,)) >= len(lines)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 10**6,
        b'{"history": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"a":' * 10**5,
        b'{"user_id": %s, "history": []}' % (b"9" * 5000),
        b" " * (json_input.MAX_LINE_BYTES + 1) + b'{"user_id": "u", "history": []}',
        b'{"user_id": 1e400, "history": []}',
        b'{"user_id": NaN, "history": []}',
        b'{"user_id": -Infinity, "history": []}',
        b'{"user_id": {"a": 1}, "history": []}',
        b'{"user_id": "\xff", "history": []}',
        b'{"user_id": "\xed\xa0\x80", "history": []}',
        b'{"history": [{"movieId": 1, "rating": 1e400}]}',
        b'{"history": [{"movieId": 1, "rating": %s}]}' % (b"9" * 4000),
        b'{"history": [{"movieId": %s, "rating": 1}]}' % (b"[" * 500 + b"]" * 500),
        b'{"history": [{"movieId": "%s", "rating": 1}]}' % (b"x" * 10**6),
        b'{"history": [{"title": "\\ud800", "rating": 1}]}',
        '{"history": []}'.encode("utf-16"),
    ],
)
def test_a_hostile_line_is_refused_and_the_next_one_answered(line):
    users, refused = read_lines(line + b'\n{"user_id": "next", "history": []}')
    assert refused == [1]
    assert [user.user_id for user in users] == ["next"]


@pytest.mark.parametrize(
    ("line", "user_id"),
    [
        (b'\xef\xbb\xbf{"user_id": "u", "history": []}\r', "u"),
        (b'{"user_id": "u", "history": [], "user_id": 3}', 3),  # the last one, as in Python
        (b'{"user_id": "\\ud800", "history": []}', "\ud800"),
        (b'{"history": []}', None),
    ],
)
def test_an_unusual_line_is_answered(line, user_id):
    ((user,), refused) = read_lines(line)
    assert (user.user_id, refused) == (user_id, [])


@PROFILE
@given(st.lists(st.integers(0, 40)), st.booleans())
def test_lines_up_to_the_limit_are_whole(lengths, ends):
    limit = 16
    data = b"\n".join(bytes([65 + n % 26]) * length for n, length in enumerate(lengths))
    data += b"\n" * ends
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_input, "MAX_LINE_BYTES", limit)
        patch.setattr(json_input, "_CHUNK_BYTES", 7)
        lines = list(json_input.read_lines(io.BytesIO(data)))
    assert lines == [line[: limit + 1] for line in data.splitlines(keepends=True)]


def test_an_endless_line_takes_no_more_memory_than_the_limit(tmp_path):
    path = tmp_path / "in.jsonl"
    with path.open("wb") as file:
        file.truncate(512 * MIB)
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"user_id": "next", "history": []}\n')

    def read():
        refused = []
        with path.open("rb") as file:
            lines = json_input.read_lines(file)
            users = list(user_lines.UserReader({}).users(lines, "in.jsonl", refused.append))
        return users, refused

    (users, refused), peak = peak_memory(read)
    assert [user.user_id for user in users] == ["next"]
    assert str(refused[0]) == (
        "in.jsonl: line 1: longer than 16 MiB; give the most recent items of the history"
    )
    assert peak < 3 * json_input.MAX_LINE_BYTES


def test_a_line_of_nothing_but_items_takes_some_memory_and_time():
    line = b'{"history": [' + b"[]," * 500_000 + b"[]]}"
    (users, refused), peak = peak_memory(read_lines, line)
    assert (users, refused) == ([], [1])
    assert peak < 40 * len(line)
