"""What is read and written by its `gs://` name; the bucket is a folder."""

import contextlib
import json
import re
from unittest import mock

import gin
import pytest
import tensorflow as tf
from etils import epath
from etils.epath import testing

from uem_t5x import checkpoints, cli
from uem_t5x.answers import evaluate
from uem_t5x.base import buckets
from uem_t5x.base.errors import InputError
from uem_t5x.checkpoints import folders
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.runs import model_dir, recipes
from uem_t5x.training import checkpoint_manager


@pytest.fixture(autouse=True)
def bucket(tmp_path, monkeypatch):
    def there(function, *arguments, **options):
        names = (str(name).replace("gs://bucket", str(tmp_path)) for name in arguments)
        return function(*names, **options)

    # Or else TensorFlow would read and write there, through no mock.
    monkeypatch.setattr("etils.epath.gpath._is_tf_installed", lambda: False)
    calls = ("exists", "isdir", "listdir", "makedirs", "mkdir", "open", "remove", "replace")
    with testing.mock_epath(**dict.fromkeys(calls, there)):
        yield tmp_path


def test_a_trained_models_recipe(bucket):
    (bucket / "run").mkdir()
    (bucket / "run/config.gin").write_text("HISTORY_LENGTH = 7\n")
    assert recipes.read("gs://bucket/run/config.gin") == ({"HISTORY_LENGTH": 7}, {})
    recipes.parse(["gs://bucket/run/config.gin"], ["BATCH_SIZE = 4"])
    assert gin.query_parameter("HISTORY_LENGTH/macro.value") == 7
    assert gin.query_parameter("BATCH_SIZE/macro.value") == 4
    with pytest.raises(InputError, match=r"gs://bucket/none\.gin: no such recipe"):
        recipes.parse(["gs://bucket/none.gin"])


def test_a_checkpoint_counts_when_it_is_committed(bucket):
    """There it has its name from the beginning."""
    for step, parts in ((2, 1), (4, 2), (6, 3)):
        folder = bucket / f"run/checkpoint_{step}/dataset"
        folder.mkdir(parents=True)
        (folder / f"train_ds-000-of-{parts:03}").touch()
    assert checkpoint_manager.saved_num_shards("gs://bucket/run") is None
    assert folders.choose("gs://bucket/run") is None
    (bucket / "run/checkpoint_2/commit_success.txt").touch()
    assert list(folders.find("gs://bucket/run")) == [2]
    (bucket / "run/checkpoint_4/checkpoint").touch()  # T5X's native format
    assert list(folders.find("gs://bucket/run")) == [2, 4]
    assert checkpoint_manager.saved_num_shards("gs://bucket/run") == 2
    assert folders.choose("gs://bucket/run") == 4


def test_a_run_starts_from_no_checkpoint_that_is_cut_short(bucket):
    state = bucket / "run/checkpoint_2/state"
    state.mkdir(parents=True)
    (state / "_METADATA").write_text("{}")
    with pytest.raises(InputError, match=r"checkpoint_2: was not saved to its end"):
        checkpoints.load_language_model("gs://bucket/run/checkpoint_2")


def test_folders_are_not_written_there(bucket, monkeypatch, capsys):
    monkeypatch.chdir(bucket)
    assert cli.main(["synthesize", "--output", "gs://bucket/folder"]) == 2
    assert "give --output a local folder" in capsys.readouterr().err
    assert not list(bucket.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s3://bucket/run", r"s3:// is neither read nor written; give"),
        ("file:///runs/one", r"file:// is neither read nor written; give .* path alone"),
        ("~/runs/one", r"no shell has replaced the ~ .* write \$HOME"),
        ("runs/lr[0.1]", r"the \[ in it would be taken for a pattern; choose"),
        ("gs://bucket/lr*", r"the \* in it would be taken for a pattern; choose"),
        (r"runs\one", r"the backslash in it would be taken for a slash"),
    ],
)
def test_names_that_mean_another_place(name, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(name) + ".*: " + message):
        buckets.check_for_arrays(name, are_written=True)
    is_pattern = "pattern" in message
    with contextlib.nullcontext() if is_pattern else pytest.raises(InputError, match=message):
        buckets.check_for_arrays(name, are_written=False)
    buckets.check_for_arrays("runs/one]", are_written=True)


def test_a_bucket_that_cannot_be_asked_is_named(monkeypatch):
    refusal = tf.errors.FailedPreconditionError(
        None, None, "libcurl code 6: no such host\n\t when reading metadata of gs://bucket/run"
    )
    monkeypatch.setattr(
        epath.Path("gs://bucket").__class__, "exists", mock.Mock(side_effect=refusal)
    )
    message = r"gs://bucket/run: cannot be reached \(libcurl .* host when reading metadata of gs:"
    for read in (DatasetFolder.open, model_dir.recipe, checkpoints.open_checkpoint):
        with pytest.raises(OSError, match=message):
            read("gs://bucket/run")


def test_a_folder_whose_name_is_a_pattern(tmp_path):
    folder = tmp_path / "Thesis [2026]"
    for name in ("checkpoint_2", "other"):
        (folder / name).mkdir(parents=True)
    assert buckets.named(folder, "checkpoint_*") == [epath.Path(folder / "checkpoint_2")]
    assert buckets.named(tmp_path / "none", "*") == []


def test_scores(bucket, monkeypatch):
    monkeypatch.chdir(bucket)
    evaluate.write_metrics({"f1": 0.5}, "gs://bucket/run/metrics.json")
    assert json.loads((bucket / "run/metrics.json").read_text()) == {"f1": 0.5}
    assert [path.name for path in bucket.rglob("*")] == ["run", "metrics.json"]
