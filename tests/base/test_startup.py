"""Programs that JAX keeps for the next start."""

import os
import subprocess
import sys

PROGRAM = """
import jax, jax.numpy as jnp
from uem_t5x.base import startup
startup._WORTH_KEEPING_S = 0
startup.keep_programs()
print(jax.config.jax_compilation_cache_dir)
print(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.eye(3)).sum())
"""


def run(cache, **environment):
    variables = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    variables |= {"UEM_T5X_CACHE": str(cache), **environment}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=variables, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_programs_are_kept_by_kind_of_machine(tmp_path):
    place, answer = run(tmp_path / "kept")
    assert place.startswith(str(tmp_path / "kept/programs"))
    files = {file.name for file in (tmp_path / "kept/programs").rglob("*-cache")}
    assert files
    assert run(tmp_path / "kept") == [place, answer]
    assert {file.name for file in (tmp_path / "kept/programs").rglob("*-cache")} == files


def test_where_jax_is_told_of_another_place_that_counts(tmp_path):
    place, _ = run(tmp_path / "kept", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))
    assert place == str(tmp_path / "own") and not (tmp_path / "kept").exists()
