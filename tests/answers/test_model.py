"""A trained model as a Python object: the answers of `predict`, vectors, and what they rest on."""

import concurrent.futures
import doctest
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import uem_t5x
from uem_t5x import cli
from uem_t5x.answers import evaluate, predict, user_vectors
from uem_t5x.answers import model as model_lib
from uem_t5x.answers.user_lines import User
from uem_t5x.base.errors import InputError
from uem_t5x.inputs import users as users_lib
from uem_t5x.network.item_table import ItemTable


@pytest.fixture(scope="module")
def model(undisturbed):
    return uem_t5x.load(undisturbed[0], step=6)


@pytest.fixture(scope="module")
def histories(model):
    ids = model.trained.catalogue.movies()["movieId"].to_list()[1:]
    draw = np.random.default_rng(0)
    return [
        [
            {"movieId": int(movie), "rating": float(draw.integers(1, 11)) / 2}
            for movie in draw.choice(ids, draw.integers(1, 30), replace=False)
        ]
        for _ in range(45)
    ]


def test_docstrings_are_as_they_say(model, undisturbed):
    ids = model.trained.catalogue.movies()["movieId"].to_list()
    assert {1, 2} <= set(ids)
    names = {"model": model, "uem_t5x": uem_t5x, "model_dir": undisturbed[0]}
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    tests = [test for test in finder.find(model_lib, globs=names) if test.examples]
    assert len(tests) >= 6
    for test in tests:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_answers_are_those_of_predict(model, histories):
    rows = dict(model.trained.catalogue.movies().select("movieId", "row").iter_rows())
    users = [
        User(
            number,
            tuple(rows[rated["movieId"]] for rated in history),
            tuple(int(2 * rated["rating"]) for rated in history),
        )
        for number, history in enumerate(histories)
    ]
    expected = list(predict.predict(model.trained, users, batch_size=16))
    records = [{"user_id": number, "history": history} for number, history in enumerate(histories)]
    assert model.answer_all(records) == expected
    alone = model.answer(histories[7])
    assert {"user_id": 7, **alone} == expected[7]


def test_answers_of_vectors_are_those_of_histories(model, histories):
    vectors = model.embed(histories)
    assert vectors.dtype == np.float32 and vectors.shape[:2] == (45, 24 + 20)
    given = model.answer_vectors(vectors)
    expected = model.answer_all({"history": history} for history in histories)
    assert [told["answer"] for told in given] == [told["answer"] for told in expected]
    assert [told["liked"] for told in given] == [told["liked"] for told in expected]
    one = model.embed(histories[3:4])
    np.testing.assert_allclose(one[0], vectors[3], atol=1e-5)  # whatever it is padded to


def test_vectors_are_what_the_encoder_reads(model, histories):
    trained = model.trained
    examples, _ = predict.ItemEncoder(trained).examples(model._read([{"history": histories[0]}]))
    batch = trained.ask(examples).features
    variables = {"params": trained.model.as_run(trained.params), **trained.flax_mutables}
    prompt, mask = trained.model.module.apply(
        variables, batch, enable_dropout=False, method="prompt"
    )
    vectors = model.embed(histories[:1])
    np.testing.assert_allclose(vectors[0][mask[0]], np.asarray(prompt[0])[mask[0]], atol=1e-5)
    assert not vectors[0][~np.asarray(mask[0])].any()
    pooled = model.embed(histories[:1], pooled=True)
    of_items = np.asarray(mask[0]) & (np.arange(44) >= 24)
    np.testing.assert_allclose(pooled[0], vectors[0][of_items].mean(axis=0), rtol=1e-4, atol=1e-6)


def test_weights_are_gradients_times_inputs(model, histories):
    """Against finite differences of a likelihood whose vectors are scaled by hand."""
    history = histories[0]
    told = model.answer(history, explain=True)
    read = history[-20:]
    assert [weighed["item"] for weighed in told["weights"]] == [r["movieId"] for r in read]
    described = {"title": "New", "genres": [], "description": "A film.", "rating": 2}
    weighed = model.answer([history[0], described], explain=True)["weights"]
    assert [one["item"] for one in weighed] == [history[0]["movieId"], None]
    assert weighed[1]["title"] == "New" and all(one["weight"] for one in weighed)
    trained = model.trained
    examples, _ = predict.ItemEncoder(trained).examples(model._read([{"history": history}]))
    batch = dict(trained.ask(examples).features)
    vocabulary, length = trained.model.output_vocabulary, batch["decoder_target_tokens"].shape[1]
    tokens = [*vocabulary.encode(told["answer"]), vocabulary.eos_id][:length]
    batch["decoder_target_tokens"] = np.pad(tokens, (0, length - len(tokens)))[None].astype("i4")
    looked_up = ItemTable.__call__

    def likelihood(factors):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                ItemTable,
                "__call__",
                lambda self, *args: looked_up(self, *args) * jnp.asarray(factors)[None, :, None],
            )
            params = trained.model.as_run(trained.params)
            return float(trained.model.score_batch(params, batch, trained.flax_mutables)[0])

    with jax.disable_jit():
        for place in (0, len(read) - 1):
            up, down = np.ones(20, "f4"), np.ones(20, "f4")
            up[place], down[place] = 1.05, 0.95
            slope = (likelihood(up) - likelihood(down)) / 0.1
            assert told["weights"][place]["weight"] == pytest.approx(slope, rel=0.1, abs=2e-3)


def test_attention_is_that_of_every_layer(model, histories):
    seen = model.attention(histories[0])
    assert {"encoder/layers_0/attention", "user_embedding/encoder/layers_0/attention"} <= {
        name.replace("user_embedding/layers", "user_embedding/encoder/layers") for name in seen
    }
    for weights in seen.values():
        assert weights.ndim == 3
        np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-4)


def test_threads_get_their_own_answers(model, histories):
    expected = [model.answer(history) for history in histories[:12]]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(model.answer, histories[:12])) == expected


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([{"movieId": 1}], "user 0: item 1 of the history: rating None is not a number"),
        ([{"rating": 3}], "user 0: item 1 of the history: neither a movieId nor a title"),
    ],
)
def test_histories_that_are_none(model, history, message):
    with pytest.raises(InputError, match=message):
        model.answer(history)
    with pytest.raises(InputError, match=message):
        model.embed([history])
    with pytest.raises(InputError, match=r'user 1: expected {"history": \[...\]}'):
        model.answer_all([{"history": []}, {"histories": []}])


def test_vectors_that_are_none(model):
    with pytest.raises(InputError, match=r"vectors of shape \[2, 3\]: give \[users, tokens, 16\]"):
        model.answer_vectors(np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match="the model was trained on one question"):
        model.answer([{"movieId": 1, "rating": 3}], question="Why?")
    assert model.answer([])["items"] == 0
    assert model.embed([]).shape == (0, 16)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_vectors_on_the_disk(model, histories, undisturbed, pooled, suffix, tmp_path, capsys):
    lines = [json.dumps({"user_id": f"ü{n}", "history": h}) for n, h in enumerate(histories[:3])]
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, "{}"]), encoding="utf-8")
    file = tmp_path / f"users.{suffix}"
    command = ["embed", "--model-dir", str(undisturbed[0]), "--step", "6", "--output", str(file)]
    command += ["--pooled"] if pooled else []
    assert cli.main([*command, "--input", str(tmp_path / "in.jsonl")]) == 2
    captured = capsys.readouterr()
    assert "in.jsonl: line 4: expected" in captured.err and "3 users, " in captured.out
    users = user_vectors.read(file)
    assert list(users.ids) == ["ü0", "ü1", "ü2"]
    np.testing.assert_allclose(users.vectors, model.embed(histories[:3], pooled), atol=1e-5)
    assert cli.main([*command, "--split", "validation"]) == 0
    users = user_vectors.read(file)
    of_split = users_lib.read(model.trained.catalogue.open(model.trained.data_dir), "validation")
    assert list(users.ids) == of_split.ids
    if not pooled:
        told = model.answer_vectors(users.vectors)
        result = evaluate.evaluate(model.trained, "validation", answers_file=tmp_path / "a.jsonl")
        rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
        assert [row["answer"] for row in rows] == [one["answer"] for one in told]
        assert result["examples"] == len(told)


def test_files_of_vectors_that_are_none(undisturbed, tmp_path, capsys):
    command = ["embed", "--model-dir", str(undisturbed[0]), "--split", "test", "--output"]
    assert cli.main([*command, str(tmp_path / "users.csv")]) == 2
    assert "give a name that ends in .parquet or .npz" in capsys.readouterr().err
    (tmp_path / "users.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="no vectors of users"):
        user_vectors.read(tmp_path / "users.npz")
