"""The command line: quick to start, and short when it refuses."""

import subprocess
import sys

import pytest

from uem_t5x import cli


@pytest.mark.parametrize("command", [[], *([name] for name in cli.COMMANDS)])
def test_help_imports_nothing_heavy(command):
    program = (
        "import sys; from uem_t5x import cli\n"
        f"try: cli.main({[*command, '--help']!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'jax', 'polars', 'sklearn', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_no_model_there_is_one_line_and_exit_code_2(command, tmp_path, capsys):
    histories = tmp_path / "in.jsonl"
    histories.write_text("")
    arguments = ["--model-dir", str(tmp_path)]
    if command == "predict":
        arguments += ["--input", str(histories)]
    assert cli.main([command, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"uem-t5x {command}: {tmp_path}: no trained model here")
    assert error.count("\n") == 1


def test_a_missing_input_is_refused_before_a_model_is_loaded(tmp_path, capsys):
    arguments = ["predict", "--model-dir", str(tmp_path), "--input", str(tmp_path / "none")]
    assert cli.main(arguments) == 2
    assert "no such file" in capsys.readouterr().err
