"""A folder of Transformers' to be changed."""

import shutil
from pathlib import Path

import pytest
from huggingface_case import CHECKPOINT


@pytest.fixture
def folder(tmp_path):
    """A copy of a small T5 1.1."""
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
