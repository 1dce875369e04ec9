import gzip
import json
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from uem_t5x.base import file_kinds


def a_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"...")


FILES = {
    "a git-lfs pointer, for which `git lfs pull` fetches the file": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 791656\n"
    ),
    "an HTML page, such as one of a failed download": "\n<!doctype html><html><title>404</title>",
    "XML, such as a bucket's message of an error": "<?xml version='1.0'?><Error/>",
    "JSON": json.dumps({"version": "1.0", "truncation": None}, indent=2),
    "a zip archive, such as `torch.save` writes": a_zip,
    "gzip-compressed": gzip.compress(b"..."),
    "a safetensors file": safetensors.numpy.save({"w": np.zeros(2)}),
    "a pickle": pickle.dumps({"w": 1}),
    "a text": "\ufeffcaf\u00e9\n" * 99,
    "damaged or cut off": b"\n\x0e\n\x05<pad>\x15\0\0\0\0",
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_known_by_how_it_begins(kind, tmp_path):
    path, content = tmp_path / "file", FILES[kind]
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert file_kinds.hint(path) == f"it seems to be {kind}"


def test_an_empty_file(tmp_path):
    (tmp_path / "file").touch()
    assert file_kinds.hint(tmp_path / "file") == "it is empty"
