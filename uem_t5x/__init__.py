"""The User Embedding Module (arXiv 2401.04858) in JAX and Flax, on T5X."""

__version__ = "0.1.0"
