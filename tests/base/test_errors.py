"""Which errors are told in one line, and what commands end with."""

import io

import numpy as np
import pytest
import tensorflow as tf

from uem_t5x import cli
from uem_t5x.base.errors import (
    DivergedError,
    InputError,
    Preempted,
    check_at_least,
    exit_code,
    line_of,
)
from uem_t5x.commands import evaluate, quickstart
from uem_t5x.commands import train as train_command
from uem_t5x.runs import checks


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "f"), "[Errno 28] No space left on device: 'f'"),
        (DivergedError("the loss is no number"), "the loss is no number"),
        (tf.errors.ResourceExhaustedError(None, None, "{{node Save}} f; No space"), "f; No space"),
        (
            tf.errors.NotFoundError(
                None,
                None,
                "Graph execution error:\n\nDetected at node Read defined at\n  File f\n\n"
                "Error in user-defined function: f; No such file\n\t [[{{node Read}}]] [Op:g]",
            ),
            "Error in user-defined function: f; No such file",
        ),
        (ValueError('RESOURCE_EXHAUSTED: Error writing "f"\nat x'), None),
        (ValueError("UNKNOWN: Error writing f [os_error_code='5']"), None),
    ],
)
def test_what_the_machine_does_not_let_us_do_is_a_line(error, line):
    assert line_of(error) == (line or str(error).splitlines()[0])


def test_what_is_no_whole_number_is_refused():
    check_at_least(1, none_for="all", A=1, B=np.int64(2), C=None)
    with pytest.raises(InputError, match=r"^B=0: bind it to 1 or more$"):
        check_at_least(1, A=1, B=0)
    for value, text in {"two": "'two'", 1.5: "1.5", None: "None"}.items():
        with pytest.raises(InputError, match=rf"^A={text}: bind it to a whole number, 1 or more$"):
            check_at_least(1, A=value)
    with pytest.raises(InputError, match=r"^A=-1: bind it to 0 or more, or to None for all$"):
        check_at_least(0, none_for="all", A=-1)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("none"),
        ValueError("INVALID_ARGUMENT: rank 2 is not 3"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"),  # a device's
        tf.errors.InvalidArgumentError(None, None, "shapes differ"),
    ],
)
def test_a_mistake_of_ours_is_none(error):
    assert line_of(error) is None


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (
            InputError("f: no such folder; name another\n  in gin"),
            2,
            "f: no such folder; name another",
        ),
        (OSError(28, "No space left on device"), 1, "[Errno 28] No space left on device"),
        (Preempted(7), 75, str(Preempted(7))),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_every_command_ends_alike(error, code, told, monkeypatch, capsys):
    def run(*_):
        raise error

    monkeypatch.setattr(evaluate, "run", run)
    monkeypatch.setattr(checks, "check", run)
    monkeypatch.setattr(quickstart, "run", run)
    for program, main, arguments in (
        ("uem-t5x evaluate", cli.main, ["evaluate", "--model-dir", "m"]),
        ("uem_t5x.train", train_command.main, ["--gin_file=r"]),
        ("uem-t5x quickstart", cli.main, ["quickstart"]),
    ):
        assert main(arguments) == code
        assert capsys.readouterr().err == (f"{program}: {told}\n" if told else "")


@pytest.mark.parametrize(
    ("encoding", "errors", "printed"),
    [
        ("ascii", "strict", b"Kom\\xf6die \\u2047 \\U0001f600 caf\xe9\n"),
        ("ascii", "surrogateescape", b"Kom\\xf6die \\u2047 \\U0001f600 caf\xe9\n"),
        ("latin-1", "strict", b"Kom\xf6die \\u2047 \\U0001f600 caf\xe9\n"),
        ("utf-8", "strict", "Kom\u00f6die \u2047 \U0001f600 caf".encode() + b"\xe9\n"),
    ],
)
def test_what_standard_output_cannot_hold_is_escaped(encoding, errors, printed, monkeypatch):
    """A genre, an unknown token, a user's name, and a file's name that is no UTF-8."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding, errors)
    monkeypatch.setattr("sys.stdout", stdout)
    assert exit_code("test", lambda: print("Kom\u00f6die \u2047 \U0001f600 caf\udce9") or 0) == 0
    assert (stdout.buffer.getvalue(), stdout.errors) == (printed, errors)
