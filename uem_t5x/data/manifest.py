"""`manifest.json` of a dataset folder: what the folder holds and how it was made."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from etils import epath

from uem_t5x.errors import InputError

FORMAT = "uem-t5x dataset folder"
FORMAT_VERSION = 1
FILE_NAME = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Channel:
    """One of the vectors that are concatenated to the embedding of a history item.

    Attributes:
        name: the key of its matrix in `items/embeddings.safetensors`.
        width: the number of columns of that matrix.
        index: what selects a row: the `item` (its row in the movie table) or its `rating` (in
            half-stars). Row 0 is padding in both.
    """

    name: str
    width: int
    index: Literal["item", "rating"]


@dataclasses.dataclass(frozen=True)
class EncoderRecord:
    """The arguments of `sentence_encoders.make_encoder` that made the embeddings.

    Attributes:
        name: `hashing`, `sentence-t5-base`, ...
        width: the number of columns it writes.
        source: the folder or hub handle that the model was loaded from; None for `hashing`.
    """

    name: str
    width: int
    source: str | None = None


@dataclasses.dataclass(frozen=True)
class Split:
    """How many users a split has, and over how many files they are spread."""

    examples: int
    shards: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a dataset folder says about itself.

    Attributes:
        genres: class names, sorted; labels and the genre matrix index them.
        channels: in the order in which an item's embedding concatenates them.
        encoder: what encoded the sentences of the channels.
        splits: `train`, `validation` and `test`.
        has_vocabulary: whether a SentencePiece vocabulary was trained for this folder.
        counts: what was kept and what was dropped, by name.
        options: the options of `prepare`.
        inputs: sha256 of each input file, by file name.
        format_version: of the folder's layout; readers refuse a newer one.
    """

    genres: tuple[str, ...]
    channels: tuple[Channel, ...]
    encoder: EncoderRecord
    splits: Mapping[str, Split]
    has_vocabulary: bool
    counts: Mapping[str, int | float]
    options: Mapping[str, Any]
    inputs: Mapping[str, str]
    format_version: int = FORMAT_VERSION

    def same_catalogue(self, other: "Manifest") -> bool:
        """Whether rows, genres and vectors of two folders mean the same."""

        def catalogue(manifest: Manifest) -> tuple[Any, ...]:
            return manifest.genres, manifest.channels, manifest.encoder, manifest.inputs

        return catalogue(self) == catalogue(other)

    def write(self, folder: Path) -> None:
        """Writes `manifest.json` into `folder`."""
        fields = {"format": FORMAT, **dataclasses.asdict(self)}
        text = json.dumps(fields, indent=2, ensure_ascii=False)
        (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: epath.PathLike) -> "Manifest":
        """Reads `manifest.json` of `folder`.

        Raises:
            InputError: if it is missing, of something else, of a newer version, or damaged.
        """
        path = epath.Path(folder) / FILE_NAME
        if not path.is_file():
            raise InputError(
                f"{folder}: not a dataset folder (no {FILE_NAME}); make one with `uem-t5x prepare`"
            )
        remake = "make the folder again with `uem-t5x prepare --overwrite`"
        try:
            fields = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: unreadable ({type(error).__name__}); {remake}") from error
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
            raise InputError(f"{path}: not of a dataset folder; make one with `uem-t5x prepare`")
        version = fields.get("format_version")
        if not isinstance(version, int):
            raise InputError(f"{path}: format version {version!r} is not a number; {remake}")
        if version > FORMAT_VERSION:
            raise InputError(
                f"{path}: format version {version} is newer than {FORMAT_VERSION}, the newest this "
                "uem-t5x reads; update uem-t5x"
            )
        try:
            fields["genres"] = tuple(fields["genres"])
            fields["channels"] = tuple(Channel(**channel) for channel in fields["channels"])
            fields["encoder"] = EncoderRecord(**fields["encoder"])
            fields["splits"] = {name: Split(**split) for name, split in fields["splits"].items()}
            return cls(**fields)
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(f"{path}: damaged ({error}); {remake}") from error
