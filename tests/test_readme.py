"""What the README shows of Python is run as it stands."""

import re
from pathlib import Path

import numpy as np
import tiny_recipe

from uem_t5x import train

PAGE = Path(__file__).parents[1] / "README.md"
PYTHON, ATTENTION = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
SMALL = [*tiny_recipe.BINDINGS, "TRAIN_STEPS = 1", "EVAL_PERIOD = 0"]


def test_from_python(dataset_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = tiny_recipe.places("runs/uem-50", dataset_folder.path)
    train.run_recipe([tiny_recipe.RECIPE], [*SMALL, *places])
    movies = dataset_folder.movies()["movieId"].to_list()
    names = {}
    exec(
        PYTHON.replace("260", str(movies[2])).replace('"movieId": 1,', f'"movieId": {movies[1]},'),
        names,
    )
    assert names["told"]["answer"] == names["again"]["answer"]
    assert len(names["told"]["weights"]) == 2 and names["vectors"].ndim == 3


def test_looking_at_attention(dataset_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = tiny_recipe.places("runs/uem-50", dataset_folder.path)
    train.run_recipe([tiny_recipe.RECIPE], [*SMALL, *places])
    capsys.readouterr()
    names = {}
    exec(ATTENTION, names)
    assert capsys.readouterr().out.startswith("[[")
    prompts, weights, module = names["prompts"], names["weights"], names["model"].module
    tokens = np.count_nonzero(names["answer"])
    np.testing.assert_allclose(weights[0, :, :tokens].sum(axis=-1), 1, rtol=1e-4)
    assert (weights[0, :, :tokens, prompts : prompts + 3] > 0).all()
    assert (weights[0, :, :tokens, prompts + 3 : prompts + 20] == 0).all()  # no more items

    # The page's other claims.
    _, seen = module.apply(
        {"params": names["trained"].params, **names["item_table"]},
        names["batch"]["encoder_input_tokens"],
        names["batch"],
        method="encode",
        enable_dropout=False,
        mutable=["intermediates"],
        capture_intermediates=True,
    )
    for stack in (seen["intermediates"], seen["intermediates"]["user_embedding"]):
        attention = stack["encoder"]["layers_0"]["attention"]
        assert {"attention_weights", "__call__"} <= set(attention)
