"""The command line: quick to start, and short when it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from uem_t5x import cli
from uem_t5x.base import atomic, startup
from uem_t5x.commands import evaluate


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


def test_help_with_training_imports_nothing_heavy():
    program = (
        "import runpy, sys; sys.argv = ['train', '--help']\n"
        "try: runpy.run_module('uem_t5x.train', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'tensorflow', 'jax', 'seqio', 'orbax'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def hidden(*modules):
    """Returns a line of a program in which some modules cannot be imported."""
    return f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"


@pytest.mark.parametrize("program", ["-m uem_t5x.train", "-m uem_t5x.cli train"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--gin.DATA_DIR={data} --gin.LEARNIN_RATE=1", "no macro LEARNIN_RATE; it has LEARNING_"),
        ("", "the macro DATA_DIR is not bound"),
        ("--gin.DATA_DIR=none", "none: no such folder; make one with"),
        ("--gin.DATA_DIR={here}", "not a dataset folder (no manifest.json)"),
        ("--gin.DATA_DIR={data} --gin.MODEL_DIR=run[1]", "run[1]: the [ in it would be taken"),
        ("--gin.DATA_DIR={data} --gin.INITIAL_CHECKPOINT_PATH=none", "none: no such folder; name"),
    ],
)
def test_training_is_refused_before_anything_heavy_is_imported(
    program, flags, message, dataset_folder, tmp_path
):
    places = flags.format(data=dataset_folder.path, here=tmp_path).split()
    model_dir = [] if "MODEL_DIR" in flags else ["--gin.MODEL_DIR=m"]
    module, *command = program.split()[1:]
    script = (
        hidden("jax", "tensorflow", "seqio", "polars")
        + f"sys.argv[1:] = {[*command, '--gin_file=gin/uem_tiny.gin', *model_dir, *places]!r}\n"
        + f"import runpy; runpy.run_module({module!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and message in line
    assert not Path("m").exists()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_folder_without_a_model_is_refused_before_anything_heavy_is_imported(command, tmp_path):
    arguments = [command, "--model-dir", str(tmp_path)]
    arguments += ["--input", __file__] if command == "predict" else []
    script = (
        hidden("jax", "tensorflow") + f"from uem_t5x import cli; sys.exit(cli.main({arguments!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2 and "no trained model here" in done.stderr


@pytest.mark.parametrize("program", [["-m", "uem_t5x.cli", "prepare"], ["-m", "uem_t5x.train"]])
def test_nothing_is_imported_from_the_current_folder_unasked(program, tmp_path):
    """As a downloaded folder may hold a `polars.py`."""
    for module in ("polars", "jax", "tempfile", "argparse"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('it was run')")
    flags = ["--gin_file=gin/uem_tiny.gin", "--gin.MODEL_DIR=m", "--gin.DATA_DIR=none"]
    if "prepare" in program:
        flags = ["--movielens=none", "--descriptions=none", "--output=out"]
    done = subprocess.run(
        [sys.executable, *program, *flags], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and "none: no such folder" in done.stderr


def test_imports_and_devices_are_quiet(capfd):
    script = (
        "from uem_t5x.base import startup; import os, sys\n"
        "startup.load('tensorflow'); startup.find_devices()\n"
        "with startup._quiet(): os.write(2, b'I0000 00:00:17.5 81 port.cc:153] no\\nheard\\n')\n"
    )
    environment = {name: os.environ[name] for name in os.environ if name != startup.LOG_LEVEL}

    def said(**more):
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, env={**environment, **more})
        return done.stderr.decode().splitlines()

    assert said() == ["heard"]
    assert "I0000 00:00:17.5 81 port.cc:153] no" in said(**{startup.LOG_LEVEL: "0"})


def test_what_is_said_of_an_import_that_fails_is_heard(tmp_path, capfd):
    (tmp_path / "broken.py").write_text("import os; os.write(2, b'why\\n'); raise ImportError")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ImportError):
        patch.syspath_prepend(tmp_path)
        startup.load("broken")
    assert capfd.readouterr().err == "why\n"


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


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_an_output_that_is_a_folder_is_refused_before_a_model_is_loaded(command, tmp_path, capsys):
    (tmp_path / "in.jsonl").touch()
    options = ["--input", str(tmp_path / "in.jsonl")] if command == "predict" else []
    arguments = [command, "--model-dir", str(tmp_path), "--output", str(tmp_path), *options]
    assert cli.main(arguments) == 2
    assert f"{tmp_path}: a folder; give the name of a file" in capsys.readouterr().err


def test_a_missing_input_is_refused_before_a_model_is_loaded(tmp_path, capsys):
    arguments = ["predict", "--model-dir", str(tmp_path), "--input", str(tmp_path / "none")]
    assert cli.main(arguments) == 2
    assert "no such file" in capsys.readouterr().err


def test_the_quickstart_removes_no_model_but_its_own(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine").touch()
    assert cli.main(["quickstart", "--output", str(tmp_path)]) == 2
    assert "model: exists and is no quickstart's" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "mine"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_that_names_the_file(monkeypatch, tmp_path, capsys):
    def write(_):
        with atomic.writing_file(tmp_path / "scores.json"), Path("/dev/full").open("w") as file:
            file.write("x")

    monkeypatch.setattr(evaluate, "run", write)
    assert cli.main(["evaluate", "--model-dir", "m"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("uem-t5x evaluate: ") and error.count("\n") == 1
    assert "No space left on device" in error and str(tmp_path / "scores.json") in error
    assert not list(tmp_path.iterdir())


def test_a_mistake_of_ours_has_a_traceback(monkeypatch):
    monkeypatch.setattr(evaluate, "run", lambda _: {}["none"])
    with pytest.raises(KeyError):
        cli.main(["evaluate", "--model-dir", "m"])


def test_a_macro_may_hold_spaces(monkeypatch):
    asked = []
    monkeypatch.setattr("uem_t5x.commands.compile.run", lambda args: asked.append(args) or 0)
    macro = "--gin.TASK_FEATURE_LENGTHS={'inputs': 2048, 'targets': 64}"
    assert cli.main(["compile", "--gin_file=r", "--topology", "v3-8", "v3-32", macro]) == 0
    assert asked[0].topology == ["v3-8", "v3-32"]
    assert asked[0].gin_macros == [macro]


def test_macros_are_for_commands_that_take_them(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["seal", "folder", "--gin.TRAIN_STEPS=1"])
    assert "unrecognized arguments: --gin.TRAIN_STEPS=1" in capsys.readouterr().err
