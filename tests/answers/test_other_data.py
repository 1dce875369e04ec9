"""Data that are no movies, from the tables to answers: own ids, own words, own numbers."""

import json

import published_forms
import pytest
import tiny_recipe

from uem_t5x import cli, train
from uem_t5x.data.options import PrepareOptions
from uem_t5x.data.prepare import prepare


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("amazon")
    data = published_forms.write("amazon-reviews-2023", path / "data")
    folder = prepare(
        PrepareOptions(
            output=path / "dataset",
            source="amazon-reviews-2023",
            data=data,
            encoder_width=16,
            vocabulary_size=600,
            test_users=0.2,
        )
    )
    places = tiny_recipe.places(path / "model", folder.path)
    vocabulary = "VOCAB_SIZE = 600"
    bindings = [*tiny_recipe.BINDINGS, *places, vocabulary, "TRAIN_STEPS = 2"]
    train.run_recipe([tiny_recipe.RECIPE], bindings)
    return path / "model"


def test_scores_beside_the_rule_of_the_source(model_dir, tmp_path, capsys):
    output = tmp_path / "metrics.json"
    answers = tmp_path / "answers.jsonl"
    flags = ["--model-dir", str(model_dir), "--output", str(output), "--answers", str(answers)]
    assert cli.main(["evaluate", *flags]) == 0
    scores = json.loads(output.read_text())
    assert scores["methods"]["rule"]["f1"] > 0.9
    for row in map(json.loads, answers.read_text().splitlines()):
        assert row["user_id"].startswith("AE0000")
        assert row["answer"].startswith("The customer ")


def test_histories_of_ones_own_ids_are_answered(model_dir, tmp_path, capsys):
    histories = [
        {"item": "B000000001", "rating": 4},
        {"item": "B000000002", "rating": 1.0},
        {"item": "B0NOWHERE", "rating": 5},
        {"title": "A new product", "classes": ["Alpha"], "description": "Blue.", "rating": 2},
    ]
    file = tmp_path / "histories.jsonl"
    file.write_text(json.dumps({"user_id": "AE7", "history": histories}))
    assert cli.main(["predict", "--model-dir", str(model_dir), "--input", str(file)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["user_id"], answer["items"], answer["known"]) == ("AE7", 3, 2)
    assert (answer["described"], answer["dropped"], answer["unknown_items"]) == (1, 1, 1)
    assert answer["answer"].startswith("The customer ")
    assert set(answer["liked"]) <= {"All Beauty", "Alpha", "Beta", "Epsilon", "Gamma & Delta"}


def test_tables_and_reports_speak_of_classes(model_dir, tmp_path, capsys):
    output = model_dir / "metrics.json"
    assert cli.main(["evaluate", "--model-dir", str(model_dir), "--output", str(output)]) == 0
    assert "the model by class" in capsys.readouterr().out
    assert cli.main(["report", str(model_dir), "--output", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report/report.html").read_text()
    assert "By class" in page and "rated items" in page
    about_the_paper = page.split("Beside the paper</h3>")[1].split("</section>")[0]
    rest = page.replace(about_the_paper, "").replace("how ties between genres are broken", "")
    assert "genre" not in rest.replace('id="genres"', "").replace('href="#genres"', "")
