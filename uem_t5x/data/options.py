"""What the making of data is asked for; nothing heavy is imported to ask."""

import dataclasses
import os
from pathlib import Path

MIN_HISTORY = 20


@dataclasses.dataclass(frozen=True)
class SynthesizeOptions:
    """What `synthetic.synthesize` is asked for.

    Attributes:
        output: the folder to write.
        users: how many users.
        movies: how many movies; each has a description.
        ratings: about how many ratings; None gives 110 a user, as in the paper.
        seed: the same options and seed give the same bytes.
        overwrite: replaces a synthetic folder at `output`.
    """

    output: Path
    users: int = 600
    movies: int = 1500
    ratings: int | None = None
    seed: int = 0
    overwrite: bool = False


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """What `prepare.prepare` is asked for.

    Attributes:
        movielens: the MovieLens folder, or the zip file as published; None for `source`.
        descriptions: the description table, of MovieLens.
        output: the dataset folder to write; in a bucket only by a runner.
        encoder: the sentence encoder; `NAME=FOLDER` loads a SentenceT5 from a local copy.
        encoder_width: the length of the vectors of `hashing`; None is its default.
        min_history: users with fewer described movies are dropped; where there are questions,
            those about fewer. None is `MIN_HISTORY`, or 1 where there are questions.
        validation_users: how many users (int), or what fraction of them (float).
        test_users: the same.
        seed: draws the splits.
        vocabulary_size: of the SentencePiece vocabulary to be trained; None trains none.
        overwrite: replaces a dataset folder at `output`.
        source: the name of a preset or a TOML file, see `uem_t5x.data.sources`; None for
            `movielens`.
        data: the folder, which may be in a bucket, or zip file that the source's files lie in.
    """

    movielens: Path | None = None
    descriptions: Path | None = None
    output: os.PathLike[str] = Path()
    encoder: str = "hashing"
    encoder_width: int | None = None
    min_history: int | None = None
    validation_users: int | float = 0.1
    test_users: int | float = 0.1
    seed: int = 0
    vocabulary_size: int | None = None
    overwrite: bool = False
    source: str | None = None
    data: os.PathLike[str] | None = None
