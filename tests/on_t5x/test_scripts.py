"""T5X's own scripts on this package's recipes, and checkpoints that cross engines."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from fake_bucket import FakeBuckets
from flax import traverse_util

from uem_t5x import checkpoints, cli, network, train
from uem_t5x.answers import evaluate
from uem_t5x.answers.trained_model import TrainedModel

RECIPE = "gin/uem_tiny.gin"
MODEL = "gin/models/uem_tiny.gin"
TASK = "movielens_genres_uem_50"
MACROS = {
    "DECAY_STEPS": 0,
    "VOCAB_SIZE": 256,  # the dataset folder's
    "STATS_PERIOD": 2,
    "EVAL_PERIOD": 4,
    "CHECKPOINT_PERIOD": 4,
    "BATCH_SIZE": 8,
}


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def state_of(checkpoint):
    """Returns parameters and the item table, by name."""
    model_dir, step = checkpoint.parent, int(checkpoint.name.split("_")[1])
    trained = TrainedModel.load(model_dir, step)
    return traverse_util.flatten_dict(
        {"params": trained.params, "mutables": trained.flax_mutables}, sep="/"
    )


def assert_same_state(one, other, **close):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], err_msg=name, **close)


@pytest.fixture(scope="module")
def on_t5x(run_script, dataset_folder):
    """Returns a function that trains with T5X."""

    def run(model_dir, steps, recipe=RECIPE, devices=1, script="train", flags=(), **macros):
        places = {"MODEL_DIR": model_dir, "DATA_DIR": dataset_folder.path, "TRAIN_STEPS": steps}
        run_script(script, [recipe], devices, flags=flags, **places, **{**MACROS, **macros})
        return model_dir / f"checkpoint_{steps}"

    return run


@pytest.fixture(scope="module")
def built_in(dataset_folder):
    """Returns a function that trains with the built-in engine."""

    def run(model_dir, steps, recipe=RECIPE, **macros):
        places = {
            "MODEL_DIR": str(model_dir),
            "DATA_DIR": str(dataset_folder.path),
            "TRAIN_STEPS": steps,
        }
        bindings = [f"{key} = {value!r}" for key, value in {**places, **MACROS, **macros}.items()]
        train.run_recipe([recipe], bindings)
        return model_dir / f"checkpoint_{steps}"

    return run


@pytest.fixture(scope="module")
def resumed(on_t5x, tmp_path_factory):
    """A run of 4 steps by `train.py`, stopped, then resumed to 8 by T5X's other entry."""
    model_dir = tmp_path_factory.mktemp("t5x")
    on_t5x(model_dir, 4)
    return on_t5x(model_dir, 8, script="main", flags=["--run_mode=train"]).parent


@pytest.fixture(scope="module")
def undisturbed(built_in, tmp_path_factory):
    """The same 8 steps in one go, by the built-in engine."""
    return built_in(tmp_path_factory.mktemp("built_in"), 8).parent


def test_two_hosts_and_either_engine(run_on_two_hosts, built_in, dataset_folder, tmp_path):
    """T5X begins, the built-in engine goes on alone, and T5X ends."""
    places = {"MODEL_DIR": tmp_path / "both", "DATA_DIR": dataset_folder.path}
    periods = {"EVAL_PERIOD": 2, "CHECKPOINT_PERIOD": 2}
    macros = {**MACROS, **periods, "CHECKPOINTS_KEPT": 9}
    run_on_two_hosts("train", [RECIPE], **{**macros, **places}, TRAIN_STEPS=2)
    half = built_in(tmp_path / "both", 4, **{**periods, "CHECKPOINTS_KEPT": 9})
    undisturbed = built_in(tmp_path / "one", 4, **periods, NUM_DATA_SHARDS=2)
    assert_same_state(state_of(half), state_of(undisturbed), atol=5e-4)
    run_on_two_hosts("train", [RECIPE], **{**macros, **places}, TRAIN_STEPS=6)
    whole = built_in(tmp_path / "one", 6, **periods)
    assert_same_state(state_of(tmp_path / "both/checkpoint_6"), state_of(whole), atol=5e-4)


def test_a_run_in_a_bucket(run_script, dataset_folder, tmp_path):
    buckets = FakeBuckets(tmp_path)
    buckets.upload(Path(dataset_folder.path), "bucket/data")
    places = {"MODEL_DIR": "gs://bucket/run", "DATA_DIR": "gs://bucket/data"}
    for steps in (2, 4):
        run_script(
            "train",
            [RECIPE],
            environment=buckets.environment,
            **{**MACROS, **places, "TRAIN_STEPS": steps, "EVAL_PERIOD": 2, "CHECKPOINT_PERIOD": 2},
        )
    assert "bucket/run/checkpoint_4/commit_success.txt" in buckets.objects
    buckets.download("bucket/run", tmp_path / "copy")
    assert TrainedModel.load(tmp_path / "copy").step == 4
    assert not Path("gs:").exists()


def test_metrics_appear_where_t5x_users_look(resumed):
    lines = read_lines(resumed / f"inference_eval/{TASK}-metrics.jsonl")
    assert [line["step"] for line in lines] == [4, 8]
    assert lines[1].keys() >= {"f1", "precision", "recall", "liked_f1", "disliked_f1"}
    assert (resumed / f"inference_eval/{TASK}-000008.jsonl").is_file()
    assert (resumed / f"training_eval/{TASK}").is_dir()
    assert (resumed / "model-info.txt").is_file()


def test_what_is_frozen_has_no_optimizer_state_on_either_engine(on_t5x, built_in, tmp_path):
    """T5X begins and goes on, the built-in engine takes over, and T5X ends."""
    engines = (on_t5x, on_t5x, built_in, on_t5x)
    options = {"FREEZE_LANGUAGE_MODEL": True, "CHECKPOINTS_KEPT": 4}
    runs = [engine(tmp_path / "run", 4 * n, **options) for n, engine in enumerate(engines, 1)]
    for checkpoint in runs:
        saved = ocp.PyTreeCheckpointHandler().metadata(epath.Path(checkpoint) / "state")
        assert saved["state"]["param_states"].keys() == {"user_embedding", "task_prompt"}
    before, after = state_of(runs[0]), state_of(runs[-1])
    changed = {name.split("/")[1] for name in before if (before[name] != after[name]).any()}
    assert changed == {"user_embedding", "task_prompt"}


@pytest.mark.parametrize(
    "options",
    [
        {"ADAPTER": "perceiver", "SOFT_TOKENS": 8, "PROMPT_INIT": "vocabulary"},
        {"LORA_RANK": 4, "LORA_ALPHA": 8.0, "LORA_TARGETS": ["query", "value", "wo"]},
    ],
    ids=["perceiver", "lora"],
)
def test_what_goes_beyond_the_paper_trains_alike(options, on_t5x, built_in, tmp_path):
    """Twenty steps of T5X, the last ten of which the built-in engine takes, too."""
    options = {**options, "EVAL_PERIOD": 20, "CHECKPOINT_PERIOD": 10, "CHECKPOINTS_KEPT": 4}
    on_t5x(tmp_path / "t5x", 10, **options)
    shutil.copytree(tmp_path / "t5x", tmp_path / "both")
    t5x = on_t5x(tmp_path / "t5x", 20, **options)
    ours = built_in(tmp_path / "both", 20, **options)
    assert_same_state(state_of(t5x), state_of(ours), rtol=1e-3, atol=5e-4)
    begun = state_of(tmp_path / "t5x/checkpoint_10")
    after = state_of(t5x)
    trained = {name for name in begun if (begun[name] != after[name]).any()}
    if "LORA_RANK" in options:
        kept = {name for name in begun if name.split("/")[1] in network.LANGUAGE_MODEL}
        added = {name for name in kept if "/lora_" in name}
        assert len(added) == 2 * (2 + 2 + 2 + 2)
        assert trained & kept == added
    else:
        assert "params/user_embedding/encoder/latents" in trained


def test_the_item_table_is_frozen_and_has_no_optimizer_state(resumed, dataset_folder):
    trained = TrainedModel.load(resumed)
    table = trained.flax_mutables["item_table"]["item_table"]
    for name, vectors in dataset_folder.embeddings().items():
        np.testing.assert_array_equal(table[name], vectors)
    saved = ocp.PyTreeCheckpointHandler().metadata(epath.Path(resumed / "checkpoint_8/state"))
    assert saved["state"]["param_states"].keys() == saved["target"].keys()
    assert "item_table" not in saved["target"]


def test_both_engines_train_alike_and_t5x_resumes_where_it_was(resumed, undisturbed):
    """T5X, stopped and resumed, arrives where the built-in engine does in one go."""
    t5x, ours = state_of(resumed / "checkpoint_8"), state_of(undisturbed / "checkpoint_8")
    assert_same_state(t5x, ours, rtol=1e-3, atol=1e-4)


def test_uem_t5x_evaluate_reads_what_t5x_trained(resumed):
    result = evaluate.evaluate(TrainedModel.load(resumed, well_formed=False), "validation")
    seen = read_lines(resumed / f"inference_eval/{TASK}-metrics.jsonl")[-1]
    scores = result["methods"]["uem"]
    assert {name: scores[name] for name in ("f1", "liked_f1", "disliked_f1")} == pytest.approx(
        {name: seen[name] for name in ("f1", "liked_f1", "disliked_f1")}
    )


def test_uem_t5x_predict_reads_what_t5x_trained(resumed, tmp_path):
    histories, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    histories.write_text('{"user_id": "a", "history": [{"movieId": 1, "rating": 4.5}]}\n')
    arguments = ["predict", "--model-dir", str(resumed), "--input", str(histories)]
    assert cli.main([*arguments, "--output", str(answers)]) == 0
    assert [answer["user_id"] for answer in read_lines(answers)] == ["a"]


def test_eval_script(resumed, run_script, dataset_folder, tmp_path):
    run_script(
        "eval",
        [MODEL, "gin/runs/eval.gin"],
        DATA_DIR=dataset_folder.path,
        CHECKPOINT_PATH=resumed / "checkpoint_8",
        EVAL_OUTPUT_DIR=tmp_path,
        EVAL_SPLIT="validation",
        BATCH_SIZE=8,
        VOCAB_SIZE=MACROS["VOCAB_SIZE"],
    )
    scores = read_lines(tmp_path / f"inference_eval/{TASK}-metrics.jsonl")
    seen = read_lines(resumed / f"inference_eval/{TASK}-metrics.jsonl")
    assert scores[-1]["f1"] == pytest.approx(seen[-1]["f1"])


@pytest.mark.parametrize("mode", ["predict", "score"])
def test_infer_script(mode, resumed, run_script, dataset_folder, tmp_path):
    run_script(
        "infer",
        [MODEL, "gin/runs/infer.gin"],
        DATA_DIR=dataset_folder.path,
        CHECKPOINT_PATH=resumed / "checkpoint_8",
        INFER_OUTPUT_DIR=tmp_path,
        INFER_MODE=mode,
        BATCH_SIZE=8,
        VOCAB_SIZE=MACROS["VOCAB_SIZE"],
    )
    [output] = tmp_path.glob(f"{TASK}-{mode}.jsonl-00000-of-00001")
    lines = read_lines(output)
    assert len(lines) == dataset_folder.num_examples("test")
    if mode == "score":
        assert all(line["score"] < 0 for line in lines)
    else:
        assert all(isinstance(line["prediction"], str | list | dict) for line in lines)


def test_each_engine_goes_on_where_the_other_one_stopped(
    resumed, undisturbed, on_t5x, built_in, tmp_path_factory
):
    """Parameters, optimizer state and the position in the data cross, both ways."""
    from_t5x = shutil.copytree(resumed, tmp_path_factory.mktemp("a") / "run")
    from_ours = shutil.copytree(undisturbed, tmp_path_factory.mktemp("b") / "run")
    ours = state_of(built_in(from_t5x, 12))
    t5x = state_of(on_t5x(from_ours, 12))
    assert_same_state(ours, t5x, rtol=5e-3, atol=5e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"LAYOUT": "model=2", "NUM_MICROBATCHES": 2},
        {"LAYOUT": "fsdp,model=2", "SCAN_LAYERS": True, "REMAT_POLICY": "minimal"},
    ],
)
def test_layouts(on_t5x, undisturbed, tmp_path, options):
    """Two devices that share the model: of CPUs, T5X makes no mesh with an axis of copies."""
    split = state_of(on_t5x(tmp_path, 8, devices=2, **options))
    assert_same_state(split, state_of(undisturbed / "checkpoint_8"), rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def native_checkpoint(tmp_path_factory):
    """A language model of `uem_tiny`'s sizes, saved by T5X in its native format."""
    from golden import make_t5x
    from t5x import checkpoints as t5x_checkpoints
    from t5x import models, partitioning, utils
    from t5x.examples.t5 import network as t5x_network

    config = t5x_network.T5Config(
        vocab_size=256,
        emb_dim=128,
        num_heads=8,
        head_dim=32,
        mlp_dim=256,
        num_encoder_layers=1,
        num_decoder_layers=1,
        mlp_activations=("gelu", "linear"),
    )
    template = make_t5x.t5x_model()
    model = models.EncoderDecoderModel(
        t5x_network.Transformer(config),
        template.input_vocabulary,
        template.output_vocabulary,
        template.optimizer_def,
    )
    partitioner = partitioning.PjitPartitioner(num_partitions=1)
    shapes = {"encoder_input_tokens": (2, 4), "decoder_input_tokens": (2, 4)}
    shapes["decoder_target_tokens"] = (2, 4)
    initializer = utils.TrainStateInitializer(
        model.optimizer_def, model.get_initial_variables, shapes, partitioner
    )
    state = initializer.from_scratch(jax.random.PRNGKey(5)).replace_step(jnp.asarray(1000))
    folder = tmp_path_factory.mktemp("native")
    t5x_checkpoints.Checkpointer(state, partitioner, str(folder)).save(state)
    return folder / "checkpoint_1000"


@pytest.fixture(scope="module", params=["native", "orbax", "huggingface"])
def initial_checkpoint(request, native_checkpoint, undisturbed, tmp_path_factory):
    """A pretrained language model in each format that T5X and the built-in engine start from."""
    if request.param == "native":
        return native_checkpoint
    if request.param == "orbax":
        return undisturbed / "checkpoint_8"
    folder = tmp_path_factory.mktemp("exported") / "model"
    arguments = ["--model-dir", str(undisturbed), "--output", str(folder)]
    assert cli.main(["export", *arguments, "--format", "huggingface"]) == 0
    return folder


def test_t5x_starts_from_a_pretrained_language_model(initial_checkpoint, on_t5x, tmp_path):
    """At learning rate 0 the first checkpoint holds the language model, under a fresh UEM."""
    options = {"LEARNING_RATE": 0.0, "PROMPT_LENGTH": 3, "UEM_LAYERS": 2, "EVAL_PERIOD": 0}
    start = state_of(on_t5x(tmp_path, 2, INITIAL_CHECKPOINT_PATH=initial_checkpoint, **options))
    config, params = checkpoints.load_language_model(initial_checkpoint)
    assert isinstance(config, network.T5Config)
    for name, value in traverse_util.flatten_dict(params, sep="/").items():
        # T5X applies even an update of rate 0, and rounds.
        np.testing.assert_allclose(start[f"params/{name}"], value, atol=1e-7, err_msg=name)
    assert start["params/task_prompt/embedding"].shape == (3, 128)
