"""Making batches: users a second of `batches.TrainIterator`, against a loop in Python.

Batches have the lengths of the paper's recipes at 50 items. The peer is what one would write for
PyTorch's DataLoader: records read and parsed one by one, tokenized with SentencePiece, padded with
NumPy, on one thread. What is needed is what a host of the fastest TPUs of docs/tpu.md uses up: of
all data where there is one host, of its part where there are many.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sentencepiece
import tensorflow as tf

from benchmarks import made_up_data, timing
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.inputs import batches, data_sources, vocabularies
from uem_t5x.inputs.batches import DatasetConfig, TrainIterator
from uem_t5x.inputs.feature_converters import HISTORY_FEATURES, UserEmbeddingFeatureConverter
from uem_t5x.tasks import movielens
from uem_t5x.tastes import sentences, verbalizer
from uem_t5x.tpu import topologies


class _Consumer(NamedTuple):
    """Who uses batches up: base, in the shortest time that docs/tpu.md gives a step."""

    topology: str
    global_batch: int
    step_seconds: float

    @property
    def hosts(self) -> int:
        return topologies.topology(self.topology).hosts

    @property
    def users_a_second(self) -> float:
        """Of each host."""
        return self.global_batch / self.step_seconds / self.hosts


_ONE_HOST, _MANY_HOSTS = _Consumer("v4-8", 128, 0.080), _Consumer("v5litepod-256", 2048, 0.066)
_HISTORY, _INPUTS, _TARGETS = 50, 32, 64
_MOST_BYTES = 1024
_SHUFFLE_BUFFER = 1000  # SeqIO's
_MOVIES, _ENCODER_WIDTH, _VOCABULARY = 2000, 16, 1024
_EOS = 1
_OURS, _PART, _PEER = "ours", "ours, one host's part", "a loop in Python"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--users", type=int, default=20_000, help="that are made up")
    parser.add_argument("--data-dir", type=Path, help="a dataset folder with a vocabulary")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=40, help="of a turn")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lets ours and the peer make batches in turns."""
    hosts = _MANY_HOSTS.hosts
    with (
        made_up_data.dataset_folder(
            arguments.data_dir, arguments.users, _MOVIES, _ENCODER_WIDTH, _VOCABULARY
        ) as folder,
        data_sources.use_dataset_folder(folder),
    ):
        iterators = {
            _OURS: _ours(arguments.batch_size),
            _PART: _ours(arguments.batch_size * hosts, (0, hosts)),
            _PEER: _peer(folder, arguments.batch_size),
        }
        first = next(iterators[_OURS])
        candidates = {
            name: lambda batches=batches: [next(batches) for _ in range(arguments.batches)]
            for name, batches in iterators.items()
        }
        timings = timing.alternate(candidates, arguments.repeats)
    users = arguments.batches * arguments.batch_size
    figures = {
        name: timed.figures() | {"users_a_second": users / timed.median}
        for name, timed in timings.items()
    }
    row_bytes = {name: array.nbytes // len(array) for name, array in first.items()}
    history_bytes = sum(row_bytes[name] for name in HISTORY_FEATURES)
    return {
        "sizes": {
            "users": folder.num_examples("train"),
            "history": _HISTORY,
            "inputs": _INPUTS,
            "targets": _TARGETS,
            "batch": arguments.batch_size,
            "batches": arguments.batches,
        },
        "needed_users_a_second": {
            consumer.topology: consumer.users_a_second for consumer in (_ONE_HOST, _MANY_HOSTS)
        },
        "row_bytes": row_bytes,
        "ours": figures[_OURS],
        "peers": {name: figures[name] for name in (_PEER, _PART)},
        "ratios": {name: timing.ratio(timings[_OURS], timings[name]) for name in (_PEER, _PART)},
        "bounds": [
            timing.bound(
                f"users a second, for {consumer.topology}",
                figures[name]["users_a_second"],
                at_least=consumer.users_a_second,
            )
            for name, consumer in ((_OURS, _ONE_HOST), (_PART, _MANY_HOSTS))
        ]
        + [
            timing.bound("bytes of a user's history", history_bytes, at_most=_MOST_BYTES),
            timing.bound(
                "bytes of all that travels for a user", sum(row_bytes.values()), at_most=_MOST_BYTES
            ),
        ],
    }


def _ours(batch_size: int, share: tuple[int, int] = (0, 1)) -> TrainIterator:
    config = DatasetConfig(
        mixture_or_task_name=movielens.uem_task(_HISTORY),
        task_feature_lengths={
            "inputs": _INPUTS,
            "targets": _TARGETS,
            "history_items": _HISTORY,
            "history_ratings": _HISTORY,
        },
        split="train",
        batch_size=batch_size,
        shuffle=True,
        seed=0,
    )
    return batches.TrainIterator(config, UserEmbeddingFeatureConverter, share)


def _peer(folder: DatasetFolder, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    with data_sources.use_dataset_folder(folder):
        model_file = vocabularies.sentencepiece_model_file()
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=model_file)
    files = [str(path) for path in folder.examples("train")]
    users = tf.data.TFRecordDataset(files).shuffle(_SHUFFLE_BUFFER).repeat().as_numpy_iterator()
    while True:
        rows = [_features(next(users), tokenizer) for _ in range(batch_size)]
        yield {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _features(
    record: bytes, tokenizer: sentencepiece.SentencePieceProcessor
) -> dict[str, np.ndarray]:
    """Makes of a user what `UserEmbeddingFeatureConverter` makes of it."""
    example = tf.train.Example.FromString(record).features.feature
    liked, disliked = (
        [name.decode() for name in example[side].bytes_list.value] for side in ("liked", "disliked")
    )
    targets = _tokens(tokenizer, verbalizer.write_answer(liked, disliked), _TARGETS)
    return {
        "encoder_input_tokens": _tokens(tokenizer, sentences.INSTRUCTION, _INPUTS),
        "decoder_target_tokens": targets,
        **{
            name: _padded(example[name].int64_list.value[-_HISTORY:], _HISTORY)
            for name in HISTORY_FEATURES
        },
    }


def _tokens(tokenizer: sentencepiece.SentencePieceProcessor, text: str, length: int) -> np.ndarray:
    return _padded([*tokenizer.encode(text)[: length - 1], _EOS], length)


def _padded(ids: Sequence[int], length: int) -> np.ndarray:
    row = np.zeros(length, np.int32)
    row[: len(ids)] = ids
    return row


if __name__ == "__main__":
    timing.main("input_pipeline", __doc__, add_arguments, measure)
