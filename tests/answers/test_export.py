"""What `uem-t5x export` writes: Transformers' folder, and a UEM that can be run elsewhere."""

import copy
import dataclasses
import json

import jax
import numpy as np
import polars as pl
import pytest
import tiny_recipe
from flax import traverse_util
from safetensors.numpy import load_file

from uem_t5x import checkpoints, cli, models, network, train
from uem_t5x.answers import export
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.base.errors import InputError
from uem_t5x.training import validation

TINY = [
    *tiny_recipe.NETWORK,
    "HISTORY_LENGTH = 20",
    "BATCH_SIZE = 4",
    "TRAIN_STEPS = 1",
    "user_embedding.UserEmbeddingConfig.mlp_dim = 24",
]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory, dataset_folder):
    """A run of one step, without the evaluation at its end, which takes the longest."""
    model_dir = tmp_path_factory.mktemp("run")
    places = tiny_recipe.places(model_dir, dataset_folder.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation.Validation, "measure", lambda *_: {})
        train.run_recipe([tiny_recipe.RECIPE], [*TINY, *places])
    return model_dir


@pytest.fixture(scope="module")
def trained(model_dir):
    return TrainedModel.load(model_dir)


@pytest.fixture(scope="module")
def exported(model_dir, tmp_path_factory):
    output = tmp_path_factory.mktemp("exported") / "deeper" / "model"
    assert run(model_dir, output) == 0
    return output


def run(model_dir, output, *arguments):
    places = ["--model-dir", str(model_dir), "--output", str(output)]
    return cli.main(["export", *places, "--format", "huggingface", *arguments])


def test_the_language_model_is_read_back_as_it_was(exported, trained):
    config, params = checkpoints.load_language_model(exported)
    expected = trained.model.module.config
    assert config == dataclasses.replace(expected, dropout_rate=0.0, dtype=config.dtype)
    expected = {name: trained.params[name] for name in network.LANGUAGE_MODEL}
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    generation = json.loads((exported / "generation_config.json").read_text())
    assert generation["max_new_tokens"] == 32


def test_the_vocabulary_is_the_one_it_was_trained_with(exported, dataset_folder):
    copied = (exported / "spiece.model").read_bytes()
    assert copied == dataset_folder.vocabulary_path.read_bytes()
    assert json.loads((exported / "tokenizer_config.json").read_text())["extra_ids"] == 0


def test_the_user_embedding_is_whole(exported, trained, dataset_folder):
    folder = exported / "user_embedding"
    tensors = load_file(folder / "model.safetensors")
    for channel, vectors in dataset_folder.embeddings().items():
        np.testing.assert_array_equal(tensors.pop(f"item_table/{channel}"), vectors)
    params = traverse_util.unflatten_dict(tensors, sep="/")
    assert set(params) == {"user_embedding", "task_prompt"}
    jax.tree.map(
        np.testing.assert_array_equal, params, {name: trained.params[name] for name in params}
    )
    assert set(params) | set(network.LANGUAGE_MODEL) == set(trained.params)
    assert pl.read_parquet(folder / "movies.parquet").equals(dataset_folder.movies())


def test_the_config_tells_how_the_input_is_made(exported, dataset_folder):
    config = json.loads((exported / "user_embedding/config.json").read_text())
    assert config["encoder_input"] == ["task_prompt", "history", "text"]
    assert (config["prompt_length"], config["history_length"], config["embed_dim"]) == (24, 20, 16)
    assert [channel["name"] for channel in config["channels"]] == [
        channel.name for channel in dataset_folder.channels
    ]
    assert all(channel["scaling"] == channel["width"] ** 0.5 for channel in config["channels"])
    assert config["encoder"]["width"] == sum(channel["width"] for channel in config["channels"])
    assert config["encoder"]["mlp_dim"] == 24
    assert config["sentence_encoder"] == {"name": "hashing", "width": 16}
    assert config["genres"] == list(dataset_folder.genres)
    assert config["step"] == 1


def test_a_text_model_has_no_user_embedding(trained, tmp_path):
    text_model = dataclasses.replace(
        trained,
        model=models.EncoderDecoderModel(
            network.Transformer(trained.model.module.config),
            trained.model.input_vocabulary,
            trained.model.output_vocabulary,
            optimizer_def=None,
        ),
        params={name: trained.params[name] for name in network.LANGUAGE_MODEL},
        flax_mutables={},
        feature_lengths={"inputs": 64, "targets": 32},
    )
    export.export_huggingface(text_model, tmp_path / "out")
    checkpoints.load_language_model(tmp_path / "out")
    assert not (tmp_path / "out/user_embedding").exists()


def changed(trained, module=None, **params):
    """Returns a trained model with another module, or with other parameters beside its own."""
    model = copy.copy(trained.model)
    model.module = module or model.module
    flat = traverse_util.flatten_dict(trained.params, sep="/") | params
    flat = {name: value for name, value in flat.items() if value is not None}
    params = traverse_util.unflatten_dict(flat, sep="/")
    return dataclasses.replace(trained, model=model, params=params)


QUERY = "encoder/layers_0/attention/query"
KERNEL = np.zeros((16, 2), np.float32)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {f"{QUERY}/lora_a": KERNEL},
            f"1 parameters of the language model are not a T5's, .*: {QUERY}/lora_a is unexpected; "
            "merge",
        ),
        (
            {f"{QUERY}/wrapped/kernel": np.zeros((16, 16)), f"{QUERY}/kernel": None},
            f"2 parameters of .*: {QUERY}/wrapped/kernel is unexpected; {QUERY}/kernel is missing",
        ),
        ({f"{QUERY}/kernel": KERNEL}, r"query/kernel has shape \(16, 2\), and not \(16, 16\)"),
    ],
)
def test_what_would_be_left_out_is_refused_by_name(params, message, trained, tmp_path):
    with pytest.raises(InputError, match=message):
        export.export_huggingface(changed(trained, **params), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_of_a_soft_prompt_is_written_whatever_its_names(trained, tmp_path):
    own = {"lora/query_a": KERNEL, "user_embedding/adapter/kernel": KERNEL + 1}
    export.export_huggingface(changed(trained, **own), tmp_path / "out")
    tensors = load_file(tmp_path / "out/user_embedding/model.safetensors")
    for name, values in own.items():
        np.testing.assert_array_equal(tensors[name], values)


class WithOtherDecoder(network.Transformer):
    def setup(self):
        super().setup()
        self.decoder = OtherDecoder(self.config)


class OtherDecoder(network.Decoder):
    pass


class DecodesOtherwise(network.Transformer):
    def decode(self, *arguments, **options):
        return -super().decode(*arguments, **options)


@pytest.mark.parametrize("cls", [WithOtherDecoder, DecodesOtherwise])
def test_a_language_model_of_ones_own_is_refused(cls, trained, tmp_path):
    ours = trained.model.module
    module = cls(ours.config, ours.soft_prompt)
    message = f"{cls.__name__}: this class may compute something else"
    with pytest.raises(InputError, match=message):
        export.export_huggingface(changed(trained, module), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_variables_that_are_no_parameters_are_refused_too(trained, tmp_path):
    frozen = {**trained.flax_mutables, "batch_stats": {"encoder": {"mean": KERNEL}}}
    with pytest.raises(InputError, match="left out: batch_stats/encoder/mean; have"):
        export.export_huggingface(
            dataclasses.replace(trained, flax_mutables=frozen), tmp_path / "o"
        )


def test_what_was_written_is_told(model_dir, tmp_path, capsys):
    assert run(model_dir, tmp_path / "out", "--step", "1") == 0
    told = capsys.readouterr().out
    assert f"step 1 of {model_dir} written to {tmp_path / 'out'}" in told
    for name in ("config.json", "model.safetensors", "user_embedding/model.safetensors"):
        assert f"  {name}  " in told


def test_an_output_with_something_in_it_is_refused(model_dir, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes").write_text("mine")
    assert run(model_dir, tmp_path / "out") == 2
    assert "is not just a new or empty folder; give --output" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes"]


def test_nothing_is_left_of_a_refused_export(model_dir, tmp_path, capsys):
    assert run(model_dir, tmp_path / "out", "--step", "7") == 2
    assert "no checkpoint of step 7; it has 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_transformers_goes_on_from_the_exported_soft_prompt(exported, trained):
    """`[P_e ; Pr_UEM(U) ; X_e]` given to Transformers' T5 gives our logits."""
    torch = pytest.importorskip("torch", reason="PyTorch is no part of this project's set")
    reason = "Transformers is no part of this project's set"
    transformers = pytest.importorskip("transformers", reason=reason)
    transformers.utils.logging.set_verbosity_error()
    model = transformers.T5ForConditionalGeneration.from_pretrained(exported).eval()

    text = np.asarray([[5, 9, 3, 1], [7, 1, 0, 0]], np.int32)
    targets = np.asarray([[4, 8, 15, 1], [16, 23, 42, 1]], np.int32)
    items = np.asarray([[3, 1, 4, 1], [5, 9, 0, 0]], np.int32)
    ratings = np.asarray([[10, 1, 7, 4], [2, 9, 0, 0]], np.int32)
    variables = {"params": trained.params, **trained.flax_mutables}
    module = trained.model.module
    apply = jax.jit(module.apply, static_argnames="enable_dropout")
    ours = apply(
        variables,
        text,
        np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        targets,
        {"history_items": items, "history_ratings": ratings},
        enable_dropout=False,
    )

    history = user_embedding_in_torch(torch, transformers, exported, items, ratings)
    tensors = load_file(exported / "user_embedding/model.safetensors")
    prompt = torch.from_numpy(tensors["task_prompt/embedding"]).expand(2, -1, -1)
    embedded = model.shared(torch.from_numpy(text).long())
    mask = np.concatenate([np.ones(prompt.shape[:2], bool), items > 0, text > 0], axis=1)
    with torch.no_grad():
        theirs = model(
            inputs_embeds=torch.cat([prompt, history, embedded], dim=1),
            attention_mask=torch.from_numpy(mask).long(),
            labels=torch.from_numpy(targets).long(),
        ).logits
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def user_embedding_in_torch(torch, transformers, exported, items, ratings):
    """Computes the UEM from the exported files alone, in Transformers' T5 encoder."""
    folder = exported / "user_embedding"
    config = json.loads((folder / "config.json").read_text())
    tensors = {
        name: torch.from_numpy(values)
        for name, values in load_file(folder / "model.safetensors").items()
    }
    rows = {"item": torch.from_numpy(items).long(), "rating": torch.from_numpy(ratings).long()}
    vectors = torch.cat(
        [
            tensors[channel["tensor"]][rows[channel["index"]]] * channel["scaling"]
            for channel in config["channels"]
        ],
        dim=-1,
    )
    sizes = config["encoder"]
    encoder = transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=1,
            d_model=sizes["width"],
            d_kv=sizes["head_dim"],
            d_ff=sizes["mlp_dim"],
            num_layers=sizes["num_layers"],
            num_heads=sizes["num_heads"],
            feed_forward_proj="gated-gelu",
        )
    ).eval()
    uem = "user_embedding/encoder"
    weights = {
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": tensors[
            f"{uem}/relpos_bias/rel_embedding"
        ].T,
        "encoder.final_layer_norm.weight": tensors[f"{uem}/encoder_norm/scale"],
    }
    for layer in range(sizes["num_layers"]):
        ours, theirs = f"{uem}/layers_{layer}", f"encoder.block.{layer}.layer"
        for kernel, name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
            weight = tensors[f"{ours}/attention/{kernel}/kernel"].T
            weights[f"{theirs}.0.SelfAttention.{name}.weight"] = weight
        for name in ("wi_0", "wi_1", "wo"):
            weight = tensors[f"{ours}/mlp/{name}/kernel"].T
            weights[f"{theirs}.1.DenseReluDense.{name}.weight"] = weight
        scale = tensors[f"{ours}/pre_attention_layer_norm/scale"]
        weights[f"{theirs}.0.layer_norm.weight"] = scale
        weights[f"{theirs}.1.layer_norm.weight"] = tensors[f"{ours}/pre_mlp_layer_norm/scale"]
    lacking = encoder.load_state_dict(weights, strict=False)
    assert not lacking.unexpected_keys
    assert set(lacking.missing_keys) <= {"shared.weight", "encoder.embed_tokens.weight"}
    with torch.no_grad():
        encoded = encoder(inputs_embeds=vectors, attention_mask=(rows["item"] > 0).long())
    return encoded.last_hidden_state @ tensors["user_embedding/projection/kernel"]
