"""What a file that is not what it should be seems to be, for the line that refuses it."""

import re

from etils import epath

SAFETENSORS = "a safetensors file"
_HEAD = 512  # bytes
_KINDS = {
    rb"version https://git-lfs": "a git-lfs pointer, for which `git lfs pull` fetches the file",
    rb"\s*<(!doctype\s+html|html|head|body)\b": "an HTML page, such as one of a failed download",
    rb"\s*<\?xml\b": "XML, such as a bucket's message of an error",
    rb"\s*[\[{]\s*([\]}\[{\"\d-]|true|false|null)": "JSON",
    rb"PK\x03\x04": "a zip archive, such as `torch.save` writes",
    rb"\x1f\x8b": "gzip-compressed",
    rb"\x89HDF": "an HDF5 file, such as Keras writes",
    rb".{8}\{\"": SAFETENSORS,
    rb"\x80[\x02-\x05]": "a pickle",
}
_TEXT = re.compile(r"[^\x00-\x08\x0e-\x1f\x7f]*")


def hint(path: epath.PathLike, expected: str | None = None) -> str:
    """Returns what a file seems to be, judged by how it begins: `it seems to be JSON`.

    Args:
      path: a file that was found not to be what it should be; it may lie in a bucket.
      expected: what that is, where it is one of the kinds; what looks like it is damaged.

    Returns:
      A clause for the message that refuses it. Of what looks like nothing else, the guess is that
      it was damaged or cut off.

    Raises:
      OSError: if the file cannot be read; TensorFlow's own error if it lies in a bucket.
    """
    with epath.Path(path).open("rb") as file:
        head = file.read(_HEAD).removeprefix(b"\xef\xbb\xbf")
    if not head:
        return "it is empty"
    for pattern, kind in _KINDS.items():
        if kind != expected and re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            return f"it seems to be {kind}"
    # The last character may be cut in two.
    text = head.decode(errors="ignore")
    if text and len(text.encode()) > len(head) - 4 and _TEXT.fullmatch(text):
        return "it seems to be a text"
    return "it seems to be damaged or cut off"
