"""A model trained with LoRA, beside PEFT: its adapter onto the base, and merged into it."""

import copy
import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny_recipe
from flax import traverse_util
from safetensors.numpy import load_file

from uem_t5x import checkpoints, cli, network, train
from uem_t5x.answers import export
from uem_t5x.answers.trained_model import TrainedModel
from uem_t5x.base.errors import InputError
from uem_t5x.checkpoints import huggingface
from uem_t5x.network import lora
from uem_t5x.training import validation

LORA = [
    "LORA_RANK = 3",
    "LORA_ALPHA = 12.0",
    "LORA_TARGETS = ('query', 'self_attention/value', 'wo', 'logits_dense')",
]
TINY = [
    *tiny_recipe.NETWORK,
    *LORA,
    "HISTORY_LENGTH = 20",
    "BATCH_SIZE = 4",
    "TRAIN_STEPS = 3",
    "WARMUP_STEPS = 0",
]
TEXT = np.array([[5, 6, 7, 9], [8, 6, 3, 0]], np.int32)
ANSWER = np.array([[3, 4, 1], [3, 1, 0]], np.int32)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A language model as Transformers keeps it."""
    folder = tmp_path_factory.mktemp("base")
    config = network.T5Config(
        vocab_size=256,
        emb_dim=16,
        num_heads=2,
        head_dim=8,
        mlp_dim=16,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )
    made = network.Transformer(config).init(jax.random.key(7), TEXT, ANSWER, ANSWER)
    huggingface.write_language_model(folder, config, made["params"])
    return folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory, dataset_folder, base):
    model_dir = tmp_path_factory.mktemp("run")
    places = tiny_recipe.places(model_dir, dataset_folder.path)
    starts = f"INITIAL_CHECKPOINT_PATH = {str(base)!r}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation.Validation, "measure", lambda *_: {})
        train.run_recipe([tiny_recipe.RECIPE], [*TINY, "VOCAB_SIZE = 256", starts, *places])
    return model_dir


@pytest.fixture(scope="module")
def trained(model_dir):
    return TrainedModel.load(model_dir)


def exported(model_dir, output, form):
    arguments = ["--model-dir", str(model_dir), "--output", str(output), "--format", form]
    assert cli.main(["export", *arguments]) == 0
    return output


def logits(trained):
    """Of the language model, as it was trained, without its soft prompt."""
    module = network.Transformer(trained.model.module.config)
    params = {name: trained.params[name] for name in network.LANGUAGE_MODEL}
    inputs = np.pad(ANSWER[:, :-1], ((0, 0), (1, 0)))
    return module.apply({"params": params}, TEXT, inputs, ANSWER, enable_dropout=False)


def logits_of_transformers(model):
    torch = pytest.importorskip("torch")
    inputs = np.pad(ANSWER[:, :-1], ((0, 0), (1, 0)))
    with torch.no_grad():
        return (
            model.eval()(
                input_ids=torch.tensor(TEXT, dtype=torch.long),
                attention_mask=torch.tensor(TEXT > 0),
                decoder_input_ids=torch.tensor(inputs, dtype=torch.long),
            )
            .logits.detach()
            .numpy()
        )


def test_the_base_stays_as_it_was(trained, base):
    _, before = checkpoints.load_language_model(base)
    before = traverse_util.flatten_dict(before, sep="/")
    after = traverse_util.flatten_dict(dict(trained.params), sep="/")
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)
    added = {name: values for name, values in after.items() if lora.is_lora(name)}
    assert len(added) == 2 * (3 + 1 + 2 + 1)
    assert all(np.any(values) for values in added.values())


def test_peft_loads_it_onto_the_base(trained, model_dir, base, tmp_path):
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    folder = exported(model_dir, tmp_path / "adapter", "peft")
    assert (folder / "user_embedding/model.safetensors").is_file()
    on_base = transformers.AutoModelForSeq2SeqLM.from_pretrained(base)
    without = logits_of_transformers(on_base)
    adapted = peft.PeftModel.from_pretrained(on_base, folder)
    ours = np.asarray(logits(trained))
    there = ANSWER > 0
    np.testing.assert_allclose(logits_of_transformers(adapted)[there], ours[there], atol=1e-4)
    assert np.abs(without - ours)[there].max() > 1e-2
    merged = adapted.merge_and_unload()
    np.testing.assert_allclose(logits_of_transformers(merged)[there], ours[there], atol=1e-4)


def test_peft_knows_all_that_is_written(model_dir, base, tmp_path):
    """Of a tensor under another name PEFT says nothing but a warning."""
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    folder = exported(model_dir, tmp_path / "adapter", "peft")
    fields = json.loads((folder / "adapter_config.json").read_text())
    config = peft.LoraConfig(
        r=3, lora_alpha=12, task_type="SEQ_2_SEQ_LM", target_modules=fields["target_modules"]
    )
    wanted = peft.get_peft_model(transformers.AutoModelForSeq2SeqLM.from_pretrained(base), config)
    written = load_file(folder / "adapter_model.safetensors")
    expected = peft.get_peft_model_state_dict(wanted, save_embedding_layers=False)
    assert {name: values.shape for name, values in written.items()} == {
        name: tuple(values.shape) for name, values in expected.items()
    }


def test_merged_it_is_a_folder_of_transformers(trained, model_dir, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = exported(model_dir, tmp_path / "merged", "huggingface")
    config, _ = checkpoints.load_language_model(folder)
    assert config.lora is None
    merged = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    there = ANSWER > 0
    ours = np.asarray(logits(trained))
    np.testing.assert_allclose(logits_of_transformers(merged)[there], ours[there], atol=1e-4)


def test_without_lora_there_is_nothing_for_peft(trained, tmp_path):
    plain = dataclasses.replace(trained.model.module.config, lora=None)
    model = copy.copy(trained.model)
    model.module = model.module.clone(config=plain)
    with pytest.raises(InputError, match=r"trained without LoRA \(LORA_RANK=None\)"):
        export.export_peft(dataclasses.replace(trained, model=model), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
