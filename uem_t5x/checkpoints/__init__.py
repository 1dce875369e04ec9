"""Checkpoints of language models and of runs: T5X's, Transformers', this project's own."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from uem_t5x.checkpoints.language_model import (
        blank_language_model,
        load_language_model,
        open_checkpoint,
        start_from_checkpoint,
    )
