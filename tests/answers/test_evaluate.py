"""What `uem-t5x evaluate` prints and writes of scores."""

import io
import json

import pytest

from uem_t5x import cli
from uem_t5x.answers import evaluate
from uem_t5x.commands import model_arguments, score_tables
from uem_t5x.report.columns import COLUMNS

GENRE = "Drama [/x]"  # neither a tag of rich's nor a mistake
RESULT = {
    "methods": {name: dict.fromkeys(COLUMNS, 0.5) for name in ("uem", "rule")},
    "per_genre": [
        {"genre": GENRE, "kind": kind, "f1": 0.25, "support": 3} for kind in ("liked", "disliked")
    ],
    "items_read": {"least": 1, "mean": 2.0, "most": 3},
    "examples": 7,
    "history_length": 3,
    "step": 4,
    "split": "test",
}


@pytest.fixture
def scored(monkeypatch):
    monkeypatch.setattr(model_arguments, "load", lambda _: None)
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: RESULT)


def test_names_are_printed_as_they_are(scored, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = "[draft]/scores.json"
    assert cli.main(["evaluate", "--model-dir", "m", "--output", file]) == 0
    assert json.loads((tmp_path / file).read_text()) == RESULT
    printed = capsys.readouterr().out
    assert GENRE in printed
    assert f"scores written to {file}" in printed


def test_tables_are_printed_in_ascii_too(scored, monkeypatch):
    """Once the minutes of scoring are over, no letter may end the command."""
    named = [{**row, "genre": "Kom\u00f6die"} for row in RESULT["per_genre"]]
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: {**RESULT, "per_genre": named})
    stdout = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", stdout)
    assert cli.main(["evaluate", "--model-dir", "m"]) == 0
    assert rb"Kom\xf6die" in stdout.buffer.getvalue()


def test_scores_and_answers_are_two_files(scored, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = ["--output", "same.json", "--answers", str(tmp_path / "same.json")]
    assert cli.main(["evaluate", "--model-dir", "m", *places]) == 2
    assert "same.json: the scores go there" in capsys.readouterr().err


def test_scores_are_written_before_somebody_stops_reading(scored, tmp_path, monkeypatch):
    def closed(_):
        raise BrokenPipeError

    monkeypatch.setattr(score_tables, "methods_table", closed)
    file = tmp_path / "scores.json"
    cli.main(["evaluate", "--model-dir", "m", "--output", str(file)])
    assert json.loads(file.read_text()) == RESULT
