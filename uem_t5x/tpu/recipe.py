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

    Without a `DATA_DIR` among the bindings the item table is of the paper's size.

    Raises:
      InputError: a recipe that cannot be read, or a macro that it does not have.
    """
    import gin

    from uem_t5x.runs import recipes

    recipes.check_bindings(files, bindings)  # before what takes seconds
    startup.load("uem_t5x.train")
    from uem_t5x import engine, train
    from uem_t5x.inputs import data_sources
    from uem_t5x.network import layouts

    places = ["MODEL_DIR = ''", "DATA_DIR = ''", "INITIAL_CHECKPOINT_PATH = ''"]
    has_data = any(binding.startswith("DATA_DIR = ") for binding in bindings)
    channels = contextlib.nullcontext() if has_data else data_sources.use_channels(_stand_in())
    with channels, engine.built_in(), recipes.main_module(train):
        recipes.parse(files, [*places, *bindings])
        # The layout is of devices that are not here.
        layout = layouts.Layout.parse(gin.query_parameter(_LAYOUT))
        with gin.unlock_config():
            gin.bind_parameter(_LAYOUT, str(layouts.Layout()))
        yield gin.get_bindings(train.train, resolve_references=True) | {"layout": layout}


def _stand_in() -> list[Any]:
    """Returns the channels of a catalogue of the paper's size: 8,200 movies, 3 x 768 wide."""
    from uem_t5x.network.item_table import Channel

    rows = {"item": 8_201, "rating": RATING_ROWS}  # row 0 is padding
    names = {"title_genres": "item", "description": "item", "rating": "rating"}
    return [Channel(name, rows[index], 768, index) for name, index in names.items()]
