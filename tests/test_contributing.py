"""CONTRIBUTING.md says of files that they are there, or are yet to come."""

import re
from pathlib import Path

import pytest
import yaml

from uem_t5x import __version__

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where the next changes go")[2]
ROWS = [row.strip("|").split("|") for row in re.findall(r"^\|.*\|$", TABLE, re.MULTILINE)][2:]
ROOMS = {Path(name) for name in ("tasks", "gin", "gin/models", "tests", "uem_t5x")}


def files(cell):
    return [Path(name) for name in re.findall(r"`([^`]+)`", cell)]


def test_the_table_is_of_four_changes():
    assert len(ROWS) == 4
    assert all(len(row) == 3 and files(row[1]) and files(row[2]) for row in ROWS)


@pytest.mark.parametrize(("change", "new", "touched"), ROWS)
def test_its_files(change, new, touched):
    for file in files(touched):
        assert (ROOT / file).is_file(), f"{change}: {file} is touched, and is not there"
    for file in files(new):
        assert not (ROOT / file).exists(), f"{change}: {file} is new, and there already"
        room = file.parent
        is_room = room in ROOMS or room.parts[0] in ("uem_t5x", "tests")
        assert is_room and (ROOT / room).is_dir(), f"{change}: {room} is no room"


def test_its_links():
    for page in [ROOT / "CONTRIBUTING.md", ROOT / "README.md", ROOT / "CHANGELOG.md"]:
        for link in re.findall(r"\]\(([^):#]+)\)", page.read_text()):
            assert (ROOT / link).exists(), f"{page.name}: {link} is not there"


def test_what_is_cited_is_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (__version__, "Apache-2.0")
