"""Programs of a model, run by JAX alone in a process of its own, give the model's own answers."""

import json
import subprocess
import sys

import numpy as np
import pytest

from uem_t5x import cli
from uem_t5x.answers.model import Model

ALONE = """
import json, sys
import jax, numpy as np
from jax import export
from safetensors.numpy import load_file

folder, features, output = sys.argv[1:]
weights = load_file(f"{folder}/weights.safetensors")
features = dict(np.load(features))
results = {}
for name in json.load(open(f"{folder}/programs.json"))["programs"]:
    with open(f"{folder}/{name}.stablehlo", "rb") as file:
        program = export.deserialize(file.read())
    assert program.platforms == ("cpu", "cuda", "tpu")
    for part, values in program.call(weights, features).items():
        results[f"{name}/{part}"] = np.asarray(values)
np.savez(output, **results)
assert not any(name.startswith(("uem_t5x", "tensorflow", "seqio", "gin")) for name in sys.modules)
"""


@pytest.fixture(scope="module")
def exported(undisturbed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs") / "out"
    command = ["export", "--model-dir", str(undisturbed[0]), "--step", "6", "--output", str(folder)]
    assert cli.main([*command, "--format", "stablehlo"]) == 0
    return folder


@pytest.mark.parametrize("users", [1, 5])
def test_answers_and_vectors_are_the_models(exported, trained, users, tmp_path):
    examples = [
        {"user_id": b"", "history_items": [1 + n, 4, 9], "history_ratings": [9, 2 + n, 5]}
        for n in range(users)
    ]
    features = trained.ask(examples).features
    given = {name: features[name] for name in features if name != "decoder_target_tokens"}
    np.savez(tmp_path / "features.npz", **given)
    record = json.loads((exported / "programs.json").read_text())
    assert record["features"].keys() == given.keys()
    for name, described in record["features"].items():
        assert described["shape"] == ["b", *given[name].shape[1:]]
    places = [exported, tmp_path / "features.npz", tmp_path / "results.npz"]
    subprocess.run([sys.executable, "-c", ALONE, *map(str, places)], check=True)
    results = np.load(tmp_path / "results.npz")
    vocabulary = trained.model.output_vocabulary
    answers = [vocabulary.decode(tokens) for tokens in results["answer/tokens"].tolist()]
    assert answers == trained.answerer(8)(features)
    model = Model(trained)
    movies = trained.catalogue.movies()["movieId"].to_list()
    histories = [
        [
            {"movieId": movies[row], "rating": stars / 2}
            for row, stars in zip(example["history_items"], example["history_ratings"])
        ]
        for example in examples
    ]
    vectors = np.where(results["embed/mask"][..., None], results["embed/embeddings"], 0)
    np.testing.assert_allclose(vectors, model.embed(histories), atol=1e-5)
