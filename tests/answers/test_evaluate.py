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
    "intervals": {name: {"f1": (0.4, 0.6)} for name in ("uem", "rule")},
    "marks": {"genres": [GENRE], "true": ["+", "-", "."], "said": ["+", "+", None]},
    "confusion": {},
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
    assert (tmp_path / file).read_text() == json.dumps(RESULT, indent=2) + "\n"
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
    assert file.read_text() == json.dumps(RESULT, indent=2) + "\n"


def test_scores_come_with_their_interval(scored, capsys):
    assert cli.main(["evaluate", "--model-dir", "m"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = (number for number, line in enumerate(lines) if "UEM, last 3 items" in line)
    assert "0.500" in lines[row] and "0.40-0.60" in lines[row + 1]
    assert max(map(len, lines)) <= 80


def other_scores(path, **changed):
    """Writes the scores of another model, which is wrong about the first user too."""
    said = ["-", "+", None]
    other = {**RESULT, "marks": {**RESULT["marks"], "said": said}, **changed}
    other["methods"] = {"uem": {**dict.fromkeys(COLUMNS, 0.25), "disliked_f1": 0.5}}
    path.write_text(json.dumps(other))
    return str(path)


def test_how_much_better_a_model_is_than_another(scored, tmp_path, capsys):
    other, output = other_scores(tmp_path / "b.json"), tmp_path / "scores.json"
    given = ["evaluate", "--model-dir", "m", "--output", str(output), "--against", other]
    assert cli.main(given) == 0
    (against,) = json.loads(output.read_text())["against"]
    assert against["scores"] == other
    difference = against["differences"]["liked_f1"]
    assert difference["value"] == 0.25
    # Of a draw of these three users, the first one is what tells the models apart.
    assert difference["interval"] == [0.0, 1.0]
    printed = capsys.readouterr().out
    assert "+0.250" in printed and "+0.000 to +1.000" in printed


def test_models_on_other_users_are_not_compared(scored, tmp_path, capsys):
    other = other_scores(tmp_path / "b.json", marks={**RESULT["marks"], "true": ["+", "-", "-"]})
    output = tmp_path / "scores.json"
    given = ["evaluate", "--model-dir", "m", "--output", str(output), "--against", other]
    assert cli.main(given) == 2
    assert f"{other}: scores on other users" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "not the scores of this version"),
        ("{", "not the scores of this version"),
        ('{"methods": {"uem": {}}, "confusion": {}, "marks": {"true": []}}', "damaged"),
        (json.dumps({**RESULT, "marks": {**RESULT["marks"], "said": ["+"]}}), "damaged"),
        ('{"methods": {"uem": {}}, "confusion": {}}', "did not tell what was said of each user"),
    ],
)
def test_what_cannot_be_compared_with_is_refused_before_the_model_is_loaded(
    text, told, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(model_arguments, "load", lambda _: pytest.fail("was loaded"))
    file = tmp_path / "other.json"
    file.write_text(text)
    assert cli.main(["evaluate", "--model-dir", "m", "--against", str(file)]) == 2
    error = capsys.readouterr().err
    assert told in error and str(file) in error
    assert cli.main(["evaluate", "--model-dir", "m", "--against", str(tmp_path / "none")]) == 1
