"""Sweeps, written and read."""

import pytest
import tiny_sweep

from uem_t5x.runs import sweep_files


@pytest.fixture
def read_sweep(tmp_path):
    """Returns a function that writes `sweep.toml` and reads it."""

    def read_sweep(text=tiny_sweep.HISTORIES, bindings=("DATA_DIR = 'my data'",)):
        file = tmp_path / "sweep.toml"
        file.write_text(text)
        return sweep_files.read_sweep(str(file), f"{tmp_path}/out put", list(bindings))

    return read_sweep
