"""What tests of the tasks' steps share."""

import pytest

from uem_t5x.inputs import data_sources


@pytest.fixture
def current_folder(dataset_folder):
    """The small dataset folder, as the one that tasks read."""
    with data_sources.use_dataset_folder(dataset_folder):
        yield dataset_folder
