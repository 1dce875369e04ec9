"""Small dataset folders of made-up users, as a user makes them."""

from pathlib import Path

from uem_t5x.data import synthetic
from uem_t5x.data.prepare import PrepareOptions, prepare
from uem_t5x.data.synthetic import SynthesizeOptions


def synthesized(output: Path, **options):
    """Writes MovieLens files and descriptions; options are those of `synthesize`."""
    synthetic.synthesize(SynthesizeOptions(output, **options))
    return output


def prepared(movielens: Path, output: Path, **options):
    """Returns the dataset folder of such files, with vectors and a vocabulary for a tiny model."""
    defaults = {
        "encoder_width": 16,
        "validation_users": 10,
        "test_users": 10,
        "vocabulary_size": 256,
    }
    return prepare(
        PrepareOptions(
            movielens=movielens,
            descriptions=movielens / synthetic.DESCRIPTIONS,
            output=output,
            **{**defaults, **options},
        )
    )
