"""From a user's history to model inputs and the sentence to be learned: the steps of the tasks.

Nothing here runs before `seqio.CacheDatasetPlaceholder`: the cache holds whole histories as ids,
which is small, serves every history length, and lets each epoch draw its training stretches anew.
"""

from collections.abc import Iterator, Mapping, Sequence

import gin
import seqio
import tensorflow as tf

from uem_t5x.base.errors import InputError
from uem_t5x.data import dataset_folder
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.inputs import answer_checks, augmentation, data_sources
from uem_t5x.inputs import users as users_lib
from uem_t5x.inputs.augmentation import Example
from uem_t5x.tastes import answer_metrics, sentences, verbalizer
from uem_t5x.tastes.rating_scale import MAX_HALF_STARS

MOST_RECENT_FIRST, MOST_RECENT_LAST = "most_recent_first", "most_recent_last"

SequenceLength = Mapping[str, int] | None


@gin.configurable
def training_stretches(
    dataset: tf.data.Dataset,
    probability: float = 0.0,
    min_length: int = 20,
    max_length: int | None = None,
    log_uniform: bool = False,
    contiguous: bool = True,
) -> tf.data.Dataset:
    """Replaces training histories by random parts of themselves, labelled by the label rule.

    The answer to a question of one's own stays as it is.

    Off unless a recipe binds `probability`: the paper trains on 117K whole histories. With a few
    hundred users it is what makes training possible, as one history yields thousands of examples
    that each obey the rule. Examples of other splits pass untouched.

    Args:
        dataset: examples of `DatasetFolderSource`.
        probability: the share of training examples that are replaced; 0 switches this off.
        min_length: the fewest items of a part; shorter histories stay whole.
        max_length: the most items of a part; None for the whole history. It may exceed the task's
            history length: then the model learns to guess at what it does not see, as it must
            where the labels come from whole histories.
        log_uniform: draws the logarithm of the length uniformly, which favours short parts, and
            not the length itself.
        contiguous: takes consecutive items, and not any items (in time order either way).

    Raises:
        InputError: the lengths or the probability make no sense.
    """
    augmentation.check_share("training_stretches", "probability", probability)
    if not 1 <= min_length <= (max_length or min_length):
        raise InputError(
            f"preprocessors.training_stretches: min_length = {min_length} and max_length = "
            f"{max_length} leave no length to draw; bind 1 <= min_length <= max_length"
        )
    if probability == 0:
        return dataset

    relabel = augmentation.relabeller()
    select = augmentation.consecutive_items if contiguous else augmentation.any_items

    def stretch(example: Example, seed: tf.Tensor) -> Example:
        length_seed, item_seed = tf.unstack(tf.random.experimental.stateless_split(seed, num=2))
        size = tf.size(example["history_items"])
        length = augmentation.draw_length(size, min_length, max_length, log_uniform, length_seed)
        kept = select(size, length, item_seed)
        items = tf.gather(example["history_items"], kept)
        return relabel(example, items, tf.gather(example["history_ratings"], kept))

    return augmentation.change_training_examples(dataset, probability, stretch)


@gin.configurable
def crossed_histories(
    dataset: tf.data.Dataset, probability: float = 0.0, kept: float = 0.5
) -> tf.data.Dataset:
    """Crosses histories of training users with those of others, labelled by the label rule.

    Off unless a recipe binds `probability`. A few hundred users are a few hundred histories, which
    a model learns by heart; here each is given another training user's besides, both thinned out,
    in an order drawn at random. Every rating stays as it was given; a movie that both rated counts
    once. Examples of other splits pass untouched.

    Args:
        dataset: examples of `DatasetFolderSource`.
        probability: the share of training examples that are changed; 0 switches this off.
        kept: the share of the items that is kept of either history; at least one is.

    Raises:
        InputError: a probability or a share makes no sense.
    """
    augmentation.check_share("crossed_histories", "probability", probability)
    augmentation.check_share("crossed_histories", "kept", kept)
    folder = data_sources.dataset_folder()
    if folder.is_catalogue:  # which is without its users
        return dataset
    if not augmentation.may_relabel("crossed_histories", probability, folder):
        return dataset

    relabel = augmentation.relabeller()
    users = users_lib.read(folder, "train")
    all_items, all_half_stars, offsets = map(
        tf.constant, (users.items, users.half_stars, users.offsets)
    )

    def cross(example: Example, seed: tf.Tensor) -> Example:
        user_seed, own_seed, other_seed, order_seed = tf.unstack(
            tf.random.experimental.stateless_split(seed, num=4)
        )
        other = tf.random.stateless_uniform([], user_seed, maxval=len(users.ids), dtype=tf.int32)
        theirs = slice(offsets[other], offsets[other + 1])
        own_kept = augmentation.thin_out(tf.size(example["history_items"]), kept, own_seed)
        own_items = tf.gather(example["history_items"], own_kept)
        is_new = tf.reduce_all(all_items[theirs][:, tf.newaxis] != own_items, axis=1)
        new = tf.where(is_new)[:, 0]
        other_kept = tf.gather(new, augmentation.thin_out(tf.size(new), kept, other_seed))
        items, half_stars = (
            tf.concat([tf.gather(own, own_kept), tf.gather(of_all[theirs], other_kept)], axis=0)
            for own, of_all in (
                (example["history_items"], all_items),
                (example["history_ratings"], all_half_stars),
            )
        )
        order = tf.argsort(tf.random.stateless_uniform([tf.size(items)], order_seed))
        return relabel(example, tf.gather(items, order), tf.gather(half_stars, order))

    return augmentation.change_training_examples(dataset, probability, cross)


@gin.configurable
def random_tastes(
    dataset: tf.data.Dataset,
    probability: float = 0.0,
    genre_stddev: float = 2.0,
    bias_stddev: float = 1.0,
    least_own_share: float = 0.0,
) -> tf.data.Dataset:
    """Gives training users other tastes, labelled by the label rule.

    Off unless a recipe binds `probability`. A few hundred users have a few hundred tastes, which a
    model learns by heart; here they rate as if they had another one too. Every genre g has an
    appeal t_g, and a user whose ratings r have the mean m gives a movie of the genres G

        m + own_share (r - m) + bias + sum over G of t_g / sqrt(|G|)

    half-stars, rounded and kept within 1..10, with all but r and m drawn anew each time. Examples
    of other splits pass untouched.

    Args:
        dataset: examples of `DatasetFolderSource`.
        probability: the share of training examples that are changed; 0 switches this off.
        genre_stddev: the most that the standard deviation of t_g is, in half-stars; it is drawn
            from 0 to this for each example, so that some tastes are strong and some are weak.
        bias_stddev: of the bias, in half-stars.
        least_own_share: the least that is left of what the user made of a movie; the share is drawn
            from this to 1 for each example.

    Raises:
        InputError: a probability, a share or a deviation makes no sense.
    """
    augmentation.check_share("random_tastes", "probability", probability)
    augmentation.check_share("random_tastes", "least_own_share", least_own_share)
    for name, stddev in {"genre_stddev": genre_stddev, "bias_stddev": bias_stddev}.items():
        if stddev < 0:
            raise InputError(f"preprocessors.random_tastes.{name} = {stddev}: bind it to 0 or more")
    folder = data_sources.dataset_folder()
    if not augmentation.may_relabel("random_tastes", probability, folder):
        return dataset

    relabel = augmentation.relabeller()
    genre_matrix = tf.constant(folder.genre_matrix(), tf.float32)

    def change_taste(example: Example, seed: tf.Tensor) -> Example:
        strength_seed, taste_seed, bias_seed, share_seed = tf.unstack(
            tf.random.experimental.stateless_split(seed, num=4)
        )
        strength = genre_stddev * tf.random.stateless_uniform([], strength_seed)
        taste = strength * tf.random.stateless_normal([genre_matrix.shape[1]], taste_seed)
        bias = bias_stddev * tf.random.stateless_normal([], bias_seed)
        genres = tf.gather(genre_matrix, example["history_items"])
        scale = tf.sqrt(tf.maximum(tf.reduce_sum(genres, axis=1), 1))
        own = tf.cast(example["history_ratings"], tf.float32)
        own_share = tf.random.stateless_uniform([], share_seed, least_own_share)
        mean = tf.reduce_mean(own)
        worth = mean + own_share * (own - mean) + bias + tf.linalg.matvec(genres, taste) / scale
        half_stars = tf.clip_by_value(tf.cast(tf.round(worth), tf.int32), 1, MAX_HALF_STARS)
        return relabel(example, example["history_items"], half_stars)

    return augmentation.change_training_examples(dataset, probability, change_taste)


def instruction(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature] | None = None,
    sequence_length: SequenceLength = None,
) -> tf.data.Dataset:
    """Asks the question of the dataset folder, or of the example where each has its own.

    The history reaches the model as embeddings.

    Args:
        dataset: examples, which need nothing but their own question where they have one.
        output_features: gives the vocabulary of `inputs`. A warning tells of questions that lose
            their end.
        sequence_length: the task's feature lengths.
    """
    folder = data_sources.dataset_folder()
    if output_features and "inputs" in output_features:
        length = (sequence_length or {}).get("inputs")
        answer_checks.check_questions(folder, output_features["inputs"], length)

    @seqio.map_over_dataset
    def ask(example: Example) -> Example:
        return {**example, "inputs": _question(folder, example)}

    return ask(dataset)


def _question(folder: DatasetFolder, example: Example) -> tf.Tensor:
    if folder.telling.has_questions:
        return example["question"]
    return tf.constant(folder.telling.question)


@gin.configurable
def text_history(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    sequence_length: SequenceLength = None,
    order: str = MOST_RECENT_FIRST,
    told: Sequence[str] | None = None,
) -> tf.data.Dataset:
    """Asks the question of the dataset folder, or of the example, and tells the history in words.

    An item reads as the sentences that the embeddings are made of. Starting from the most recent
    one, items are told while they fit into the length of `inputs` whole; `history_items` and
    `history_ratings` keep those that are told.

    Args:
        dataset: examples with `history_items` and `history_ratings`, oldest first.
        output_features: gives the vocabulary of `inputs`, which measures what fits.
        sequence_length: the task's feature lengths; without one for `inputs`, all items are told.
        order: in which they are told, `most_recent_first` or `most_recent_last`.
        told: what is told of each: names of channels, or templates of one's own, as `{title}`;
            None for the sentences of all channels.

    Raises:
        InputError: there is no such order, no such channel, or a template names what items lack.
    """
    if order not in (MOST_RECENT_FIRST, MOST_RECENT_LAST):
        raise InputError(
            f"HISTORY_ORDER={order!r}: choose {MOST_RECENT_FIRST!r} or {MOST_RECENT_LAST!r}"
        )
    vocabulary = output_features["inputs"].vocabulary
    folder = data_sources.dataset_folder()
    # Made here, outside of the mapped function: as captured tensors they are no part of its graph.
    of_items = [(is_of_rating, tf.constant(texts)) for is_of_rating, texts in _told(folder, told)]
    budget = (sequence_length or {}).get("inputs")
    if budget is not None:
        budget -= int(output_features["inputs"].add_eos)
        answer_checks.check_questions(folder, output_features["inputs"], budget)

    def count_fitting(question: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        # SentencePiece splits at spaces, so the parts have as many tokens as the whole.
        left = budget - tf.size(vocabulary.encode_tf(question), tf.int64)
        lengths = vocabulary.encode_tf(items).row_lengths()
        from_most_recent = tf.cumsum(lengths, reverse=True)
        return tf.reduce_sum(tf.cast(from_most_recent <= left, tf.int32))

    @seqio.map_over_dataset
    def tell(example: Example) -> Example:
        rows, half_stars = example["history_items"], example["history_ratings"]
        parts = [
            tf.gather(texts, half_stars if is_of_rating else rows)
            for is_of_rating, texts in of_items
        ]
        items, question = tf.strings.join(parts, separator=". "), _question(folder, example)
        first = 0 if budget is None else tf.size(rows) - count_fitting(question, items)
        items = items[first:]
        if order == MOST_RECENT_FIRST:
            items = items[::-1]
        words = tf.concat([[question], items], axis=0)
        return {
            **example,
            "history_items": rows[first:],
            "history_ratings": half_stars[first:],
            "inputs": tf.strings.reduce_join(words, separator=" "),
        }

    return tell(dataset)


def _told(
    folder: DatasetFolder, told: Sequence[str] | None
) -> Iterator[tuple[bool, Sequence[str]]]:
    """Yields the sentences about every item or every rating, and which of them they are about."""
    of_channels = folder.telling.sentences
    if isinstance(told, str) or (told is not None and not told):
        raise InputError(f"HISTORY_SENTENCES={told!r}: give a list of {', '.join(of_channels)}")
    movies = folder.movies()
    known = {"classes", sentences.STARS, sentences.VALUE, *movies.columns}
    for said in of_channels if told is None else told:
        template = of_channels.get(said, said)
        try:
            named = set(sentences.names(template))
        except ValueError as error:
            raise InputError(f"HISTORY_SENTENCES: {error}") from error
        if not named or named - known:
            raise InputError(
                f"HISTORY_SENTENCES: {said!r} is none of the channels {', '.join(of_channels)}, "
                f"nor a template of {', '.join(sorted(known - {'row', 'genres'}))}, as '{{title}}'"
            )
        if sentences.is_of_rating(template):
            yield True, folder.telling.rating_sentences(template)
        else:
            yield False, dataset_folder.item_sentences(movies, template)


def answer(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature] | None = None,
    sequence_length: SequenceLength = None,
) -> tf.data.Dataset:
    """Writes the target sentence from `liked` and `disliked`, as `verbalizer.write_answer` does.

    Where each example has a question of its own, its `answer` is the target.

    Args:
        dataset: examples with `liked` and `disliked`, or with `answer`.
        output_features: gives the vocabulary of `targets`. A warning tells of genres that it cannot
            write.
        sequence_length: the task's feature lengths. A warning tells of answers that are longer than
            that of `targets`.
    """
    folder = data_sources.dataset_folder()
    if folder.telling.has_questions:
        answer_metrics.check(folder.telling.metrics)
        if output_features and "targets" in output_features:
            length = (sequence_length or {}).get("targets")
            answer_checks.check_answers(folder, output_features["targets"], length)
        return dataset.map(lambda example: {**example, "targets": example["answer"]})
    genres, most, wording = folder.genres, folder.telling.rule.most, folder.telling.wording
    if output_features and "targets" in output_features:
        length = (sequence_length or {}).get("targets")
        answer_checks.check(genres, output_features["targets"], length, most, wording)
    names = tf.constant(genres)
    spellings = tf.constant([verbalizer.spell(name, wording) for name in genres])
    parts = tf.constant(_answer_parts(most, wording))

    @seqio.map_over_dataset
    def write(example: Example) -> Example:
        liked, disliked = example["liked"], example["disliked"]
        said = tf.concat([liked, disliked], axis=0)
        is_genre = said[:, tf.newaxis] == names
        known = tf.reduce_all(tf.reduce_any(is_genre, axis=1))
        tf.debugging.Assert(known, ["a genre is not among those of the dataset folder:", said])
        spelled = tf.gather(spellings, tf.argmax(is_genre, axis=1))
        between = tf.gather_nd(parts, [tf.size(liked), tf.size(disliked)])
        spelled = tf.pad(spelled, [[0, tf.size(between) - tf.size(said)]], constant_values="")
        return {**example, "targets": tf.strings.reduce_join(tf.stack([between, spelled], axis=1))}

    return write(dataset)


def _answer_parts(most: int, wording: verbalizer.Wording) -> list[list[list[str]]]:
    """Returns what stands before, between and after the names in an answer.

    Python's writer knows the sentences, at 0.3 ms a call from TensorFlow; these are its own words.

    Returns:
        [liked][disliked]: by the number of either, 2 * most + 1 strings, the last ones empty.
    """
    numbers, length = range(most + 1), 2 * most + 1

    def parts(liked: int, disliked: int) -> list[str]:
        found = verbalizer.answer_parts(liked, disliked, wording)
        return found + [""] * (length - len(found))

    return [[parts(liked, disliked) for disliked in numbers] for liked in numbers]
