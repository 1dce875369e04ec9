"""Questions of one's own, from tables to scores and answers."""

import json

import own_questions
import pytest
import tiny_recipe

from uem_t5x import cli, train
from uem_t5x.answers import evaluate
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.base.errors import InputError
from uem_t5x.data.options import PrepareOptions
from uem_t5x.data.prepare import prepare
from uem_t5x.runs import finished


def make(path, name, future=0):
    data = own_questions.write(path / f"data {future}", users=120, future=future)
    return prepare(
        PrepareOptions(
            output=path / name,
            source=str(data / "asked.toml"),
            data=data,
            encoder_width=16,
            vocabulary_size=200,
            test_users=0.2,
        )
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("questions")
    folder = make(path, "dataset")
    for name, recipe in {"uem": tiny_recipe.RECIPE, "text": "gin/text_tiny.gin"}.items():
        places = tiny_recipe.places(path / name, folder.path)
        network = [line for line in tiny_recipe.BINDINGS if name == "uem" or "UEM" not in line]
        network = [line for line in network if name == "uem" or "user_embedding" not in line]
        task = f"MIXTURE_OR_TASK_NAME = 'histories_{name}_20'"
        steps = ["VOCAB_SIZE = 200", "TRAIN_STEPS = 60", "EVAL_PERIOD = 20", "WARMUP_STEPS = 5"]
        steps += ["TASK_FEATURE_LENGTHS = {'inputs': 192, 'targets': 8}"] if name == "text" else []
        bindings = [*network, *places, *steps, task, "CHECKPOINT_PERIOD = 20"]
        train.run_recipe([recipe], bindings)
    return path


@pytest.mark.parametrize("name", ["uem", "text"])
def test_answers_are_scored_by_the_metrics_of_the_source(path, name, tmp_path, capsys):
    output, answers = tmp_path / "metrics.json", tmp_path / "answers.jsonl"
    flags = ["--model-dir", str(path / name), "--output", str(output), "--answers", str(answers)]
    assert cli.main(["evaluate", *flags]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "accuracy" in printed and "the most frequent answer" in printed
    scores = json.loads(output.read_text())
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(rows) == scores["examples"] > 10 and scores["unknown"] == 0
    right = [row["answer"].strip() == row["true_answer"] for row in rows]
    assert scores["methods"][name]["accuracy"] == pytest.approx(sum(right) / len(rows))
    assert set(scores["methods"]) == {name, "most_frequent"}
    assert scores["methods"]["most_frequent"]["accuracy"] > 0.2
    low, high = scores["intervals"][name]["accuracy"]
    assert low <= scores["methods"][name]["accuracy"] <= high
    assert {row["answer"] for row in rows} <= set(own_questions.KINDS)  # that is what it learned
    assert rows[0]["question"].startswith("What will somebody who asks for ")
    told = finished.read_scores(output)
    assert finished.scores_of_the_model(told) == scores["methods"][name]
    assert cli.main(["evaluate", *flags[:2], "--against", str(output)]) == 0
    assert "+0.000" in capsys.readouterr().out


def test_the_best_checkpoint_is_that_of_the_first_metric(path):
    lines = (path / "uem/inference_eval/histories_uem_20-metrics.jsonl").read_text().splitlines()
    by_step = {row["step"]: row for row in map(json.loads, lines)}
    assert all(row["score"] == row["accuracy"] for row in by_step.values())
    best = max(row["accuracy"] for row in by_step.values())
    chosen = TrainedModel.load(path / "uem")
    assert by_step[chosen.step]["accuracy"] == best


def test_a_later_item_never_reaches_the_model(path):
    """The same questions, asked of folders whose users go on in different ways."""
    other = make(path, "other future", future=1)
    trained = TrainedModel.load(path / "uem")
    first = evaluate.evaluate(trained, "test")
    second = evaluate.evaluate(trained, "test", data_dir=str(other.path))
    assert {name: first[name] for name in ("said", "items_read", "users", "split_sha256")} == {
        name: second[name] for name in ("said", "items_read", "users", "split_sha256")
    }


def test_a_question_is_asked_with_each_history(path, tmp_path, capsys):
    history = [{"item": f"s{item}", "rating": 4} for item in range(5)]
    question = "What will somebody who asks for light buy next?"
    lines = [
        {"user_id": "a", "question": question, "history": history},
        {"user_id": "b", "history": history},
        {"user_id": "c", "question": "word " * 100, "history": history},
        {"user_id": "d", "question": question, "history": []},
        {"user_id": "e", "question": "a\ud800b", "history": history},
    ]
    file = tmp_path / "asked.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    assert cli.main(["predict", "--model-dir", str(path / "uem"), "--input", str(file)]) == 2
    out, err = capsys.readouterr()
    answered = {row["user_id"]: row for row in map(json.loads, out.splitlines())}
    assert answered["a"].keys() == {"user_id", "answer", "items", "known", "described", "dropped"}
    assert answered["a"]["answer"] in own_questions.KINDS and answered["a"]["items"] == 5
    assert answered["c"]["question_tokens_lost"] > 50
    assert answered["d"]["answer"] == "Nothing is known of this user's taste."
    assert "line 2: no question; the model answers some" in err
    assert "line 5: the question holds half a character" in err


def test_folders_that_ask_otherwise_are_refused(path, dataset_folder):
    trained = TrainedModel.load(path / "uem")
    with pytest.raises(InputError, match=r"not the catalogue|asks of tastes"):
        evaluate.evaluate(trained, data_dir=str(dataset_folder.path))


def test_other_forms_of_answers_are_lamps(path, tmp_path, capsys):
    lamp = str(tmp_path / "lamp.json")
    assert cli.main(["evaluate", "--model-dir", str(path / "uem"), "--lamp", lamp]) == 2
    assert "is of no task of LaMP; give --answers FILE" in capsys.readouterr().err


def test_a_report_leaves_them_out(path, tmp_path, capsys):
    run = path / "uem"
    assert cli.main(["evaluate", "--model-dir", str(run), "--output", f"{run}/metrics.json"]) == 0
    assert cli.main(["report", str(run), "--output", str(tmp_path / "report")]) == 2
    assert "whose scores `uem-t5x evaluate --against` compares" in capsys.readouterr().err
