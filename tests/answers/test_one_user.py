"""The user that the quickstart ends with: chosen without favour, told with what it rests on."""

import io

import numpy as np
from rich.console import Console

from uem_t5x.answers import predict
from uem_t5x.commands import one_user
from uem_t5x.inputs import users as users_lib
from uem_t5x.tastes import verbalizer


def told(trained, folder, monkeypatch, answers):
    """Returns what is told where a model answers `answers`, by user."""

    def answer(model, users, batch_size):
        assert batch_size == trained.batch_size  # it is compiled for that already
        assert model is trained
        for user in users:
            liked, disliked = answers(user.user_id)
            yield {"liked": liked, "disliked": disliked, "items": 20}

    monkeypatch.setattr(predict, "predict", answer)
    file = io.StringIO()
    one_user.tell(trained, folder, "train", Console(file=file, width=200, markup=False))
    return file.getvalue()


def test_it_is_answered_neither_best_nor_worst(trained, dataset_folder, monkeypatch):
    users = users_lib.read(dataset_folder, "train")
    truth = dict(zip(users.ids, users.tastes))
    telling = [name for name, sides in truth.items() if min(map(len, sides)) >= 2]
    assert len(telling) > 4
    # Of the first third nothing is known, of the second the likes, of the third all.
    known = {
        name: (((), ()), (truth[name][0], ()), truth[name])[3 * index // len(telling)]
        for index, name in enumerate(telling)
    }
    text = told(trained, dataset_folder, monkeypatch, lambda name: known[name])
    written = [verbalizer.write_answer(truth[name][0], []) for name in telling]
    (line,) = (line for line in text.splitlines() if line.startswith("the model writes:"))
    assert line.removeprefix("the model writes: ").rstrip() in written


def test_what_it_rests_on_is_counted(trained, dataset_folder, monkeypatch):
    users = users_lib.read(dataset_folder, "train")
    truth = dict(zip(users.ids, users.tastes))
    text = told(trained, dataset_folder, monkeypatch, truth.__getitem__)
    (line,) = (line for line in text.splitlines() if line.startswith("the truth is:"))
    taste = verbalizer.read_answer(
        line.removeprefix("the truth is:").strip(), dataset_folder.genres
    )
    user = users.tastes.index(taste)
    items, half_stars = users.history(user)
    genre = taste[0][0]
    has = dataset_folder.genre_matrix()[items, dataset_folder.genres.index(genre)].astype(bool)
    (row,) = (line for line in text.splitlines() if line.strip().startswith(f"{genre} "))
    cells = [cell.strip() for cell in row.split("\N{BOX DRAWINGS LIGHT VERTICAL}")]
    assert cells[2:] == [f"{np.mean(half_stars[has]) / 2:.2f} ({has.sum()})", "likes", "likes"]
    assert f"the last 8 of {len(items)} rated movies" in text


def test_somebody_is_told_of_where_nobody_has_two_of_each(trained, dataset_folder, monkeypatch):
    monkeypatch.setattr(one_user, "_LEAST_OF_EACH", 9)
    text = told(trained, dataset_folder, monkeypatch, lambda _: ([], []))
    assert text.count("the truth is:") == 1
