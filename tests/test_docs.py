"""What docs/your_data.md shows is run as it stands."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from uem_t5x import baselines, data_sources
from uem_t5x.data import seal

PAGE = Path(__file__).parents[1] / "docs/your_data.md"
LABELS, CHANNEL = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def mine(dataset_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(dataset_folder.path, tmp_path / "runs/mine")


def test_labels_of_ones_own(mine):
    exec(
        LABELS,
        {"my_labels": lambda user: (["War", "Drama"], []) if int(user) % 2 else ([], ["War"])},
    )
    with data_sources.use_dataset_folder(seal.seal(mine)):
        users = baselines.Users.read("test")
    assert {int(user) % 2 for user in users.ids} == {0, 1}
    for user, taste in zip(users.ids, users.tastes):
        assert taste == ((["War", "Drama"], []) if int(user) % 2 else ([], ["War"]))


def test_a_channel_of_ones_own(mine):
    exec(CHANNEL, {"my_vector": lambda movie: np.full(64, movie)})
    folder = seal.seal(mine)
    assert [channel.name for channel in folder.channels][-1] == "poster"
    np.testing.assert_array_equal(folder.embeddings()["poster"][:, 5], folder.movies()["movieId"])
