"""A run of a sweep: what it binds, and whether the folder that is there is its own, finished."""

import json
from pathlib import Path

import pytest
from tiny_sweep import write_data

from uem_t5x.base.errors import InputError
from uem_t5x.runs import recipes


def test_a_run_binds_what_is_asked_for(read_sweep):
    runs = {planned.name: planned for planned in read_sweep()}

    text = runs["text_tiny-HISTORY_LENGTH=50-seed=1"]
    assert {name: text.macros[name] for name in ("HISTORY_ORDER", "RANDOM_SEED", "DATA_DIR")} == {
        "HISTORY_ORDER": "most_recent_last",
        "RANDOM_SEED": 1,
        "DATA_DIR": "my data",
    }
    train, score = text.commands()
    assert train[:3] == ["-m", "uem_t5x.train", "--gin_file=gin/text_tiny.gin"]
    files, bindings, rest = recipes.split_arguments(train[2:])
    assert (files, rest) == (["gin/text_tiny.gin"], [])
    bound = dict(binding.split(" = ", 1) for binding in bindings)
    assert bound["MODEL_DIR"] == json.dumps(text.model_dir)
    assert bound["DATA_DIR"] == '"my data"'
    assert bound["HISTORY_LENGTH"] == "50"
    assert "TRAIN_STEPS" not in bound
    assert score[-1] == f"{text.model_dir}/metrics.json"


class TestFoldersThatAreThere:
    """What a folder holds decides whether its run is finished, to be gone on with, or refused."""

    NUM_HEADS = "user_embedding.UserEmbeddingConfig.num_heads"  # bound by the recipe
    KERNEL = "network.T5Config.long_attention"  # and one that is not

    @pytest.fixture
    def plan(self, read_sweep, tmp_path):
        def plan(*bindings, data=None):
            data = data or tmp_path / "data"
            (run,) = read_sweep(
                "[[runs]]\nrecipes = ['uem_tiny']", [f"DATA_DIR = {str(data)!r}", *bindings]
            )
            return run

        write_data(tmp_path / "data")
        return plan

    @pytest.fixture
    def record(self, plan):
        """Writes the folder of a run, as `train` and `evaluate` leave it."""

        def record(*bindings, checkpoints=(16000,), data=(), without=(), **scores):
            run = plan(*bindings)
            folder = Path(run.model_dir)
            write_data(folder / "catalogue", **dict(data))
            bound = "".join(f"{name} = {literal}\n" for name, literal in run.bound.items())
            (folder / "config.gin").write_text(f"include '{run.recipe}'\n{bound}")
            for step in checkpoints:
                (folder / f"checkpoint_{step}").mkdir()
            scores = {
                "methods": {"uem": {"f1": 0.25}},
                "split": "test",
                "split_sha256": "users 3",
                "step": 2000,
                "trained_steps": 16000,
                "is_best": True,
                **scores,
            }
            scores = {name: value for name, value in scores.items() if name not in without}
            (folder / "metrics.json").write_text(json.dumps(scores))
            return folder

        return record

    def test_a_run_that_is_scored_at_its_end_is_finished(self, plan, record):
        assert not plan().is_finished()
        record()
        assert plan().is_finished()
        assert plan("EVAL_PERIOD = 250").is_finished()

    @pytest.mark.parametrize(
        ("scored", "is_finished"),
        [
            ({"trained_steps": 1500, "step": 1500, "checkpoints": (1500,)}, False),
            ({"trained_steps": 1500, "step": 1500}, False),  # trained to its end after that
            # Of an older version: it is scored again, where that takes no training.
            ({"without": ("trained_steps", "is_best", "split_sha256")}, False),
            ({"without": ("trained_steps", "is_best"), "checkpoints": ()}, True),
        ],
    )
    def test_scores_of_an_interrupted_run(self, scored, is_finished, plan, record):
        record(**scored)
        assert plan().is_finished() == is_finished

    def test_the_last_step_need_not_be_a_macro(self, plan, record):
        steps = "train_script.train.total_steps = 20"
        record(steps, trained_steps=20)
        assert plan(steps).is_finished()
        record_file = Path(plan().model_dir) / "metrics.json"
        record_file.write_text(record_file.read_text().replace(": 20,", ": 19,"))
        assert not plan(steps).is_finished()

    @pytest.mark.parametrize(
        ("recorded", "asked", "says"),
        [
            ((f"{NUM_HEADS} = 8",), (), f"{NUM_HEADS} = 8, and not 2"),
            ((), ("UserEmbeddingConfig.num_heads = 8",), f"{NUM_HEADS} = 2, and not 8"),
            ((f"{KERNEL} = 7",), (), f"{KERNEL} = 7, and not its default"),
            ((), (f"{KERNEL} = 7",), f"{KERNEL} = its default, and not 7"),
            (("UEM_LAYERS = 2",), (), "UEM_LAYERS = 2, and not 1"),
        ],
    )
    def test_a_run_of_other_settings(self, recorded, asked, says, plan, record):
        folder = record(*recorded)
        with pytest.raises(InputError) as refused:
            plan(*asked).is_finished()
        message = f"{folder}: holds a run with {says}; give another --output, or delete it"
        assert str(refused.value) == message
        (folder / "metrics.json").unlink()  # nor is it gone on with
        with pytest.raises(InputError):
            plan(*asked).is_finished()

    def test_a_parameter_that_says_the_same_in_other_words(self, plan, record):
        record("user_embedding.UserEmbeddingConfig.num_layers = 1", f"{self.NUM_HEADS} = 2")
        assert plan().is_finished()

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            ({"ratings": "ratings 9"}, "(not the data of its training)"),
            ({"train": "users 9"}, "(its users or labels (train) are not those of its training)"),
            ({"vocabulary": "pieces 9"}, "another vocabulary than"),
        ],
    )
    def test_a_run_of_other_data(self, data, says, plan, record):
        record(data=data)
        with pytest.raises(InputError) as refused:
            plan().is_finished()
        assert says in str(refused.value)

    def test_data_that_are_not_here_go_by_their_name(self, plan, record, tmp_path):
        record()
        (tmp_path / "data").rename(tmp_path / "moved")
        assert plan().is_finished()
        assert plan(data=tmp_path / "moved").is_finished()
        with pytest.raises(InputError, match=r"holds a run with DATA_DIR = .*data', and not 'no'"):
            plan(data="no").is_finished()

    @pytest.mark.parametrize(
        ("scores", "says"),
        [
            ({"split": "validation"}, "scores with split = 'validation', and not 'test'"),
            ({"split_sha256": "u"}, "scores with split_sha256 = 'u', and not 'users 3'"),
            ({"is_best": False}, "scores with is_best = False, and not True"),
            ({"without": ["split"]}, "not the scores of `uem-t5x evaluate`"),
        ],
    )
    def test_scores_that_the_sweep_would_not_write(self, scores, says, plan, record):
        file = record(**scores) / "metrics.json"
        with pytest.raises(InputError) as refused:
            plan().is_finished()
        assert f"{file}: {says}" in str(refused.value)
        assert "move the file away, and the same command" in str(refused.value)
        file.unlink()
        assert not plan().is_finished()
