"""Runs, written and compared."""

import fake_runs
import pytest

from uem_t5x.report import settings
from uem_t5x.runs.finished import Run


@pytest.fixture
def compared(tmp_path):
    """Writes runs, each with the arguments of `fake_runs.write`, and compares them."""

    def compared(*runs):
        read = [
            Run.read(fake_runs.write(tmp_path / str(number), **kwargs))
            for number, kwargs in enumerate(runs)
        ]
        (comparison,) = settings.compare(read)
        return comparison

    return compared
