"""A recipe's arguments without data, vocabulary, checkpoint or the devices that it is for."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from uem_t5x.base import startup
from uem_t5x.tastes.rating_scale import RATING_ROWS

_LAYOUT = "LAYOUT/macro.value"


@contextlib.contextmanager
def recipe(files: Sequence[str], bindings: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the arguments that a recipe gives to `train`, and its `layout`; reads no data files.

    Without a `DATA_DIR` among the bindings it reads a stand-in for a dataset folder.

    Raises:
      InputError: a recipe that cannot be read, or a macro that it does not have.
    """
    import gin

    from uem_t5x.runs import recipes

    recipes.check_bindings(files, bindings)  # before what takes seconds
    startup.load("uem_t5x.train")
    from uem_t5x import train
    from uem_t5x.inputs import data_sources
    from uem_t5x.network import layouts

    places = ["MODEL_DIR = ''", "DATA_DIR = ''", "INITIAL_CHECKPOINT_PATH = ''"]
    has_data = any(binding.startswith("DATA_DIR = ") for binding in bindings)
    folder = contextlib.nullcontext() if has_data else data_sources.use_dataset_folder(_stand_in())
    with folder, recipes.main_module(train):
        recipes.parse(files, [*places, *bindings])
        # The layout is of devices that are not here.
        layout = layouts.Layout.parse(gin.query_parameter(_LAYOUT))
        with gin.unlock_config():
            gin.bind_parameter(_LAYOUT, str(layouts.Layout()))
        yield gin.get_bindings(train.train, resolve_references=True) | {"layout": layout}


def _stand_in() -> Any:
    """Returns a dataset folder without files, of the paper's size: 8,200 movies, 3 x 768 wide."""
    from etils import epath

    from uem_t5x.data.dataset_folder import DatasetFolder
    from uem_t5x.data.manifest import Channel, EncoderRecord, Manifest

    rows = {"item": 8_201, "rating": RATING_ROWS}  # row 0 is padding

    class StandIn(DatasetFolder):
        def embedding_shape(self, channel: Channel) -> tuple[int, int]:
            return rows[channel.index], channel.width

    names = {"title_genres": "item", "description": "item", "rating": "rating"}
    manifest = Manifest(
        genres=(),
        channels=tuple(Channel(name, 768, index) for name, index in names.items()),
        encoder=EncoderRecord("sentence-t5-base", 768),
        splits={},
        has_vocabulary=False,
        counts={},
        options={},
        inputs={},
    )
    return StandIn(epath.Path("a stand-in, without files"), manifest)
