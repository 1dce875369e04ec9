"""What is read and written by its `gs://` name; the bucket is a folder."""

import json

import gin
import pytest
from etils.epath import testing

from uem_t5x import cli, evaluate, gin_utils
from uem_t5x.errors import InputError


@pytest.fixture(autouse=True)
def bucket(tmp_path, monkeypatch):
    def there(function, *arguments, **options):
        names = (str(name).replace("gs://bucket", str(tmp_path)) for name in arguments)
        return function(*names, **options)

    # Or else TensorFlow would read and write there, through no mock.
    monkeypatch.setattr("etils.epath.gpath._is_tf_installed", lambda: False)
    calls = ("exists", "isdir", "makedirs", "mkdir", "open", "remove", "replace")
    with testing.mock_epath(**dict.fromkeys(calls, there)):
        yield tmp_path


def test_a_trained_models_recipe(bucket):
    (bucket / "run").mkdir()
    (bucket / "run/config.gin").write_text("HISTORY_LENGTH = 7\n")
    assert gin_utils.read("gs://bucket/run/config.gin") == ({"HISTORY_LENGTH": 7}, {})
    gin_utils.parse(["gs://bucket/run/config.gin"], ["BATCH_SIZE = 4"])
    assert gin.query_parameter("HISTORY_LENGTH/macro.value") == 7
    assert gin.query_parameter("BATCH_SIZE/macro.value") == 4
    with pytest.raises(InputError, match=r"gs://bucket/none\.gin: no such recipe"):
        gin_utils.parse(["gs://bucket/none.gin"])


def test_folders_are_not_written_there(bucket, monkeypatch, capsys):
    monkeypatch.chdir(bucket)
    assert cli.main(["synthesize", "--output", "gs://bucket/folder"]) == 2
    assert "give --output a local folder" in capsys.readouterr().err
    assert not list(bucket.iterdir())


def test_scores(bucket, monkeypatch):
    monkeypatch.chdir(bucket)
    evaluate.write_metrics({"f1": 0.5}, "gs://bucket/run/metrics.json")
    assert json.loads((bucket / "run/metrics.json").read_text()) == {"f1": 0.5}
    assert [path.name for path in bucket.rglob("*")] == ["run", "metrics.json"]
