"""`uem-t5x predict` and `uem-t5x evaluate`, with a trained model."""

import concurrent.futures
import io
import json
import os
import shutil

import other_folders
import pytest

from uem_t5x import cli
from uem_t5x.answers import predict
from uem_t5x.data import seal
from uem_t5x.inputs import users as users_lib
from uem_t5x.tastes import verbalizer


@pytest.mark.parametrize("size", ["0", "-1", "3"])
def test_batches_that_devices_cannot_share(size, undisturbed, tmp_path, capsys):
    histories, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    histories.write_text('{"user_id": "a", "history": []}\n')
    output.write_text("as it was")
    for command in (
        ["predict", "--input", str(histories), "--output", str(output)],
        ["evaluate", "--split", "validation"],
    ):
        arguments = ["--model-dir", str(undisturbed[0]), f"--batch-size={size}"]
        assert cli.main([*command, *arguments]) == 2
        assert f"--batch-size={size}" in capsys.readouterr().err
    assert output.read_text() == "as it was"


def test_a_task_of_other_features_is_not_asked(undisturbed, tmp_path, capsys):
    histories = tmp_path / "in.jsonl"
    histories.write_text('{"user_id": "a", "history": []}\n')
    task = ["--model-dir", str(undisturbed[0]), "--task", "movielens_genres_text_5"]
    for command in (["predict", "--input", str(histories)], ["evaluate"]):
        assert cli.main([*command, *task]) == 2
        told = capsys.readouterr().err
        assert "movielens_genres_text_5: a task of inputs, targets, where the model" in told


def test_histories_are_not_overwritten(undisturbed, tmp_path, capsys):
    histories = tmp_path / "in.jsonl"
    histories.write_text('{"user_id": "a", "history": []}\n')
    before = histories.read_bytes()
    model = ["--model-dir", str(undisturbed[0]), "--input", str(histories)]
    assert cli.main(["predict", *model, "--output", f"{tmp_path}/../{tmp_path.name}/in.jsonl"])
    assert "the histories lie there" in capsys.readouterr().err
    assert histories.read_bytes() == before


def test_histories_may_come_from_a_pipe(undisturbed, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    line = '{"user_id": "a", "history": [{"movieId": 1, "rating": 4.5}]}\n'
    with concurrent.futures.ThreadPoolExecutor() as pool:
        pool.submit((tmp_path / "pipe").write_text, line)
        arguments = ["--model-dir", str(undisturbed[0]), "--input", str(tmp_path / "pipe")]
        assert cli.main(["predict", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 1
    assert cli.main(["predict", "--model-dir", "m", "--input", str(tmp_path)]) == 2
    assert f"{tmp_path}: a folder; give JSON lines" in capsys.readouterr().err


def test_the_predict_command_reports_bad_lines_and_answers_the_others(
    undisturbed, tmp_path, capsys
):
    lines = [
        '{"user_id": "a", "history": [{"movieId": 1, "rating": 4.5}]}',
        "nonsense",
        '{"user_id": "b", "history": []}',
    ]
    histories, answers = tmp_path / "in.jsonl", tmp_path / "out/answers.jsonl"
    histories.write_text("\n".join(lines))
    arguments = ["predict", "--model-dir", str(undisturbed[0]), "--input", str(histories)]
    assert cli.main([*arguments, "--output", str(answers)]) == 2
    error = capsys.readouterr().err
    assert f"{histories}: line 2: no JSON" in error
    answered = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [answer["user_id"] for answer in answered] == ["a", "b"]
    assert [answer["items"] for answer in answered] == [1, 0]


def test_the_predict_command_reads_stdin_and_writes_stdout(undisturbed, capsys, monkeypatch):
    lines = [
        '{"user_id": "a", "history": [{"movieId": 1, "rating": 4.5}]}',
        '{"user_id": "b", "history": []}',
    ]
    stdin = io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    arguments = ["predict", "--model-dir", str(undisturbed[0]), "--input", "-"]
    assert cli.main([*arguments, "--step", "4"]) == 0
    answered = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(answer["user_id"], answer["items"]) for answer in answered] == [("a", 1), ("b", 0)]
    # After four steps it writes no such sentence by itself.
    sentence = verbalizer.write_answer(answered[0]["liked"], answered[0]["disliked"])
    assert answered[0]["answer"] == sentence
    assert answered[1]["answer"] == predict.NOTHING_KNOWN


def test_the_predict_command_knows_titles_and_times(undisturbed, trained, capsys, monkeypatch):
    movies = trained.catalogue.movies().rows(named=True)[1:9]
    rated = [{"rating": 1 + at % 5, "timestamp": at} for at, _ in enumerate(movies)]
    known = [{**item, "movieId": movie["movieId"]} for item, movie in zip(rated, movies)]
    titled = [{**item, "title": movie["title"]} for item, movie in zip(rated, movies)]
    others = [
        {"movieId": 10**6, "rating": 3, "timestamp": 1},
        {"title": "Space War", "rating": 3, "timestamp": 2},
    ]
    histories = [known, known[::-1], titled[::-1], [*known, {**known[0], "rating": 2}, *others]]
    lines = [json.dumps({"user_id": 2**63, "history": history}) for history in histories]
    stdin = io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    arguments = ["predict", "--model-dir", str(undisturbed[0]), "--input", "-"]
    assert cli.main(arguments) == 0
    *same, other = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert same == [same[0]] * 3
    counts = ("items", "known", "described", "dropped", "unknown_items")
    assert [same[0].get(count) for count in counts] == [8, 8, 0, 0, None]
    assert [other.get(count) for count in counts] == [9, 8, 1, 2, 1]
    assert other["user_id"] == 2**63


def test_the_predict_command_writes_json_to_a_terminal_of_ascii(undisturbed, monkeypatch):
    user = {"user_id": "Zo\u00eb \U0001f600", "history": []}
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps(user).encode()))
    stdout = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdin", stdin)
    monkeypatch.setattr("sys.stdout", stdout)
    arguments = ["predict", "--model-dir", str(undisturbed[0]), "--input", "-"]
    assert cli.main(arguments) == 0
    assert json.loads(stdout.buffer.getvalue().decode("ascii"))["user_id"] == user["user_id"]


def test_the_predict_command_takes_the_asked_step(undisturbed, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    arguments = ["predict", "--model-dir", str(undisturbed[0]), "--input", "-", "--step", "5"]
    assert cli.main(arguments) == 2
    assert "no checkpoint of step 5; it has 4, 6" in capsys.readouterr().err


def test_the_evaluate_command_writes_the_scores(undisturbed, dataset_folder, tmp_path):
    output = tmp_path / "scores/metrics.json"
    arguments = ["evaluate", "--model-dir", str(undisturbed[0]), "--batch-size", "8"]
    assert cli.main([*arguments, "--output", str(output)]) == 0
    scores = json.loads(output.read_text())
    assert set(scores["methods"]["uem"]) >= {"f1", "precision", "recall", "liked_f1"}
    assert len(scores["per_genre"]) == 2 * len(dataset_folder.genres)


def test_the_evaluate_command_scores_what_it_is_asked_for(undisturbed, dataset_folder, tmp_path):
    """The users of another folder, an earlier step, and answers that can be read back."""
    other = shutil.copytree(dataset_folder.path, tmp_path / "other")
    other_folders.swap(other, "validation", "test")
    seal.seal(other)
    output, answers = tmp_path / "metrics.json", tmp_path / "answers.jsonl"
    arguments = ["evaluate", "--model-dir", str(undisturbed[0]), "--split", "validation"]
    arguments += ["--data-dir", str(other), "--step", "4", "--batch-size=8"]
    assert cli.main([*arguments, "--output", str(output), "--answers", str(answers)]) == 0
    scores = json.loads(output.read_text())
    assert (scores["step"], scores["split"]) == (4, "validation")
    assert scores["methods"]["uem"]["unparseable"] == 0
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [row["user_id"] for row in rows] == users_lib.read(dataset_folder, "test").ids
    for row in rows:
        assert row["answer"] == verbalizer.write_answer(row["liked"], row["disliked"])
