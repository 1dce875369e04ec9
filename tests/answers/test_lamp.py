"""LaMP's tasks, from its files to its own form of answers."""

import json

import lamp_files
import pytest
import tiny_recipe

from uem_t5x import cli, train
from uem_t5x.base.errors import InputError
from uem_t5x.data import lamp, source_files, source_joining
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.options import PrepareOptions
from uem_t5x.data.prepare import prepare
from uem_t5x.inputs import users as users_lib

SPLIT_OF = {"train": "train", "dev": "validation", "test": "test"}


def read(path, name):
    return json.loads((path / f"{name}.json").read_text())


def prepared(task, path, **options):
    data = lamp_files.write(task, path / "data", **options)
    return prepare(
        PrepareOptions(
            output=path / "dataset", source=task, data=data, encoder_width=16, vocabulary_size=300
        )
    )


@pytest.mark.parametrize("task", ["lamp-2", "lamp-3"])
def test_every_question_has_its_own_profile(task, tmp_path):
    folder = prepared(task, tmp_path)
    movies = folder.movies()
    for prefix, split in SPLIT_OF.items():
        asked = {
            question["id"]: question for question in read(tmp_path / "data", f"{prefix}_questions")
        }
        users = users_lib.read(folder, split)
        assert sorted(users.ids) == sorted(asked)
        for place, name in enumerate(users.ids):
            items, half_stars = users.history(place)
            texts = [" ".join(movies["description"][row].split()) for row in items.tolist()]
            profile = asked[name]["profile"]
            field = "description" if task == "lamp-2" else "text"
            expected = [" ".join(entry[field].split()) for entry in profile]
            # What is there twice counts where it is last.
            expected = [*reversed(dict.fromkeys(reversed(expected)))]
            assert texts == expected
            assert users.questions[place] == asked[name]["input"]
            if task == "lamp-3":
                assert {stars / 2 for stars in half_stars.tolist()} == {float(profile[0]["score"])}
            else:
                tags = {entry["tag"] for entry in profile}
                assert {tag for row in items.tolist() for tag in movies["genres"][row]} == tags
    golds = {gold["id"]: gold["output"] for gold in read(tmp_path / "data", "dev_outputs")["golds"]}
    users = users_lib.read(folder, "validation")
    assert dict(zip(users.ids, users.answers)) == golds
    assert set(users_lib.read(folder, "test").answers) == {""}
    assert folder.movies()["movieId"].is_unique().all()
    if task == "lamp-2":  # the twelve films that all profiles are of
        assert folder.movies().height == 1 + 12


@pytest.mark.parametrize("task", ["lamp-2", "lamp-3"])
def test_answers_in_lamps_own_form(task, tmp_path, capsys):
    folder = prepared(task, tmp_path)
    places = tiny_recipe.places(tmp_path / "model", folder.path)
    lengths = "TASK_FEATURE_LENGTHS = {'inputs': 96, 'targets': 8, 'history_items': 20, "
    lengths += "'history_ratings': 20}"
    steps = ["VOCAB_SIZE = 300", "TRAIN_STEPS = 4", lengths]
    train.run_recipe([tiny_recipe.RECIPE], [*tiny_recipe.BINDINGS, *places, *steps])
    command = ["evaluate", "--model-dir", str(tmp_path / "model"), "--lamp"]
    for split, prefix in (("test", "test"), ("validation", "dev")):
        file = tmp_path / f"{split}.json"
        output = ["--split", split, "--output", str(tmp_path / "scores.json")]
        assert cli.main([*command, str(file), *output]) == 0
        record = json.loads(file.read_text())
        asked = read(tmp_path / "data", f"{prefix}_questions")
        assert record["task"] == task.replace("lamp-", "LaMP_")
        assert sorted(gold["id"] for gold in record["golds"]) == sorted(q["id"] for q in asked)
    scores = json.loads((tmp_path / "scores.json").read_text())
    golds = {gold["id"]: gold["output"] for gold in read(tmp_path / "data", "dev_outputs")["golds"]}
    if task == "lamp-2":
        right = [gold["output"] == golds[gold["id"]] for gold in record["golds"]]
        assert scores["methods"]["uem"]["accuracy"] == pytest.approx(sum(right) / len(right))
    else:
        assert set(scores["methods"]) == {"uem", "most_frequent", "median"}
        assert scores["methods"]["median"]["mae"] > 0
    assert "no answer is known to the 15 questions" in " ".join(capsys.readouterr().out.split())
    item = folder.movies()["movieId"][3]
    line = {"user_id": 1, "question": "Which?", "history": [{"item": item, "rating": 4}]}
    if task == "lamp-2":
        del line["history"][0]["rating"]
    (tmp_path / "asked.jsonl").write_text(json.dumps(line))
    ask = ["predict", "--model-dir", str(tmp_path / "model"), "--input"]
    assert cli.main([*ask, str(tmp_path / "asked.jsonl")]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 1


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train_questions.json", "{}", "no JSON array of objects; get it anew"),
        ("train_questions.json", '[{"id": "1"', "train_questions.json: no JSON after 0 objects"),
        ("train_questions.json", "[3]", "number 1 is no object"),
        ("train_questions.json", '[{"id": "1", "input": "a"}]', "no output of '1'"),
        ("dev_questions.json", '[{"id": "200", "input": 3.5}', "'200' has no profile of objects"),
        ("dev_outputs.json", '{"golds": []}', "not of the form"),
        ("dev_outputs.json", '{"task": "LaMP_1", "golds": []}', "outputs of 'LaMP_1', and not"),
        ("other_questions.json", "[]", None),
        (
            "dev_outputs.json",
            '{"task": "LaMP_3", "golds": [{"id": "200", "output": "five"}]}',
            "dev_outputs.json: the output of '200' is 'five'; it must be a number",
        ),
        (
            "test_questions.json",
            '[{"id": "1", "input": "a", "profile": []}, {"id": "1", "input": "b", "profile": []}]',
            "test_questions.json: '1' stands for two questions",
        ),
        (
            "test_questions.json",
            '[{"id": "1", "input": "a\\ud800", "profile": []}]',
            "test_questions.json: input holds half a character",
        ),
        ("train_questions.json.gz", "", "are both there; leave one"),
    ],
)
def test_files_that_are_refused(file, text, message, tmp_path):
    data = lamp_files.write("lamp-3", tmp_path / "data")
    (data / file).write_text(text)
    source = source_files.read_source("lamp-3")
    if message is None:
        source_joining.read_source(source, data, 1)
        return
    with pytest.raises(InputError, match=message):
        source_joining.read_source(source, data, 1)


def test_a_value_that_is_none_is_named(tmp_path):
    data = lamp_files.write("lamp-3", tmp_path / "data")
    text = (data / "train_questions.json").read_text().replace('"score": "5"', '"score": "9"', 1)
    (data / "train_questions.json").write_text(text)
    with pytest.raises(InputError, match=r"train_questions.json: '\d+': score is '9'; it must be"):
        source_joining.read_source(source_files.read_source("lamp-3"), data, 1)


def test_profiles_with_dates_are_in_their_order():
    entries = [{"date": "2012-10-3"}, {"date": "2012-9-30"}, {"date": "2011-12-31"}]
    assert [entry["date"] for entry in sorted(entries, key=lamp._date)] == [
        "2011-12-31",
        "2012-9-30",
        "2012-10-3",
    ]


def test_chunks_may_end_anywhere(tmp_path, monkeypatch):
    from uem_t5x.data import json_arrays

    lamp_files.write("lamp-2", tmp_path / "data")
    expected = read(tmp_path / "data", "dev_questions")
    monkeypatch.setattr(json_arrays, "_CHUNK_BYTES", 7)
    with (tmp_path / "data/dev_questions.json").open("rb") as file:
        assert list(json_arrays.read(file, "dev")) == expected


def test_a_folder_is_read_again_as_it_was(tmp_path):
    folder = prepared("lamp-2", tmp_path)
    telling = DatasetFolder.open(folder.path).telling
    assert telling.task == "LaMP_2" and telling.metrics == ("accuracy", "macro_f1")


def test_ids_that_stand_for_several_things(tmp_path, capsys):
    """In a profile, and of questions of two splits; and an output that is nothing."""
    data = lamp_files.write("lamp-3", tmp_path / "data")
    learned = read(data, "train_questions")
    texts = [f"text {number}" for number in range(4)]
    learned[0]["profile"] = [{"id": "5", "text": text, "score": "4"} for text in texts]
    learned[1]["profile"] = [{"id": "5", "text": "text 9", "score": 2}]
    (data / "train_questions.json").write_text(json.dumps(learned))
    asked = read(data, "test_questions")
    asked[0]["id"] = learned[2]["id"]
    asked[1]["profile"] = []
    (data / "test_questions.json").write_text(json.dumps(asked))
    outputs = read(data, "train_outputs")
    outputs["golds"][3]["output"] = None
    (data / "train_outputs.json").write_text(json.dumps(outputs))
    folder = prepare(
        PrepareOptions(
            output=tmp_path / "dataset",
            source="lamp-3",
            data=data,
            encoder_width=16,
            vocabulary_size=300,
        )
    )
    assert folder.manifest.counts["dropped_unanswered_questions"] == 1
    users = users_lib.read(folder, "train")
    texts_of = folder.movies()["description"]
    for question, expected in ((learned[0], texts), (learned[1], ["text 9"])):
        items, _ = users.history(users.ids.index(question["id"]))
        assert [texts_of[row] for row in items.tolist()] == expected
    places = tiny_recipe.places(tmp_path / "model", folder.path)
    steps = ["VOCAB_SIZE = 300", "TRAIN_STEPS = 1", "EVAL_PERIOD = 0"]
    train.run_recipe([tiny_recipe.RECIPE], [*tiny_recipe.BINDINGS, *places, *steps])
    lamp_file = tmp_path / "lamp.json"
    command = ["evaluate", "--model-dir", str(tmp_path / "model"), "--split", "test"]
    assert cli.main([*command, "--lamp", str(lamp_file)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "no answer is known to the 14 questions: no scores" in printed
    assert "1 questions of LaMP, of all splits, have no profile" in printed
    answered = {gold["id"] for gold in json.loads(lamp_file.read_text())["golds"]}
    assert answered == {question["id"] for question in asked} - {asked[1]["id"]}
