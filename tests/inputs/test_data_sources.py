import json
import shutil
import time

import gin
import pytest
import seqio

from uem_t5x.base import checksums
from uem_t5x.base.errors import InputError
from uem_t5x.data import seal
from uem_t5x.inputs import data_sources

RECIPE = """
from __gin__ import dynamic_registration
from uem_t5x.inputs import data_sources
DATA_DIR = {path!r}
data_sources.dataset_folder.path = %DATA_DIR
"""


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch):
    monkeypatch.delenv(data_sources.DATA_DIR_VARIABLE, raising=False)


def user_ids(dataset):
    return [example["user_id"] for example in dataset.as_numpy_iterator()]


class TestDatasetFolder:
    def test_without_a_folder_says_how_to_set_one(self):
        with pytest.raises(InputError, match=r"DATA_DIR.*UEM_T5X_DATA_DIR.*uem-t5x prepare"):
            data_sources.dataset_folder()

    def test_a_folder_that_is_none_is_named(self, tmp_path):
        with pytest.raises(InputError, match=str(tmp_path)):
            data_sources.dataset_folder(tmp_path)

    def test_the_environment_then_the_recipe_then_the_program_decide(
        self, dataset_folder, tmp_path, monkeypatch
    ):
        monkeypatch.setenv(data_sources.DATA_DIR_VARIABLE, str(tmp_path / "environment"))
        with pytest.raises(InputError, match="environment"):
            data_sources.dataset_folder()

        gin.parse_config(RECIPE.format(path=str(tmp_path / "recipe")))
        with pytest.raises(InputError, match="recipe"):
            data_sources.dataset_folder()

        with data_sources.use_dataset_folder(dataset_folder):
            assert data_sources.dataset_folder() is dataset_folder
        with pytest.raises(InputError, match="recipe"):
            data_sources.dataset_folder()

    def test_a_recipe_names_the_folder(self, dataset_folder):
        gin.parse_config(RECIPE.format(path=str(dataset_folder.path)))

        assert data_sources.dataset_folder().path == dataset_folder.path

    def test_a_folder_that_is_written_anew_is_read_anew(self, dataset_folder, tmp_path):
        path = shutil.copytree(dataset_folder.path, tmp_path / "folder")
        before = data_sources.dataset_folder(path)
        assert data_sources.dataset_folder(path) is before
        time.sleep(0.02)  # a clock tick of the file system
        fields = json.loads((path / "manifest.json").read_text())
        fields["options"] = {"seed": 8}
        (path / "manifest.json").write_text(json.dumps(checksums.signed(fields)))
        seal.seal(path)
        assert data_sources.dataset_folder(path).manifest.options == {"seed": 8}


class TestDatasetFolderSource:
    def test_asks_for_a_folder_only_when_used(self):
        source = data_sources.DatasetFolderSource()

        assert source.splits == ("train", "validation", "test")
        for use in (source.num_input_examples, source.list_shards, source.get_dataset):
            with pytest.raises(InputError, match="no dataset folder is set"):
                use("train")

    @pytest.mark.parametrize("split", ["train", "validation", "test"])
    def test_reads_every_user_of_a_split(self, dataset_folder, split):
        with data_sources.use_dataset_folder(dataset_folder):
            source = data_sources.DatasetFolderSource()
            examples = list(source.get_dataset(split, shuffle=False).as_numpy_iterator())
            expected = source.num_input_examples(split)

        assert len({example["user_id"] for example in examples}) == len(examples) == expected
        genres = {genre.encode() for genre in dataset_folder.genres}
        for example in examples:
            assert example["split"] == split.encode()
            assert example["history_items"].dtype == example["history_ratings"].dtype == "int32"
            assert example["history_items"].shape == example["history_ratings"].shape
            assert 1 <= example["history_ratings"].min() <= example["history_ratings"].max() <= 10
            assert example["history_items"].min() >= 1
            assert genres.issuperset([*example["liked"], *example["disliked"]])

    def test_hosts_read_disjoint_shards(self, sharded_folder):
        with data_sources.use_dataset_folder(sharded_folder):
            source = data_sources.DatasetFolderSource()
            shards = [
                user_ids(source.get_dataset("train", False, shard_info=seqio.ShardInfo(index, 2)))
                for index in range(2)
            ]
            whole = user_ids(source.get_dataset("train", shuffle=False))

        assert set(shards[0]).isdisjoint(shards[1])
        assert sorted(shards[0] + shards[1]) == sorted(whole)

    def test_a_seed_shuffles_the_files_in_the_same_way(self, sharded_folder):
        def first(seed):
            return user_ids(source.get_dataset("train", shuffle=True, seed=seed))[0]

        with data_sources.use_dataset_folder(sharded_folder):
            source = data_sources.DatasetFolderSource()
            orders = [first(seed) for seed in range(8)]
            again = [first(seed) for seed in range(8)]

        assert orders == again
        assert len(set(orders)) > 1
