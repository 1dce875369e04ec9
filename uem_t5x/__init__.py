"""The User Embedding Module (arXiv 2401.04858) in JAX and Flax, on T5X."""

from etils import epy

from uem_t5x.base import version

__version__ = version.VERSION

with epy.lazy_api_imports(globals()):
    from uem_t5x.answers.model import Model, load
