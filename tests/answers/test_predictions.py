"""What a trained model answers of users, whoever asks in Python."""

import dataclasses
import json
import os
import queue
import threading

import numpy as np
import pytest

from uem_t5x.answers import json_input, predict, user_lines
from uem_t5x.answers.trained_model import Answerer
from uem_t5x.base.errors import InputError
from uem_t5x.data.manifest import Channel
from uem_t5x.inputs import questions


def test_users_are_asked_for_a_batch_at_a_time(trained):
    read = []

    def users():
        for number in range(9):
            read.append(number)
            yield predict.User(number, (5, 6), (9, 2), 0)

    answers = predict.predict(trained, users(), batch_size=4)
    assert next(answers)["user_id"] == 0
    assert read == [0, 1, 2, 3]


def test_predict_answers_in_order_whatever_the_batch(trained):
    users = [
        predict.User(f"u{n}", tuple(range(1, 2 + n)), tuple([9] * (1 + n)), unknown=0)
        for n in range(6)
    ]
    one_by_one = list(predict.predict(trained, users, batch_size=4))
    together = list(predict.predict(trained, users, batch_size=8))
    assert one_by_one == together
    assert [answer["user_id"] for answer in together] == [user.user_id for user in users]


@pytest.mark.parametrize("row", [0, -1, 9999])
def test_rows_that_no_movie_has(row, trained):
    users = [predict.User("good", (5,), (9,)), predict.User("bad", (5, row), (9, 2))]
    with pytest.raises(InputError, match=rf"user 'bad': {row} is no row of the catalogue's"):
        list(predict.predict(trained, users))


def test_a_movie_outside_the_catalogue_counts_as_its_twin_inside(trained):
    movies = trained.catalogue.movies().row(5, named=True)
    twin = predict.Movie(movies["title"], tuple(movies["genres"]), movies["description"])
    inside = predict.User("u", (5, 6), (9, 2), unknown=0)
    outside = predict.User("u", (twin, 6), (9, 2), unknown=0)
    expected, answered = predict.predict(trained, [inside, outside], batch_size=4)
    assert (expected["known"], expected["described"]) == (2, 0)
    assert answered == {**expected, "known": 1, "described": 1}


@pytest.mark.parametrize(
    "channel", [Channel("poster", 16, "item"), Channel("description", 8, "item")]
)
def test_a_channel_that_is_not_the_encoders_has_no_movies_outside(trained, channel):
    manifest = trained.catalogue.manifest
    changed = dataclasses.replace(manifest, channels=(*manifest.channels[:1], channel))
    catalogue = dataclasses.replace(trained.catalogue, manifest=changed)
    other = dataclasses.replace(trained, catalogue=catalogue)
    user = predict.User("u", (predict.Movie("Space War", (), ""),), (9,), unknown=0)
    with pytest.raises(InputError, match=f"channel '{channel.name}' is not made of text"):
        list(predict.predict(other, [user], batch_size=4))


@pytest.fixture
def asked(monkeypatch):
    """How many users the model was asked about, each time."""
    answer, sizes = Answerer.__call__, []

    def count(self, batch, *arguments):
        sizes.append(len(batch["history_items"]))
        return answer(self, batch, *arguments)

    monkeypatch.setattr(Answerer, "__call__", count)
    return sizes


def test_a_user_of_whom_nothing_is_known_is_given_no_taste(trained, asked):
    empty = predict.User("empty", (), ())
    known = predict.User("known", (5, 6), (9, 2))
    unknown = predict.User("unknown", (), (), unknown=3)
    (expected,) = predict.predict(trained, [known], batch_size=4)
    first, second, last = predict.predict(trained, [empty, known, unknown], batch_size=4)
    assert second == expected
    nothing = {"answer": "Nothing is known of this user's taste.", "liked": [], "disliked": []}
    nothing |= {"items": 0, "known": 0, "described": 0}
    assert first == {"user_id": "empty", **nothing, "dropped": 0}
    assert last == {"user_id": "unknown", **nothing, "dropped": 3, "unknown_items": 3}
    assert not [*predict.predict(trained, [], batch_size=4)]
    ((alone,), counts) = (predict.predict(trained, [empty], batch_size=4), [*asked])
    assert (alone, counts) == (first, [1, 1])


def test_a_history_that_the_model_cannot_read_tells_no_taste(trained, monkeypatch):
    """As one in words whose most recent item is longer than the text."""
    ask = questions.Questioner.__call__

    def read_nothing(self, users):
        return ask(self, users)._replace(items_read=np.zeros(len(users), np.int32))

    monkeypatch.setattr(questions.Questioner, "__call__", read_nothing)
    (answer,) = predict.predict(trained, [predict.User("u", (5,), (9,))], batch_size=4)
    assert (answer["answer"], answer["liked"]) == (predict.NOTHING_KNOWN, [])
    assert (answer["items"], answer["known"]) == (0, 1)


def test_lines_are_answered_as_they_come(trained, asked):
    """Each by itself where they come slowly, as many as may be where there are many."""
    rows = user_lines.movie_rows(trained.catalogue.movies())
    line = json.dumps({"history": [{"movieId": next(iter(rows)), "rating": 4}]}) + "\n"
    source, sink = os.pipe()
    answers = queue.Queue()

    def answer(file):
        users = user_lines.UserReader(rows).users(json_input.read_lines(file), "-", pytest.fail)
        for answered in predict.predict(trained, users, batch_size=4):
            answers.put(answered)

    with open(source, "rb") as file, open(sink, "w") as writer:  # noqa: PTH123
        thread = threading.Thread(target=answer, args=[file], daemon=True)
        thread.start()
        for lines in (1, 1, 6):
            writer.write(line * lines)
            writer.flush()
            for _ in range(lines):
                assert answers.get(timeout=60)["items"] == 1
        writer.write(line.rstrip())
        writer.close()
        thread.join(timeout=60)
    assert answers.get_nowait()["items"] == 1
    assert asked == [1, 1, 4, 2, 1]
