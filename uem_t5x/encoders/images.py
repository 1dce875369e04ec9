"""An image encoder: pictures in, one float32 vector a picture out.

CLIP (arXiv 2103.00020), SigLIP (arXiv 2303.15343) and other vision models of Hugging Face's
Transformers, with the image processor that their folder names.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from uem_t5x.base.errors import InputError, first_line

_BATCH = 32


def find_pictures(
    folder: str | os.PathLike[str], numbered: bool = True
) -> Mapping[int | str, Path]:
    """Returns the pictures of a folder by the ids of the items that they are named by.

    Files of other kinds than pictures, as their suffixes tell, are not looked at.

    Args:
      folder: holds `12.jpg`, `260.png` and so on, of any form that Pillow reads.
      numbered: whether ids are whole numbers; else they are texts.

    Raises:
      InputError: if there is no picture, one has no number for a name, or two have the same.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder; give --images a folder of pictures")
    from PIL import Image

    suffixes = Image.registered_extensions()
    by_id: dict[int | str, Path] = {}
    for file in sorted(Path(folder).iterdir()):
        if file.suffix.lower() not in suffixes or file.name.startswith("."):
            continue
        if numbered and not (file.stem.isascii() and file.stem.isdigit()):
            raise InputError(f"{file}: name it by its item's id, as 12{file.suffix}")
        other = by_id.setdefault(int(file.stem) if numbered else file.stem, file)
        if other != file:
            raise InputError(f"{file}: {other.name} is of the same item; leave one of them")
    if not by_id:
        raise InputError(f"{folder}: no pictures; name them by their items' ids, as 12.jpg")
    return by_id


class ImageEncoder:
    """A vision model of Transformers: its image features, or else its pooled output.

    Attributes:
      source: its folder, or its name on the hub.
    """

    def __init__(self, source: str) -> None:
        """Loads a model.

        Raises:
          InputError: if its packages are missing, it cannot be loaded, lacks weights, or makes no
            single vector of a picture.
        """
        self.source = source
        try:
            import torch
            import transformers
            from PIL import Image  # noqa: F401  what the image processor reads
        except ImportError as error:
            raise InputError(
                f"--image-encoder {source}: the package {error.name} is missing; "
                "install uem-t5x[images]"
            ) from error
        self._torch = torch
        transformers.logging.set_verbosity_error()  # it tells of every processor that it knows
        transformers.logging.disable_progress_bar()
        try:
            self._processor = transformers.AutoImageProcessor.from_pretrained(source)
            config = transformers.AutoConfig.from_pretrained(source)
            # Not always the one that `AutoModel` takes, which may leave out a projection.
            (name, *_) = config.architectures or ["AutoModel"]
            kind = getattr(transformers, name, transformers.AutoModel)
            model, loaded = kind.from_pretrained(source, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise InputError(
                f"{source}: no image encoder can be loaded ({first_line(error)}); give "
                "--image-encoder a folder that Transformers has written, with the model and its "
                "preprocessor_config.json"
            ) from error
        if loaded["missing_keys"]:
            raise InputError(
                f"{source}: has no weights for {min(loaded['missing_keys'])}; give "
                "--image-encoder a whole model"
            )
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.eval().to(self._device)

    def encode(
        self, pictures: Sequence[str | os.PathLike[str]], on_progress: Callable[[int], Any]
    ) -> Float32[np.ndarray, "pictures width"]:
        """Encodes pictures, each by itself.

        Args:
          pictures: files of any form that Pillow reads, turned as their EXIF data say.
          on_progress: is told, batch by batch, how many more are done.

        Raises:
          InputError: if one cannot be read.
        """
        vectors = []
        for start in range(0, len(pictures), _BATCH):
            batch = [_read(Path(picture)) for picture in pictures[start : start + _BATCH]]
            inputs = self._processor(images=batch, return_tensors="pt").to(self._device)
            with self._torch.inference_mode():
                vectors.append(self._features(inputs).float().cpu().numpy())
            on_progress(len(batch))
        return np.concatenate(vectors)

    def _features(self, inputs: Mapping[str, Any]) -> Any:
        """Returns what a model that also reads text compares pictures by, if it is one."""
        features = getattr(self._model, "get_image_features", self._model)(**inputs)
        for name in ("image_embeds", "pooler_output"):
            if (vectors := getattr(features, name, None)) is not None and vectors.ndim == 2:
                return vectors
        raise InputError(
            f"{self.source}: a {type(self._model).__name__} makes no single vector of a picture; "
            "give --image-encoder a CLIP or a SigLIP"
        )


def _read(file: Path) -> Any:
    """Returns a picture in RGB, the right way up."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{file}: cannot be read as a picture ({first_line(error)}); replace it, or take it "
            "away"
        ) from error
