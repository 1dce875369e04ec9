"""A dataset folder's manifest with another value, or with none: refused."""

import dataclasses
import json

import hypothesis
import pytest
from hostile_input import JSON, PROFILE, accepts, damaged, refusal
from hypothesis import given
from hypothesis import strategies as st

from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.data.manifest import Channel, EncoderRecord, Manifest, Split


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """A folder with a manifest, the manifest, and the bytes of its file."""
    folder = tmp_path_factory.mktemp("manifest")
    written = Manifest(
        genres=("Drama", "Spaß"),
        channels=(Channel("rating", 8, "rating"),),
        encoder=EncoderRecord("hashing", 8),
        splits={"train": Split(10, 1)},
        has_vocabulary=False,
        counts={"users": 10, "labels_per_user": 2.5},
        options={"seed": 0, "validation_users": 0.1},
        inputs={"movies": "00"},
        files={"items/movies.parquet": "00"},
    )
    written.write(folder)
    return folder, written, (folder / "manifest.json").read_bytes()


def parts(value, path=()):
    """Yields where each value of a JSON document lies in it."""
    yield path
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from parts(inner, (*path, key))


@PROFILE
@given(st.data())
def test_only_what_was_written_is_read(manifest, data):
    folder, written, whole = manifest
    (folder / "manifest.json").write_bytes(data.draw(st.binary() | damaged(whole)))
    assert accepts(Manifest.read, folder) in (None, written)


@PROFILE
@given(st.data())
def test_no_other_value_is_read(manifest, data):
    folder, _, whole = manifest
    fields = json.loads(whole)
    *outer, key = data.draw(st.sampled_from([path for path in parts(fields) if path]))
    place = fields
    for step in outer:
        place = place[step]
    before = json.dumps(place[key])
    if data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(JSON)
        hypothesis.assume(json.dumps(place[key]) != before)
    (folder / "manifest.json").write_text(json.dumps(fields))
    assert accepts(Manifest.read, folder) is None
    assert accepts(DatasetFolder.open, folder) is None


def test_white_space_and_order_say_nothing(manifest):
    folder, written, whole = manifest
    fields = dict(reversed(json.loads(whole).items()))
    (folder / "manifest.json").write_text(json.dumps(fields, indent=7))
    assert Manifest.read(folder) == written


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", ".."])
def test_no_path_leaves_the_folder(manifest, name):
    # Signed anew, as by someone who means harm.
    folder, written, _ = manifest
    dataclasses.replace(written, files={name: "00"}).write(folder)
    assert "which lies outside of it" in refusal(DatasetFolder.open, folder)
