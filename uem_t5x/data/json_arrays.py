"""Reads files that are one JSON array of objects, one object at a time."""

import codecs
import io
import json
from collections.abc import Iterator
from typing import Any

from uem_t5x.base.errors import InputError

_CHUNK_BYTES = 2**24
_MAX_LETTERS = 2**28  # of an object; its text is read again with each chunk that it lacks
_BETWEEN = " \t\r\n,"


def read(stream: io.BufferedIOBase, name: str) -> Iterator[dict[str, Any]]:
    """Yields the objects of an array.

    Args:
        stream: the file, in UTF-8.
        name: how messages call it.

    Raises:
        InputError: if it is none, or cut off.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    scan = json.JSONDecoder().raw_decode
    text, is_begun, count = "", False, 0
    while True:
        chunk = stream.read(_CHUNK_BYTES)
        try:
            text += decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise InputError(f"{name}: not UTF-8 text; get it anew") from error
        if not is_begun and text.strip():
            text, is_begun = text.lstrip(), True
            if not text.startswith("["):
                raise InputError(f"{name}: no JSON array of objects; get it anew")
            text = text[1:]
        place = 0
        while True:
            while place < len(text) and text[place] in _BETWEEN:
                place += 1
            if place < len(text) and text[place] == "]":
                return
            try:
                record, place = scan(text, place)
            except (ValueError, RecursionError) as error:
                if not chunk or len(text) - place > _MAX_LETTERS:
                    problem = "cut off" if place == len(text) else "no JSON"
                    raise InputError(
                        f"{name}: {problem} after {count:,} objects; get it anew"
                    ) from error
                break
            if not isinstance(record, dict):
                raise InputError(f"{name}: number {count + 1:,} is no object; get it anew")
            count += 1
            yield record
        text = text[place:]
