"""Dataset folders that differ in little from another one."""

import json
import shutil

from uem_t5x.data import seal


def swap(folder, *splits):
    """Gives each of two splits the users of the other."""
    one, other = (folder / f"examples/{split}-00000-of-00001.tfrecord" for split in splits)
    users = one.read_bytes()
    other.rename(one)
    other.write_bytes(users)


def resealed(dataset_folder, tmp_path, **fields):
    other = shutil.copytree(dataset_folder.path, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, **fields}))
    return seal.seal(other)
