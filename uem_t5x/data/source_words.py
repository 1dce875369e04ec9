"""Reads how a source tells of histories: its channels, its labels or questions, and its words."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from uem_t5x.base.errors import InputError
from uem_t5x.data import sources
from uem_t5x.data.toml_tables import TomlFile, nearest
from uem_t5x.tastes import answer_metrics, labels, sentences, verbalizer
from uem_t5x.tastes.labels import LabelRule
from uem_t5x.tastes.rating_scale import RatingScale
from uem_t5x.tastes.telling import Telling
from uem_t5x.tastes.verbalizer import Wording

_DEFAULT_CHANNELS = {
    "title_classes": "{title} is listed with {classes}",
    "rating": "It is rated with {stars} stars",
}


def read(
    file: TomlFile, fields: Mapping[str, Any], columns: Collection[str], scale: RatingScale
) -> Telling:
    """Returns what a source says of its histories.

    Args:
        file: the source.
        fields: its tables.
        columns: those of its items, `classes` among them where they have any.
        scale: of the ratings.

    Raises:
        InputError: if it says what cannot be.
    """
    told, asked = fields.get("labels", {}), fields.get("questions")
    file.check("labels", told)
    if asked is not None and told:
        raise file.error("[labels] and [questions]: leave one, it is either that is asked for")
    channels = dict(_DEFAULT_CHANNELS)
    if fields.get("reader") == sources.MOVIELENS:
        channels = dict(sentences.OF_MOVIES)
    if "channels" in fields:
        channels = _channels(file, fields["channels"])
    known = {*columns, sentences.STARS, sentences.VALUE}
    for name, template in channels.items():
        for named in sentences.names(template):
            if named not in known:
                raise file.error(
                    f"[[channels]] {name}: no column {named!r}{nearest(named, known)}; items have "
                    f"{', '.join(sorted(known))}"
                )
    return Telling(
        question=told.get("question", sentences.INSTRUCTION),
        sentences=channels,
        rule=_rule(file, told),
        wording=_wording(file, told),
        scale=scale,
        metrics=() if asked is None else _metrics(file, asked),
        task="" if asked is None else asked.get("task", ""),
    )


def encoders(fields: Mapping[str, Any]) -> dict[str, str]:
    """Returns the encoders of those channels that have their own."""
    return {
        channel["name"]: channel["encoder"]
        for channel in fields.get("channels", [])
        if "encoder" in channel
    }


def _metrics(file: TomlFile, asked: Mapping[str, Any]) -> tuple[str, ...]:
    metrics = file.texts("[questions] metrics", asked.get("metrics", "accuracy"))
    for metric in metrics:
        if metric not in answer_metrics.METRICS:
            raise file.error(
                f"[questions] metrics: no {metric!r}{nearest(metric, answer_metrics.METRICS)}; "
                f"there are {', '.join(answer_metrics.METRICS)}"
            )
    try:
        answer_metrics.check(metrics)
    except InputError as error:
        raise file.error(f"[questions] {error}") from error
    return tuple(dict.fromkeys(metrics))


def _rule(file: TomlFile, told: Mapping[str, Any]) -> LabelRule:
    for key in ("min_count", "most", "classes"):
        if told.get(key, 1) < 1:
            raise file.error(f"[labels] {key} = {told[key]}: give at least 1")
    rule = LabelRule(
        min_count=told.get("min_count", labels.PAPER.min_count),
        most=told.get("most", labels.PAPER.most),
        liked_above=float(told.get("liked_above", labels.PAPER.liked_above)),
        disliked_below=float(told.get("disliked_below", labels.PAPER.disliked_below)),
    )
    if rule.disliked_below > rule.liked_above:
        raise file.error(
            f"[labels] disliked_below = {rule.disliked_below:g} is above liked_above = "
            f"{rule.liked_above:g}; a class may not be both"
        )
    return rule


def _channels(file: TomlFile, listed: list[Any]) -> dict[str, str]:
    channels: dict[str, str] = {}
    for fields in listed:
        file.check("channels", fields)
        for key in ("name", "text"):
            if key not in fields:
                raise file.error(f'[[channels]] needs {key} = "..."')
        name, template = fields["name"], fields["text"]
        if not (name.isidentifier() and name.islower()) or name in channels:
            raise file.error(
                f"[[channels]] name = {name!r}: give each one of its own, of small letters, "
                "digits and _"
            )
        try:
            named = set(sentences.names(template))
        except ValueError as error:
            raise file.error(f"[[channels]] {name}: {error}") from error
        of_rating = named & {sentences.STARS, sentences.VALUE}
        if not named or (of_rating and named - of_rating):
            raise file.error(
                f"[[channels]] {name}: text = {template!r} must name columns of items, or "
                "{stars} and {value} of a rating"
            )
        channels[name] = template
    if not channels:
        raise file.error("[[channels]]: give one at least")
    return channels


def _wording(file: TomlFile, told: Mapping[str, Any]) -> Wording:
    usual = verbalizer.USUAL
    words = {
        field.name: told.get(field.name, getattr(usual, field.name))
        for field in dataclasses.fields(Wording)
    }
    for name, text in words.items():
        if not verbalizer.normalize(text):
            raise file.error(f"[labels] {name} = {text!r}: give a text")
    likes, dislikes = (verbalizer.normalize(words[name]) for name in ("likes", "dislikes"))
    if likes == dislikes:
        raise file.error(f"[labels] likes and dislikes are both {words['likes']!r}")
    return Wording(**words)
