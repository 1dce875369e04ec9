"""This package's model beside T5X's, under T5X's decoding, trainer and partitioner."""

import importlib.util

import jax
import numpy as np
import pytest
from golden import t5x_case as case

from uem_t5x import engine, models
from uem_t5x.network import item_table
from uem_t5x.tpu import topologies

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def params():
    return case.language_model_params()


def test_the_golden_values_are_what_t5x_gives():
    from golden import make_t5x

    stored = np.load(make_t5x.GOLDEN)
    for name, value in make_t5x.compute().items():
        # Adafactor's first steps go by the gradient's sign, where rounding is no longer small.
        close = {"rtol": 2e-3, "atol": 2e-3} if name == "uem_logits" else CLOSE
        np.testing.assert_allclose(value, stored[name], **close, err_msg=name)


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: the extra tpu-compile"
)
@pytest.mark.parametrize(
    "name", ["v3-8", "v4-8", "v4-32", "v5litepod-8", "v5litepod-256", "v5p-32", "v6e-64"]
)
def test_t5x_lays_a_model_out_on_every_tpu(name, monkeypatch):
    """Whatever TPUs T5X itself knows."""
    devices = topologies.devices(topologies.topology(name))
    local = [device for device in devices if device.process_index == devices[0].process_index]
    monkeypatch.setattr(jax, "devices", lambda *_: devices)
    monkeypatch.setattr(jax, "device_count", lambda *_: len(devices))
    monkeypatch.setattr(jax, "local_devices", lambda *_, **__: local)
    for model in (1, 2, 4):
        mesh = engine.partitioner(f"model={model}" if model > 1 else "data").mesh
        assert dict(mesh.shape) == {"data": len(devices) // model, "model": model}
        assert set(mesh.devices.flat) == set(devices)
        for sharing in mesh.devices:
            assert len({device.process_index for device in sharing}) == 1


@pytest.mark.parametrize("num_decodes", [1, 3])
def test_beam_search_of_t5x(params, num_decodes):
    from golden import make_t5x
    from t5x import decoding

    options = {"decode_fn": decoding.beam_search}
    ours = models.EncoderDecoderModel(
        case.transformer(), case.VOCABULARY, case.VOCABULARY, None, **options
    )
    arguments = {"return_all_decodes": True, "num_decodes": num_decodes}
    tokens, aux = ours.predict_batch_with_aux(params, case.BATCH, **arguments)
    theirs = make_t5x.t5x_model(**options)
    expected, expected_aux = theirs.predict_batch_with_aux(params, case.BATCH, **arguments)
    np.testing.assert_array_equal(tokens, expected)
    np.testing.assert_allclose(aux["scores"], expected_aux["scores"], **CLOSE)


def test_sampling_of_t5x(params):
    from golden import make_t5x
    from t5x import decoding

    options = {"decode_fn": decoding.temperature_sample}
    rng = jax.random.PRNGKey(3)
    arguments = {"rng": rng, "return_all_decodes": True, "num_decodes": 4}
    ours = models.EncoderDecoderModel(
        case.transformer(), case.VOCABULARY, case.VOCABULARY, None, **options
    )
    tokens, aux = ours.predict_batch_with_aux(params, case.BATCH, **arguments)
    theirs = make_t5x.t5x_model(**options)
    expected, expected_aux = theirs.predict_batch_with_aux(params, case.BATCH, **arguments)
    np.testing.assert_array_equal(tokens, expected)
    np.testing.assert_allclose(aux["scores"], expected_aux["scores"], **CLOSE)


def test_beam_search_of_t5x_over_a_user(params):
    """Beams share the soft prompt: the best of several is no worse than the greedy answer."""
    from t5x import decoding

    model = case.uem_model()
    variables = model.get_initial_variables(
        jax.random.PRNGKey(0), {name: array.shape for name, array in case.uem_batch().items()}
    )
    tables = {"item_table": variables["item_table"].unfreeze()}
    mutables = item_table.fill(tables, case.item_vectors)
    drawn = case.draw_params(dict(variables["params"].unfreeze()))
    best = {}
    for name, decode_fn in (("greedy", None), ("beam", decoding.beam_search)):
        model._decode_fn = decode_fn or model._decode_fn
        _, aux = model.predict_batch_with_aux(
            drawn,
            case.uem_batch(),
            decoder_params={"alpha": 0.0} if decode_fn else None,
            num_decodes=8 if decode_fn else 1,
            flax_mutables=mutables,
        )
        best[name] = np.asarray(aux["scores"])
    assert (best["beam"] >= best["greedy"] - 1e-4).all()


@pytest.mark.parametrize("size", ["base", "large", "xl"])
def test_both_engines_keep_the_same_optimizer_state(size):
    """What one engine saved of Adafactor, the other one restores: names and shapes."""
    import flax.traverse_util

    from uem_t5x import network
    from uem_t5x.training import optimizers, saved_state, trainer

    module = case.transformer().clone(config=network.t5_1_1(size, vocab_size=32128))
    tokens = [jax.ShapeDtypeStruct((1, 4), np.int32)] * 3
    params = jax.eval_shape(module.init, jax.random.PRNGKey(0), *tokens)["params"]
    ours = optimizers.adafactor()
    state = jax.eval_shape(lambda p: trainer.TrainState(np.zeros(()), p, ours.init(p), {}), params)
    theirs = jax.eval_shape(engine.adafactor().init_state, params).param_states
    expected = {
        (*path, name): getattr(record, name).shape
        for path, record in flax.traverse_util.flatten_dict(theirs).items()
        for name in ("m", "v", "v_row", "v_col")
    }
    saved = saved_state.to_t5x(state, ours.saved_as)["state"]["param_states"]
    flat = flax.traverse_util.flatten_dict(saved)
    assert {name: leaf.shape for name, leaf in flat.items()} == expected
