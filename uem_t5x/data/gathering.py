"""Rows gathered by user: in memory, or in sorted runs on the disk where there are too many.

It is an external merge sort (Knuth 1998, volume 3, section 5.4) that stops short of its last merge:
a part of the users, by increasing id, is read from all runs at once.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from uem_t5x.data import ids

ROWS = 4_000_000  # that are held in memory, some 100 bytes each, and as much again to sort them
_ROW_GROUP = 50_000  # of a run: what is read of it at least
_SAMPLED = 1000  # rows of a run for each id that says where parts may begin


class GatheredByUser:
    """Takes rows in any order of users, and gives them back in parts of whole users.

    Within a user rows keep their order. Parts have no user in common, and follow each other by
    increasing ids, which are numbers if all are whole numbers, or else texts.
    """

    def __init__(self, scratch: Path | None, rows: int = ROWS) -> None:
        """Starts with none.

        Args:
            scratch: a folder for runs, which whoever made it removes; None keeps all in memory.
            rows: about how many may be in memory.
        """
        self._scratch, self._rows = scratch, rows
        self._pending: list[pl.DataFrame] = []
        self._runs: list[Path] = []
        self._are_numbers = True
        self.height = 0

    @property
    def scratch(self) -> Path | None:
        """Where its runs are; None as long as all rows are in memory."""
        return self._scratch if self._runs else None

    def add(self, frame: pl.DataFrame) -> None:
        """Takes rows: `userId`, a text, and whatever else there is."""
        self._pending.append(frame)
        self.height += frame.height
        if self._scratch and sum(pending.height for pending in self._pending) >= self._rows:
            self._write_run(self._scratch)

    def parts(self) -> Iterator[pl.DataFrame]:
        """Yields all rows, numbered within a part by `order`."""
        if not self._runs:
            yield _numbered(ids.with_numbers(pl.concat(self._pending), "userId"))
            return
        assert self._scratch is not None
        if self._pending:
            self._write_run(self._scratch)
        self._make_alike()
        runs, user = pl.scan_parquet(self._runs), pl.col("userId")
        firsts = self._starts()
        for start, end in zip([None, *firsts], [*firsts, None]):
            chosen = pl.lit(True) if start is None else user >= start
            yield _numbered(runs.filter(chosen if end is None else chosen & (user < end)).collect())

    def _write_run(self, scratch: Path) -> None:
        frame = pl.concat(self._pending)
        self._pending = []
        self._are_numbers &= ids.are_numbers(frame["userId"])
        if ids.are_kept_by_numbers(frame["userId"]):  # they are sorted faster
            frame = frame.with_columns(pl.col("userId").cast(pl.Int64))
        elif self._are_numbers:  # of which some are written in several ways
            frame = _numbered(frame)
        scratch.mkdir(exist_ok=True)
        self._runs.append(scratch / f"run-{len(self._runs):05d}.parquet")
        _write(frame, self._runs[-1])

    def _make_alike(self) -> None:
        """Writes the ids of all runs in one way."""
        for path in self._runs:
            schema = pl.read_parquet_schema(path)
            if self._are_numbers and schema["userId"] == pl.String:
                frame = pl.read_parquet(path).sort("order").drop("order")
                _write(frame.with_columns(ids.numbers_or_none("userId")), path)
            elif not self._are_numbers and (schema["userId"] != pl.String or "order" in schema):
                frame = pl.read_parquet(path).drop("order", strict=False)
                _write(frame.with_columns(pl.col("userId").cast(pl.String)), path)

    def _starts(self) -> list[int | str]:
        """Returns the first ids of all parts but the first, by what is found in every run."""
        samples = [
            pl.scan_parquet(path).select("userId").gather_every(_SAMPLED).collect()["userId"]
            for path in self._runs
        ]
        return starts(pl.concat(samples), self.height, self._rows)


def starts(sample: pl.Series, height: int, rows: int) -> list[int | str]:
    """Returns the first ids of all parts of users but the first.

    Args:
        sample: ids of some of their rows, each as often as it is met.
        height: how many rows there are.
        rows: about how many a part may have.
    """
    sample, parts = sample.sort(), -(-height // rows)
    at = [len(sample) * part // parts for part in range(1, parts)]
    return sample.gather(at).unique().sort().to_list()


def _numbered(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(order=pl.int_range(pl.len(), dtype=pl.Int64))


def _write(frame: pl.DataFrame, path: Path) -> None:
    frame.sort("userId", maintain_order=True).write_parquet(
        path, compression="lz4", row_group_size=_ROW_GROUP
    )


class StoredFrames:
    """Frames that are read again, from memory or from the disk."""

    def __init__(self, scratch: Path | None) -> None:
        """Starts with none; see `GatheredByUser`."""
        self._scratch = scratch
        self._held: list[pl.DataFrame | Path] = []

    def append(self, frame: pl.DataFrame) -> None:
        """Takes a frame."""
        if self._scratch is None:
            self._held.append(frame)
            return
        path = self._scratch / f"part-{len(self._held):05d}.parquet"
        frame.write_parquet(path, compression="lz4")
        self._held.append(path)

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for held in self._held:
            yield pl.read_parquet(held) if isinstance(held, Path) else held
