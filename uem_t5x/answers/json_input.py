"""Lines of JSON, from a file or from whoever writes them by and by."""

import io
import select
from collections.abc import Iterator

# A line is parsed whole, into as much as 35 times its size. 30,000 ratings, more than anyone in
# MovieLens has given, take a tenth of this; the model reads the most recent few of them.
MAX_LINE_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**20
# Milliseconds in which whoever writes without a break has filled a pipe again.
_PATIENCE = 20


def read_lines(file: io.BufferedIOBase) -> Iterator[bytes | None]:
    """Yields the lines of a file; of one that is too long to be read, just its beginning.

    Where they come by and by, through a pipe or from a terminal, None stands wherever the next one
    has to be waited for.
    """
    line = bytearray()  # what has come of the next one
    for chunk in _chunks(file):
        if chunk is None:
            yield None
            continue
        for part in io.BytesIO(chunk):
            line += part[: MAX_LINE_BYTES + 1 - len(line)]
            if part.endswith(b"\n"):
                yield bytes(line)
                line.clear()
    if line:
        yield bytes(line)


def _chunks(file: io.BufferedIOBase) -> Iterator[bytes | None]:
    """Yields the bytes of a file as they come, and None before it waits for more."""
    coming = select.poll()
    try:
        coming.register(file, select.POLLIN)
    except io.UnsupportedOperation:  # it lies in memory, all of it
        coming = None
    while True:
        if coming and not coming.poll(_PATIENCE):
            yield None
            coming.poll()
        if not (chunk := file.read1(_CHUNK_BYTES)):
            return
        yield chunk
