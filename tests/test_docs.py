"""What docs/your_data.md shows is run as it stands."""

import gzip
import random
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import seqio
import tiny_recipe

from uem_t5x import cli, network, train
from uem_t5x.answers import evaluate, predict
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.data import synthetic
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.inputs import batches, data_sources
from uem_t5x.inputs import users as users_lib

PAGE = Path(__file__).parents[1] / "docs/your_data.md"
CHANNEL, TASK, PROMPT, ADAPTER, PYTHON = re.findall(
    r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL
)
SHOP, _, ASKED = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
RECIPES = re.findall(r"```\n(from __gin__.*?)```", PAGE.read_text(), re.DOTALL)
OF_A_TASK, OF_A_MODEL, OF_A_PROMPT, OF_AN_ADAPTER = RECIPES
SMALL = [*tiny_recipe.BINDINGS, "TRAIN_STEPS = 1", "EVAL_PERIOD = 0"]


@pytest.fixture
def mine(dataset_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(dataset_folder.path, tmp_path / "runs/mine")


def test_data_of_a_shop(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    kinds = ["Toys", "Tools", "Music"]
    products = [f"s{number:02d},Thing {number},{kinds[number % 3]}" for number in range(40)]
    rows = [
        f"c{user},s{item:02d},2024-01-{day:02d}T10:00:00,{draw.choice((1, 5))}"
        for user in range(30)
        for day, item in enumerate(draw.sample(range(40), 25), start=1)
    ]
    (tmp_path / "FOLDER/ratings").mkdir(parents=True)
    (tmp_path / "FOLDER/products.csv").write_text("\n".join(["sku,name,category", *products, ""]))
    for part, some in enumerate((rows[:400], rows[400:])):
        text = "\n".join(["customer,sku,rated_at,stars", *some, ""])
        file = tmp_path / f"FOLDER/ratings/part{part}.csv.gz"
        file.write_bytes(gzip.compress(text.encode()))
    (tmp_path / "shop.toml").write_text(SHOP)
    arguments = ["prepare", "--source", "shop.toml", "--data", "FOLDER"]
    assert cli.main([*arguments, "--check"]) == 0
    assert "Music, Tools, Toys" in capsys.readouterr().out
    assert cli.main([*arguments, "--output", "runs/shop"]) == 0
    folder = DatasetFolder.open("runs/shop")
    asked = [f"c{user},toy,Thing,2024-02-01" for user in range(30)]
    (tmp_path / "FOLDER/asked.csv").write_text("\n".join(["customer,what,bought,asked_at", *asked]))
    (tmp_path / "asked.toml").write_text(SHOP + ASKED)
    arguments = ["prepare", "--source", "asked.toml", "--data", "FOLDER"]
    assert cli.main([*arguments, "--output", "runs/asked"]) == 0
    assert DatasetFolder.open("runs/asked").manifest.counts["questions"] == 30
    assert folder.manifest.counts["ratings"] == 750
    assert folder.movies()["movieId"].to_list()[1] == "s00"


def test_a_channel_of_ones_own(mine):
    exec(CHANNEL, {"my_vector": lambda movie: np.full(64, movie)})
    arguments = ["--name", "poster", "--vectors", "posters.parquet"]
    assert cli.main(["channel", "add", "runs/mine", *arguments]) == 0
    folder = DatasetFolder.open(mine)
    assert [channel.name for channel in folder.channels][-1] == "poster"
    np.testing.assert_allclose(folder.embeddings()["poster"][1:, 5], 1 / 8)  # of unit length


def train_small(recipe, folder, leaves_out=("UEM_LAYERS",)):
    Path("own.gin").write_text(recipe)
    small = [binding for binding in SMALL if not binding.startswith(leaves_out)]
    train.run_recipe(["own.gin"], [*small, *tiny_recipe.places("runs/model", folder)])
    return TrainedModel.load("runs/model")


def test_a_task_of_ones_own(mine, monkeypatch):
    Path("my_tasks.py").write_text(TASK)
    monkeypatch.syspath_prepend(Path.cwd())
    try:
        trained = train_small(OF_A_TASK, mine)
        assert (trained.task, trained.history_length) == ("my_task_50", 50)
        config = batches.DatasetConfig(trained.task, trained.feature_lengths, "test", 64)
        folder = DatasetFolder.open(mine)
        users = users_lib.read(folder, "test")
        with data_sources.use_dataset_folder(folder):
            (features,) = batches.eval_batches(config, trained.model.FEATURE_CONVERTER_CLS)
        asked = trained.model.input_vocabulary.decode(features["encoder_input_tokens"][0].tolist())
        assert asked.startswith(
            "What does this user like"
        )  # few tokens of the folder's own know `?`
        for user, items in enumerate(features["history_items"]):
            np.testing.assert_array_equal(items[items > 0], users.history(user)[0][-50:])
        assert evaluate.evaluate(trained, "test")["history_length"] == 50
    finally:
        seqio.TaskRegistry.remove("my_task_50")
        sys.modules.pop("my_tasks", None)


def test_a_model_of_ones_own(mine):
    trained = train_small(OF_A_MODEL, mine)
    assert set(trained.params["user_embedding"]["encoder"]) >= {"layers_0", "layers_1"}


def test_a_soft_prompt_of_ones_own(mine, monkeypatch):
    Path("my_prompt.py").write_text(PROMPT)
    monkeypatch.syspath_prepend(Path.cwd())
    try:
        trained = train_small(OF_A_PROMPT, mine, leaves_out=("UEM_LAYERS", "user_embedding."))
        assert set(trained.params) == {*network.LANGUAGE_MODEL, "projection"}
        lengths = {"history_items": 20, "history_ratings": 20}
        assert trained.model.module.soft_prompt.length(lengths, 16) == 1
        users = [predict.User("u", (5, 6), (9, 2)), predict.User("v", (7,), (9,))]
        assert [answer["items"] for answer in predict.predict(trained, users)] == [2, 1]
    finally:
        sys.modules.pop("my_prompt", None)


def test_an_adapter_of_ones_own(mine, monkeypatch):
    Path("my_adapter.py").write_text(ADAPTER)
    monkeypatch.syspath_prepend(Path.cwd())
    try:
        trained = train_small(OF_AN_ADAPTER, mine)
        assert set(trained.params["user_embedding"]) == {"projection"}
        lengths = {"history_items": 20, "history_ratings": 20}
        soft_prompt = trained.model.module.soft_prompt
        assert soft_prompt.length(lengths, 16) == soft_prompt.prompt_length + 5
        users = [predict.User("u", (5, 6), (9, 2)), predict.User("v", (7,), (9,))]
        assert [answer["items"] for answer in predict.predict(trained, users)] == [2, 1]
    finally:
        sys.modules.pop("my_adapter", None)


def test_in_python(dataset_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    movielens = dataset_folder.path.parent / "movielens"
    Path("ml-latest-small").symlink_to(movielens)
    Path("descriptions.csv").symlink_to(movielens / synthetic.DESCRIPTIONS)
    run_recipe = train.run_recipe
    monkeypatch.setattr(train, "run_recipe", lambda files, given: run_recipe(files, given + SMALL))
    names = {}
    exec(PYTHON, names)
    assert names["scores"]["split"] == "validation"
    assert capsys.readouterr().out.endswith(names["answer"]["answer"] + "\n")
    assert names["answer"]["items"] == 2
