"""A sweep of tiny recipes, and the data that its runs are compared by."""

from uem_t5x.data import dataset_folder
from uem_t5x.data.manifest import Channel, EncoderRecord, Manifest, Split

HISTORIES = """
seeds = [0, 1]

[[runs]]
recipes = ["uem_tiny"]
macros.HISTORY_LENGTH = [5, 50]

[[runs]]
recipes = ["uem_tiny", "text_tiny"]
macros.HISTORY_LENGTH = 50

[[runs]]
recipes = ["uem_tiny"]
macros = {UEM_LAYERS = [1, 2], PROMPT_LENGTH = 4}

[recipes.text_tiny]
HISTORY_ORDER = "most_recent_last"
"""


def write_data(folder, train="users 1", ratings="ratings 1", vocabulary="pieces 1"):
    """Writes what a dataset folder, or a run's catalogue, is compared by."""
    for file, text in ((dataset_folder.MOVIES, "movies"), (dataset_folder.VOCABULARY, vocabulary)):
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_text(text)
    splits = {"train": train, "validation": "users 2", "test": "users 3"}
    manifest = Manifest(
        genres=("Drama", "War"),
        channels=(Channel("description", 96, "item"),),
        encoder=EncoderRecord("hashing", 96),
        splits={name: Split(10, 1, users) for name, users in splits.items()},
        has_vocabulary=True,
        counts={},
        options={},
        inputs={"ratings": ratings},
    )
    dataset_folder.write_catalogue_manifest(folder, manifest)
    return folder
