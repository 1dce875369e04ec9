"""Preparing a dataset folder: ours against the same job in pandas, each in a process of its own.

Both read the CSV files of made-up users, join ratings with described movies, drop users with short
histories, put each history in order, label it, split users and write them; that they kept the same
users, ratings and labels is checked. Ours also checks every row of its input, hashes the files,
encodes three sentences an item, and writes TFRecords where pandas writes Parquet. It joins titles
by several keys, pandas by the one that the made-up titles need. Wall seconds are those of the whole
process, imports among them; memory is the kernel's own high-water mark.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import timing
from benchmarks.timing import Timing

_USERS, _MOVIES, _RATINGS = 127_000, 8_200, 14_400_000  # the paper's
_LEAST_MOVIES = 100
_MIN_HISTORY = 20
_ENCODER_WIDTH = 32
_OURS, _PANDAS = "ours", "pandas"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--users", type=int, default=_USERS)
    parser.add_argument("--movies", type=int, default=_MOVIES)
    parser.add_argument("--ratings", type=int, default=_RATINGS)
    parser.add_argument("--scale", type=float, default=1.0, help="of all three, for a small run")
    parser.set_defaults(repeats=2)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lets ours and pandas prepare the same files in turns."""
    _import_pandas()
    users, ratings = (int(arguments.scale * n) for n in (arguments.users, arguments.ratings))
    movies = max(int(arguments.scale * arguments.movies), _LEAST_MOVIES)
    with tempfile.TemporaryDirectory() as root:
        movielens = Path(root) / "movielens"
        timing.watch(f"making up {users} users, {movies} movies, {ratings} ratings")
        _synthesize(movielens, users, movies, ratings)
        runs: dict[str, list[dict[str, Any]]] = {_OURS: [], _PANDAS: []}
        for repeat in range(arguments.repeats):
            for name in runs:
                runs[name].append(_run(name, movielens, Path(root) / f"{name} {repeat}"))
                timing.watch(f"turn {repeat + 1}: {name} {runs[name][-1]['wall_s']:.1f} s")
    _check_same(runs)
    timings = {
        name: Timing([run["wall_s"] for run in each], [run["cpu_s"] for run in each])
        for name, each in runs.items()
    }
    peaks = {name: max(run["peak_bytes"] for run in each) for name, each in runs.items()}
    ratio = timing.ratio(timings[_OURS], timings[_PANDAS])
    memory = peaks[_OURS] / peaks[_PANDAS]
    figures = {name: timings[name].figures() | {"peak_gib": peaks[name] / 2**30} for name in runs}
    return {
        "sizes": {"users": users, "movies": movies, "ratings": ratings},
        "kept": runs[_OURS][0]["kept"],
        "ours": figures[_OURS],
        "peers": {_PANDAS: figures[_PANDAS]},
        "ratios": {_PANDAS: ratio | {"of_peak_memory": memory}},
        "bounds": [
            timing.bound("seconds to those of pandas, medians", ratio["of_medians"], at_most=1.0),
            timing.bound("peak memory to that of pandas", memory, at_most=1.0),
        ],
    }


def _synthesize(output: Path, users: int, movies: int, ratings: int) -> None:
    numbers = {"users": users, "movies": movies, "ratings": ratings}
    options = [part for name, number in numbers.items() for part in (f"--{name}", str(number))]
    command = [sys.executable, "-m", "uem_t5x.cli", "synthesize", "--output", str(output), *options]
    subprocess.run(command, check=True, stdout=sys.stderr)


def _run(name: str, movielens: Path, output: Path) -> dict[str, Any]:
    """Prepares in a process of its own; returns what that says of itself."""
    command = [sys.executable, "-m", "benchmarks.preparing", "--child", name, movielens, output]
    began = time.perf_counter()
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    wall = time.perf_counter() - began
    return {"wall_s": wall, **json.loads(done.stdout.splitlines()[-1])}


def _check_same(runs: dict[str, list[dict[str, Any]]]) -> None:
    kept = [run["kept"] for each in runs.values() for run in each]
    if any(other != kept[0] for other in kept):
        raise RuntimeError(f"ours and pandas did not keep the same: {kept}")


def _child(name: str, movielens: Path, output: Path) -> None:
    jobs: dict[str, Callable[[Path, Path], dict[str, int]]] = {
        _OURS: _prepare,
        _PANDAS: _prepare_in_pandas,
    }
    kept = jobs[name](movielens, output)
    # Not `ru_maxrss`: that is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    (peak,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    peak_bytes = int(peak.split()[1]) * 1024
    print(json.dumps({"kept": kept, "peak_bytes": peak_bytes, "cpu_s": time.process_time()}))


def _prepare(movielens: Path, output: Path) -> dict[str, int]:
    from uem_t5x.data import synthetic
    from uem_t5x.data.prepare import PrepareOptions, prepare

    folder = prepare(
        PrepareOptions(
            movielens=movielens,
            descriptions=movielens / synthetic.DESCRIPTIONS,
            output=output,
            encoder_width=_ENCODER_WIDTH,
            min_history=_MIN_HISTORY,
        )
    )
    counts = folder.manifest.counts
    labels = round(counts["labels_per_user"] * counts["users"])
    return {"users": counts["users"], "ratings": counts["ratings"], "labels": labels}


def _prepare_in_pandas(movielens: Path, output: Path) -> dict[str, int]:
    pd = _import_pandas()
    import numpy as np

    movies = pd.read_csv(movielens / "movies.csv")
    described = pd.read_csv(movielens / "descriptions.csv")
    movies["year"] = movies["title"].str.extract(r"\((\d{4})\)$", expand=False).astype(int)
    movies["movie_title"] = (
        movies["title"]
        .str.replace(r" \(\d{4}\)$", "", regex=True)
        .str.replace(r"^(.*), (The|A)$", r"\2 \1", regex=True)
    )
    described["year"] = described["original_release_date"].str[:4].astype(int)
    movies = movies.merge(described, on=["movie_title", "year"])
    movies["row"] = np.arange(1, len(movies) + 1, dtype=np.int32)

    types = {"userId": np.int32, "movieId": np.int32, "rating": np.float32, "timestamp": np.int64}
    ratings = pd.read_csv(movielens / "ratings.csv", dtype=types)
    ratings = ratings.drop_duplicates(["userId", "movieId"], keep="last")
    ratings = ratings.merge(movies[["movieId", "row"]], on="movieId")
    lengths = ratings.groupby("userId")["row"].transform("size")
    ratings = ratings[lengths >= _MIN_HISTORY].sort_values(["userId", "timestamp", "movieId"])
    ratings["half_stars"] = (ratings["rating"] * 2).astype(np.uint8)

    genres = movies[["row"]].assign(genre=movies["genres"].str.split("|")).explode("genre")
    genres["genre"] = genres["genre"].astype("category")
    by_genre = (
        ratings[["userId", "row", "half_stars"]]
        .merge(genres, on="row")
        .groupby(["userId", "genre"], observed=True)["half_stars"]
        .agg(["size", "mean"])
        .reset_index()
        .query("size >= 3")
    )
    liked = by_genre[by_genre["mean"] > 7].sort_values(["mean", "size"], ascending=False)
    disliked = by_genre[by_genre["mean"] < 6].sort_values(["mean", "size"], ascending=[True, False])
    users = ratings.groupby("userId").agg(
        history_items=("row", list), history_ratings=("half_stars", list)
    )
    for side, best in (("liked", liked), ("disliked", disliked)):
        users[side] = best.groupby("userId").head(3).groupby("userId")["genre"].agg(list)
        users[side] = users[side].map(lambda names: names if isinstance(names, list) else [])

    output.mkdir()
    order = np.random.default_rng(0).permutation(len(users))
    tenth = len(users) // 10
    splits = {"test": order[:tenth], "validation": order[tenth : 2 * tenth]}
    for split, rows in {**splits, "train": order[2 * tenth :]}.items():
        users.iloc[rows].to_parquet(output / f"{split}.parquet")
    labels = int(users["liked"].map(len).sum() + users["disliked"].map(len).sum())
    return {"users": len(users), "ratings": len(ratings), "labels": labels}


def _import_pandas() -> Any:
    try:
        import pandas
    except ImportError:
        sys.exit("benchmarks.preparing: needs pandas; pip install -e '.[benchmarks]'")
    return pandas


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        timing.main("preparing", __doc__, add_arguments, measure)
