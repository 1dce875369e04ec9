"""Whether two dataset folders are the same, byte for byte."""

import filecmp
from pathlib import Path


def files_of(folder):
    return {
        str(file.relative_to(folder)): file for file in Path(folder).rglob("*") if file.is_file()
    }


def assert_same_folder(one, other):
    one, other = files_of(one), files_of(other)
    assert one.keys() == other.keys() and len(one) > 5
    for name, file in one.items():
        if name != "manifest.json" or file.read_bytes() != other[name].read_bytes():
            assert filecmp.cmp(file, other[name], shallow=False), name
