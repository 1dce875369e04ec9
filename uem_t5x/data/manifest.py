"""`manifest.json` of a dataset folder: what the folder holds and how it was made.

It holds the checksums of the other files, and its own. After an edit by hand, such as a line for a
channel that was added, `uem-t5x seal` makes them anew.
"""

import dataclasses
import json
import reprlib
from collections.abc import Mapping
from typing import Any, Literal

from etils import epath

from uem_t5x.base import atomic, checksums
from uem_t5x.base.errors import DamagedError, InputError
from uem_t5x.tastes.telling import Telling

FORMAT = "uem-t5x dataset folder"
FORMAT_VERSION = 4
_AS_IN_THE_PAPER = 3  # what is told so has had no other form since
FILE_NAME = "manifest.json"


@dataclasses.dataclass(frozen=True)
class EncoderRecord:
    """The arguments of `sentence_encoders.make_encoder` that made the embeddings.

    Attributes:
        name: `hashing`, `sentence-t5-base`, ...
        width: the number of columns it writes.
        source: the folder or hub handle that the model was loaded from; None for `hashing`.
        sha256: of the model, wherever it lies. None for `hashing`, and in folders from before it
            was recorded.
    """

    name: str
    width: int
    source: str | None = None
    sha256: str | None = None

    def is_same(self, other: "EncoderRecord") -> bool:
        """Whether both encode alike, from wherever they were loaded.

        Of a model whose checksum was not recorded, that is taken for granted.
        """
        if (self.name, self.width) != (other.name, other.width):
            return False
        return None in (self.sha256, other.sha256) or self.sha256 == other.sha256


@dataclasses.dataclass(frozen=True)
class Channel:
    """One of the vectors that are concatenated to the embedding of a history item.

    Attributes:
        name: the key of its matrix in `items/embeddings.safetensors`.
        width: the number of columns of that matrix.
        index: what selects a row: the `item` (its row in the movie table) or its `rating` (in
            half-stars). Row 0 is padding in both.
        encoder: what encoded its sentences, where that is not the manifest's.
    """

    name: str
    width: int
    index: Literal["item", "rating"]
    encoder: EncoderRecord | None = None

    def __post_init__(self) -> None:
        if self.index not in ("item", "rating"):  # of a file, which no type checker has seen
            raise ValueError(f"index {self.index!r}")


@dataclasses.dataclass(frozen=True)
class Split:
    """The users of a split.

    Attributes:
        examples: how many there are.
        shards: over how many files they are spread.
        sha256: of the checksums of these files, in order: of the users, their histories and labels.
            `dataset_folder.write_manifest` fills it in. None in a catalogue from before format 3.

    Raises:
        ValueError: if these are no counts, or there are more files than users and one.
    """

    examples: int
    shards: int
    sha256: str | None = None

    def __post_init__(self) -> None:
        counts = (self.examples, self.shards)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"a split of {self.examples!r} users in {self.shards!r} files")
        if self.shards > max(1, self.examples):
            raise ValueError(f"{self.shards} files for {self.examples} users")


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
        inputs: sha256 of each input file, as `movies`, `ratings` and `descriptions`.
        telling: how histories are told, and what is asked of them. What is told as the paper does
            has no record of it.
        files: sha256 of each other file of the folder, by its place in it.
        format_version: of the folder's layout; readers refuse others; `seal` mends older ones.
    """

    genres: tuple[str, ...]
    channels: tuple[Channel, ...]
    encoder: EncoderRecord
    splits: Mapping[str, Split]
    has_vocabulary: bool
    counts: Mapping[str, int | float]
    options: Mapping[str, Any]
    inputs: Mapping[str, str]
    telling: Telling = dataclasses.field(default_factory=Telling)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def source(self) -> str | None:
        """The source that `prepare` was told of, a preset's name or a file; None of MovieLens."""
        return self.options.get("source")

    def write(self, folder: epath.PathLike) -> None:
        """Writes `manifest.json` into `folder`, whole or not at all."""
        record = {"format": FORMAT, **dataclasses.asdict(self)}
        for channel in record["channels"]:
            if channel["encoder"] is None:  # as of folders from before a channel could have one
                del channel["encoder"]
        if self.encoder.sha256 is None:  # readers from before there was one know no such field
            del record["encoder"]["sha256"]
        if self.telling == Telling():
            del record["telling"]
            record["format_version"] = _AS_IN_THE_PAPER
        fields = checksums.signed(record)
        text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
        atomic.write_text(epath.Path(folder) / FILE_NAME, text)

    @classmethod
    def read(cls, folder: epath.PathLike, edited: bool = False) -> "Manifest":
        """Reads `manifest.json` of `folder`.

        Args:
            folder: the dataset folder.
            edited: whether it may have been changed, or be of an older version.

        Raises:
            InputError: if it, or the folder, is missing, of something else, of another version, or
                damaged.
        """
        path = epath.Path(folder) / FILE_NAME
        if not path.parent.is_dir():
            raise InputError(f"{folder}: no such folder; make one with `uem-t5x prepare`")
        if not path.is_file():
            raise InputError(
                f"{folder}: not a dataset folder (no {FILE_NAME}); make one with `uem-t5x prepare`"
            )
        remake = "copy it again, or make the folder again with `uem-t5x prepare --overwrite`"
        seal = f"`uem-t5x seal {folder}`"
        try:
            fields = json.loads(path.read_bytes())
            is_signed = isinstance(fields, dict) and checksums.is_signed(fields)
        except (OSError, ValueError, RecursionError) as error:
            raise DamagedError(f"{path}: unreadable ({type(error).__name__}); {remake}") from error
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise InputError(f"{path}: not of a dataset folder; make one with `uem-t5x prepare`")
        version = fields.get("format_version")
        if not isinstance(version, int):
            shown = reprlib.repr(version)
            raise DamagedError(f"{path}: format version {shown} is not a number; {remake}")
        if version > FORMAT_VERSION:
            raise InputError(
                f"{path}: format version {reprlib.repr(version)} is newer than {FORMAT_VERSION}, "
                "the newest this uem-t5x reads; update uem-t5x"
            )
        if version < _AS_IN_THE_PAPER and not edited:
            raise InputError(
                f"{path}: format version {reprlib.repr(version)} is older than "
                f"{_AS_IN_THE_PAPER}; "
                f"{seal} brings the folder up to it"
            )
        if not edited and not is_signed:
            raise DamagedError(
                f"{path}: damaged: its checksum is another; {remake}. If you have changed it "
                f"yourself: {seal}"
            )
        for name in ("format", "format_version", checksums.OWN):
            fields.pop(name, None)
        try:
            fields["genres"] = tuple(fields["genres"])
            fields["channels"] = tuple(_channel(**channel) for channel in fields["channels"])
            fields["encoder"] = EncoderRecord(**fields["encoder"])
            fields["splits"] = {name: Split(**split) for name, split in fields["splits"].items()}
            if "telling" in fields:
                fields["telling"] = Telling.from_json(fields["telling"])
            fields["files"] = {
                name: str(digest) for name, digest in fields.get("files", {}).items()
            }
            return cls(**fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = reprlib.repr(str(error))
            raise DamagedError(f"{path}: damaged ({reason}); {remake}") from error


def _channel(encoder: Mapping[str, Any] | None = None, **fields: Any) -> Channel:
    """Returns a channel of a file."""
    return Channel(**fields, encoder=EncoderRecord(**encoder) if encoder else None)
