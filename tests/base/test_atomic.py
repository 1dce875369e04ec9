"""Files and folders that are written whole, whoever is killed, and what is left alone."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from uem_t5x import cli
from uem_t5x.base import atomic
from uem_t5x.base.errors import InputError

# Gets the name of a file, of which it writes half.
HALF_A_FILE = """
import os, signal, sys
from uem_t5x.base import atomic

with atomic.writing_file(sys.argv[1]) as file:
    file.write("half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
# The kernel ends it after 4 KiB, by whichever way it writes them.
HALF_THE_SCORES = """
import resource, signal, sys
from uem_t5x.answers import evaluate

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
evaluate.write_metrics({"f1": [0.5] * 10_000}, sys.argv[1])
"""
# Gets the name of a folder, which it replaces, and how many of the last steps it still takes.
HALF_A_REPLACEMENT = """
import os, shutil, signal, sys
from pathlib import Path
from uem_t5x.base import atomic

steps = iter(range(int(sys.argv[2])))

def counted(step):
    def take(*arguments, **options):
        if next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments, **options)
    return take

with atomic.writing_folder(Path(sys.argv[1]), "thing", Path.is_dir, overwrite=True) as folder:
    (folder / "content").write_text("new")
    Path.rename, shutil.rmtree = counted(Path.rename), counted(shutil.rmtree)
"""


def killed(program, *arguments, by=signal.SIGKILL):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -by, done.stderr


def contents(folder):
    return [file.read_text() for file in folder.rglob("*") if file.is_file()]


def test_a_file_is_as_it_was_when_its_writer_is_killed(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("old")
    killed(HALF_A_FILE, path)
    assert path.read_text() == "old"
    assert sorted(contents(tmp_path)) == ["half", "old"]  # so it was killed in the midst of it
    atomic.write_text(path, "new")
    assert contents(tmp_path) == ["new"]


def test_two_writers_of_a_file_do_not_mix(tmp_path):
    path = tmp_path / "answers.jsonl"
    program = """
import sys
from uem_t5x.base import atomic
with atomic.writing_file(sys.argv[1]) as file:
    file.write("theirs")
    file.flush()
    print("begun", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == b"begun\n"
        atomic.write_text(path, "ours")
        assert path.read_text() == "ours"
    assert other.returncode == 0
    assert contents(tmp_path) == ["theirs"]


def test_scores_are_as_they_were_when_their_writer_is_killed(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    killed(HALF_THE_SCORES, path, by=signal.SIGXFSZ)
    assert path.read_text() == "old"
    assert sorted(map(len, contents(tmp_path))) == [3, 4096]


@pytest.mark.parametrize(
    ("steps", "found", "left"),
    [
        pytest.param(0, "old", "old", id="before the old folder is moved away"),
        pytest.param(1, None, "old", id="before the new one is moved in"),
        pytest.param(2, "new", "new", id="before the old one is set aside"),
        pytest.param(3, "new", "new", id="before it is removed"),
    ],
)
def test_a_replacement_that_is_cut_short_is_undone_or_done(steps, found, left, tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "content").write_text("old")
    killed(HALF_A_REPLACEMENT, path, steps)
    assert contents(path) == ([found] if found else [])
    assert sorted(contents(tmp_path)) == ["new", "old"]

    def write(text, overwrite):
        with atomic.writing_folder(path, "thing", lambda _: True, overwrite) as folder:
            (folder / "content").write_text(text)

    with pytest.raises(InputError, match="already a thing"):
        write("refused", overwrite=False)
    assert contents(path) == [left]
    assert [*tmp_path.iterdir()] == [path]
    write("next", overwrite=True)
    assert contents(tmp_path) == ["next"]


@pytest.mark.parametrize("is_by_the_next", [False, True])
def test_what_is_half_removed_is_not_brought_back(is_by_the_next, tmp_path, monkeypatch):
    path = tmp_path / "folder"

    def write(text):
        with atomic.writing_folder(path, "thing", lambda _: True, overwrite=True) as folder:
            for part in "ab":
                (folder / part).write_text(text)

    def half(folder, **_):
        (folder / "a").unlink(missing_ok=True)
        raise KeyboardInterrupt

    write("old")
    if is_by_the_next:
        killed(HALF_A_REPLACEMENT, path, 2)  # what it replaced is whole, and beside it
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("shutil.rmtree", half)
        write("new")
    shutil.rmtree(path)
    with pytest.raises(ZeroDivisionError), atomic.writing_folder(path, "thing", bool, False):
        raise ZeroDivisionError
    assert not path.exists()


def test_a_link_stays_one(tmp_path):
    target, link = tmp_path / "there/scores.json", tmp_path / "here/link.json"
    for path in (target, link):
        path.parent.mkdir()
    link.symlink_to(target)
    for text in ("new", "newer"):  # the first one leads to nothing yet
        atomic.write_text(link, text)
        assert link.is_symlink() and target.read_text() == text
    assert sorted(tmp_path.rglob("*.*")) == [link, target]


def test_a_link_of_a_run_that_fails_leads_to_what_was_there(tmp_path):
    target, link = tmp_path / "scores.json", tmp_path / "link.json"
    target.write_text("as it was")
    link.symlink_to(target)
    with pytest.raises(KeyboardInterrupt), atomic.writing_file(link) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert link.is_symlink() and target.read_text() == "as it was"
    assert sorted(tmp_path.iterdir()) == [link, target]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("file", ["folder/notes.txt", "folder"])
def test_what_appears_while_a_folder_is_written_stays(file, overwrite, tmp_path):
    other = tmp_path / file
    with (
        pytest.raises(InputError, match="folder: exists and is not just a thing"),
        atomic.writing_folder(tmp_path / "folder", "thing", lambda _: False, overwrite) as folder,
    ):
        (folder / "content").write_text("ours")
        other.parent.mkdir(exist_ok=True)
        other.write_text("theirs")
    assert contents(tmp_path) == ["theirs"]


def test_of_two_that_write_the_same_folder_the_first_is_kept(tmp_path):
    def write(text):
        return atomic.writing_folder(tmp_path / "folder", "thing", lambda _: True, overwrite=False)

    with pytest.raises(InputError, match="already a thing"), write("second") as second:
        (second / "content").write_text("second")
        # Of another process, whose number its name would hold.
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder/content").write_text("first")
    assert contents(tmp_path) == ["first"]


@pytest.mark.parametrize("is_linked", [False, True])
def test_what_is_no_regular_file_is_not_replaced(is_linked, tmp_path):
    pipe = named = tmp_path / "pipe"
    os.mkfifo(pipe)
    if is_linked:  # as /dev/stdout is
        named = tmp_path / "link"
        named.symlink_to(pipe)
    with pytest.raises(InputError) as error:
        atomic.write_text(named, "text")
    assert str(error.value) == f"{named}: not a regular file; give the name of one"
    assert pipe.is_fifo() and named.is_symlink() == is_linked
    assert set(tmp_path.iterdir()) == {pipe, named}


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_commands_refuse_a_pipe_before_a_model_is_loaded(command, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "in.jsonl").touch()
    options = ["--input", str(tmp_path / "in.jsonl")] if command == "predict" else []
    arguments = ["--model-dir", str(tmp_path), "--output", str(tmp_path / "pipe"), *options]
    assert cli.main([command, *arguments]) == 2
    assert "pipe: not a regular file; give the name of one" in capsys.readouterr().err
