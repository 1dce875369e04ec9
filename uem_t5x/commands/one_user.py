"""One user of a split, for people: the history, the answer, the truth, and what they rest on."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from uem_t5x.tastes.rating_scale import HALF_STARS_PER_STAR

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from uem_t5x.answers.trained_model import TrainedModel
    from uem_t5x.data.dataset_folder import DatasetFolder
    from uem_t5x.tastes.baselines import Users
    from uem_t5x.tastes.metrics import Taste

_SHOWN_ITEMS = 8
_LEAST_OF_EACH = 2  # likes and dislikes of somebody worth telling of


def tell(trained: "TrainedModel", folder: "DatasetFolder", split: str, console: "Console") -> None:
    """Tells of a user of likes and dislikes who is answered neither well nor badly, but middling.

    Args:
      trained: the model that answers.
      folder: its dataset folder.
      split: of it, one that has users.
      console: where to.
    """
    from uem_t5x.answers import predict
    from uem_t5x.inputs import users as users_lib
    from uem_t5x.tastes import metrics

    users = users_lib.read(folder, split)
    least = [min(map(len, taste)) for taste in users.tastes]
    chosen = [user for user, of_each in enumerate(least) if of_each >= _LEAST_OF_EACH]
    chosen = chosen or [max(range(len(least)), key=least.__getitem__)]
    asked = [
        predict.User(users.ids[user], *(tuple(part.tolist()) for part in users.history(user)))
        for user in chosen
    ]
    answers = list(predict.predict(trained, asked, trained.batch_size))
    tastes: list[Taste] = [(answer["liked"], answer["disliked"]) for answer in answers]
    order = sorted(
        range(len(chosen)),
        key=lambda index: metrics.user_f1(users.tastes[chosen[index]], tastes[index]),
    )
    middle = order[len(order) // 2]
    for part in _parts(users, chosen[middle], folder, answers[middle]["items"], tastes[middle]):
        console.print(part, highlight=False)


def _parts(
    users: "Users", user: int, folder: "DatasetFolder", items_read: int, said: "Taste"
) -> "Iterator[RenderableType]":
    from rich.panel import Panel
    from rich.text import Text

    from uem_t5x.tastes import verbalizer

    items, half_stars = (part.tolist() for part in users.history(user))
    movies, wording = folder.movies(), folder.telling.wording
    lines = [
        f"{rating / HALF_STARS_PER_STAR:3.1f} stars  {movies['title'][row]}  "
        f"({', '.join(movies['genres'][row])})"
        for row, rating in zip(items[-_SHOWN_ITEMS:], half_stars[-_SHOWN_ITEMS:])
    ]
    yield Panel("\n".join(lines), title=f"the last {len(lines)} of {len(items)} rated movies")
    yield Text.assemble(("the model writes: ", "bold"), verbalizer.write_answer(*said, wording))
    truth = users.tastes[user]
    yield Text.assemble(("the truth is:     ", "bold"), verbalizer.write_answer(*truth, wording))
    yield _what_it_rests_on(users, user, folder, items_read, {"truth": truth, "model": said})


def _what_it_rests_on(
    users: "Users",
    user: int,
    folder: "DatasetFolder",
    items_read: int,
    tastes: "dict[str, Taste]",
) -> "RenderableType":
    """Returns a row for each genre in any of the tastes: its mean stars, read and in all."""
    from rich.table import Table

    table = Table(
        title="what it rests on: mean stars (and number) of a genre",
        show_edge=False,
        title_justify="left",
    )
    table.add_column("genre")
    means = {}
    for name, of_whom in (
        (f"the {items_read} movies read", users.most_recent(items_read)),
        ("all movies", users),
    ):
        counts, sums = (part[user] for part in of_whom.genre_statistics(folder.genre_matrix()))
        means[name] = [
            f"{total / count / HALF_STARS_PER_STAR:.2f} ({count})" if count else "none"
            for count, total in zip(counts.tolist(), sums.tolist())
        ]
    for name in (*means, *tastes):
        table.add_column(name, justify="right" if name in means else "left")
    named = dict.fromkeys(genre for sides in zip(*tastes.values()) for s in sides for genre in s)
    for genre in named:
        index = folder.genres.index(genre)
        stances = (_stance(genre, taste) for taste in tastes.values())
        table.add_row(genre, *(of_genre[index] for of_genre in means.values()), *stances)
    return table


def _stance(genre: str, taste: "Taste") -> str:
    liked, disliked = taste
    return "likes" if genre in liked else "doesn't like" if genre in disliked else ""
