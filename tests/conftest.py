"""Checks every annotated tensor shape while the tests run, and builds what several tests share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook("uem_t5x", "beartype.beartype")

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def dataset_folder():
    from uem_t5x.data.dataset_folder import DatasetFolder

    return DatasetFolder.open("/work/scratch/tmpds")
