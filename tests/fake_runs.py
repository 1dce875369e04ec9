"""Run folders as training and scoring leave them behind, without training or scoring."""

import hashlib
import json

from clu import metric_writers

from uem_t5x.data import dataset_folder
from uem_t5x.data.manifest import Channel, EncoderRecord, Manifest, Split

GENRES = ("Comedy", "Drama", "Horror", "War")
COUNTING_F1 = 0.06
RULE_F1 = {5: 0.11, 20: 0.38, 30: 0.5, 50: 0.66, 100: 0.82}

MACROS = {
    "BATCH_SIZE": 32,
    "HISTORY_LENGTH": 50,
    "INITIAL_CHECKPOINT_PATH": None,
    "LANGUAGE_MODEL": "tiny T5",
    "LEARNING_RATE": 0.01,
    "RANDOM_SEED": 0,
    "TRAIN_STEPS": 40,
    "VOCAB_SIZE": 256,
}
OF_KIND = {
    "uem": {"MIXTURE_OR_TASK_NAME": "@movielens.uem_task()", "PROMPT_LENGTH": 8, "UEM_LAYERS": 1},
    "text": {
        "MIXTURE_OR_TASK_NAME": "@movielens.text_task()",
        "HISTORY_ORDER": "most_recent_first",
    },
}
LENGTHS = "{'history_items': %HISTORY_LENGTH, 'inputs': 32}"


def write(
    folder,
    kind="uem",
    f1=0.4,
    encoder_width=96,
    inputs="a1",
    bindings=(),
    title="The Movie (1999)",
    answer="The user likes Drama.",
    curve=((20, 0.2), (40, 0.3)),
    losses=((20, 1.5), (40, 1.0)),
    scored=True,
    genres=GENRES,
    users="u1",
    trained_on=474,
    channels=("description",),
    vocabulary="v1",
    asked=(),
    checkpoints=(),
    **macros,
):
    """Writes a run; `macros` are set beside those above, and `asked` in the scores.

    Of `checkpoints` there are folders, with a validation F1 a step. Returns the run's folder.
    """
    folder.mkdir(parents=True)
    macros = {**MACROS, **OF_KIND[kind], "MODEL_DIR": str(folder), **macros}
    lines = ["# Macros:", *(f"{name} = {_literal(value)}" for name, value in macros.items())]
    lines += [f"TASK_FEATURE_LENGTHS = {LENGTHS}"] if kind == "uem" else []
    lines += ["", "train/engine.dataset_config.seed = %RANDOM_SEED"]
    lines += ["preprocessors.training_stretches.max_length = 100", *bindings]
    (folder / "config.gin").write_text("\n".join(lines) + "\n")
    catalogue = (encoder_width, inputs, genres, trained_on, channels, vocabulary)
    _write_catalogue(folder / "catalogue", *catalogue)
    for step, score in dict(checkpoints).items():
        add_checkpoint(folder, step, score)
    _write_training(folder, curve, losses)
    if scored:
        result = metrics(kind, f1, macros["HISTORY_LENGTH"], title, answer, genres, users)
        result |= {"trained_steps": macros["TRAIN_STEPS"], **dict(asked)}
        (folder / "metrics.json").write_text(json.dumps(result))
    return folder


def metrics(kind, f1, history_length, title, answer, genres, users):
    """Returns what `evaluate` returns."""
    items_read = history_length * 0.8 if kind == "uem" else min(history_length, 4.5)
    rows = [(genre, label) for label in ("liked", "disliked") for genre in genres]
    return {
        "methods": {
            kind: scores(f1),
            "counting": {**scores(COUNTING_F1), "disliked_f1": 0.0},
            "rule": scores(RULE_F1.get(history_length, 0.5) if kind == "uem" else 0.1),
        },
        "per_genre": [
            {"genre": genre, "kind": label, "precision": f1, "recall": f1}
            | {"f1": f1 / (1 + index / 8), "support": 40 - index}
            for index, (genre, label) in enumerate(rows)
        ],
        "confusion": {
            "liked": {"liked": 60, "disliked": 5, "neither": 35},
            "disliked": {"liked": 4, "disliked": 20, "neither": 26},
            "neither": {"liked": 40, "disliked": 30, "neither": 780},
        },
        "items_read": {"least": 3, "mean": items_read, "most": history_length},
        "users": [
            {
                "user_id": "u1",
                "items": 120,
                "recent": [{"title": title, "genres": ["Drama", "War"], "stars": 4.5}],
                "truth": "The user likes Drama and War.",
                "answer": answer,
                "f1": 0.667,
            }
        ],
        "examples": 110,
        "history_length": history_length,
        "step": 40,
        "trained_steps": 40,
        "is_best": True,
        "well_formed": False,
        "split": "test",
        "split_sha256": users,
        "task": f"movielens_genres_{kind}_{history_length}",
    }


def scores(f1):
    """Returns scores around an F1."""
    return {
        "f1": f1,
        "precision": f1 + 0.02,
        "recall": f1 + 0.01,
        "liked_f1": f1 + 0.03,
        "liked_precision": f1 + 0.04,
        "liked_recall": f1 + 0.03,
        "disliked_f1": f1 - 0.05,
        "disliked_precision": f1 - 0.04,
        "disliked_recall": f1 - 0.05,
        "unparseable": 0.0,
    }


def _literal(value):
    is_reference = isinstance(value, str) and value.startswith(("@", "%"))
    return value if is_reference else repr(value)


def add_checkpoint(folder, step, f1):
    """Leaves what is looked at of a checkpoint without restoring it."""
    (folder / f"checkpoint_{step}/metrics").mkdir(parents=True)
    (folder / f"checkpoint_{step}/metrics/metrics").write_text(json.dumps({"f1": f1}))


def forget(folder, *names):
    """Takes from a run's scores what older versions of `evaluate` did not write."""
    result = json.loads((folder / "metrics.json").read_text())
    rest = {name: value for name, value in result.items() if name not in names}
    (folder / "metrics.json").write_text(json.dumps(rest))


def _write_catalogue(folder, encoder_width, inputs, genres, trained_on, channels, vocabulary):
    # Must be there, and are not read.
    for name, text in ((dataset_folder.MOVIES, ""), (dataset_folder.VOCABULARY, vocabulary)):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)

    def split(name, examples):
        return Split(examples, 1, hashlib.sha256(f"{name} {examples}".encode()).hexdigest())

    manifest = Manifest(
        genres=genres,
        channels=tuple(Channel(name, encoder_width, "item") for name in channels),
        encoder=EncoderRecord("hashing", encoder_width),
        splits={"train": split("train", trained_on)}
        | {"validation": split("validation", 58), "test": split("test", 110)},
        has_vocabulary=True,
        counts={},
        options={},
        inputs={"ratings": inputs},
    )
    dataset_folder.write_catalogue_manifest(folder, manifest)


def _write_training(folder, curve, losses):
    (folder / "inference_eval").mkdir()
    lines = [json.dumps({"step": step, "f1": f1}) for step, f1 in curve]
    (folder / "inference_eval/task-metrics.jsonl").write_text("\n".join(lines) + "\n")
    writer = metric_writers.SummaryWriter(str(folder / "train"))
    for step, loss in losses:
        writer.write_scalars(step, {"loss": loss})
    writer.close()
