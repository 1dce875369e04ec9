import numpy as np
import pytest
import seqio
import tensorflow as tf

from uem_t5x.base.errors import InputError
from uem_t5x.data.dataset_folder import DatasetFolder
from uem_t5x.inputs import data_sources, history_sampling, preprocessors
from uem_t5x.tastes import sentences, verbalizer

pytestmark = pytest.mark.usefixtures("current_folder")


def read(split="train"):
    return data_sources.DatasetFolderSource().get_dataset(split, shuffle=False)


class TestMostRecentItems:
    @pytest.mark.parametrize(
        ("history_length", "sequence_length", "expected"),
        [(3, None, 3), (10_000, None, None), (5, {"history_items": 2}, 2), (2, {"inputs": 9}, 2)],
    )
    def test_keeps_the_end_of_the_history(self, history_length, sequence_length, expected):
        trimmed = history_sampling.most_recent_items(read(), history_length, sequence_length)

        for whole, part in zip(read().as_numpy_iterator(), trimmed.as_numpy_iterator()):
            kept = slice(None if expected is None else -expected, None)
            for name in ("history_items", "history_ratings"):
                np.testing.assert_array_equal(part[name], whole[name][kept])


class TestAnswer:
    GENRES = ("Comédie", "Crime, and Punishment", "Drama", "Film-Noir", "Horror", "War")

    @pytest.fixture(autouse=True)
    def genres(self, monkeypatch):
        monkeypatch.setattr(DatasetFolder, "genres", self.GENRES)

    def write(self, liked, disliked):
        example = {
            "liked": tf.constant(liked, tf.string),
            "disliked": tf.constant(disliked, tf.string),
        }
        dataset = preprocessors.answer(tf.data.Dataset.from_tensors(example))
        assert dataset.element_spec["targets"] == tf.TensorSpec([], tf.string)
        return next(dataset.as_numpy_iterator())["targets"].decode()

    @pytest.mark.parametrize(
        ("liked", "disliked"),
        [
            ([], []),
            (["Drama"], []),
            ([], ["Horror", "War"]),
            (["Film-Noir", "Drama", "Crime, and Punishment"], ["Comédie"]),
        ],
    )
    def test_is_the_sentence_of_the_verbalizer(self, liked, disliked):
        assert self.write(liked, disliked) == verbalizer.write_answer(liked, disliked)

    @pytest.mark.parametrize("number_disliked", range(4))
    @pytest.mark.parametrize("number_liked", range(4))
    def test_however_many_genres(self, number_liked, number_disliked):
        liked, disliked = self.GENRES[:number_liked], self.GENRES[-1 : -1 - number_disliked : -1]
        assert self.write(liked, disliked) == verbalizer.write_answer(liked, disliked)

    def test_a_genre_that_the_folder_lacks_is_named(self):
        with pytest.raises(tf.errors.InvalidArgumentError, match="Western"):
            self.write(["Drama"], ["Western"])


class TestTextHistory:
    def tell(self, history_length, inputs=None, **options):
        vocabulary = data_sources.dataset_folder().vocabulary_path
        features = {"inputs": seqio.Feature(seqio.SentencePieceVocabulary(str(vocabulary)))}
        recent = history_sampling.most_recent_items(read(), history_length)
        lengths = inputs and {"inputs": inputs}
        told = preprocessors.text_history(recent, features, lengths, **options)
        return features["inputs"].vocabulary, next(told.as_numpy_iterator())

    def test_reads_as_the_sentences_of_the_paper_most_recent_first(self, current_folder):
        _, example = self.tell(history_length=2)
        movies = current_folder.movies().rows(named=True)

        expected = [sentences.INSTRUCTION]
        for row, stars in zip(example["history_items"][::-1], example["history_ratings"][::-1]):
            movie = movies[row]
            genres = ", ".join(movie["genres"])
            opening = f"The movie {movie['title']} is listed with genres {genres}"
            rating = f"The movie is rated with {stars / 2:g} stars"
            expected.append(f"{opening}. {rating}. {movie['description']}")
        assert example["inputs"].decode() == " ".join(expected)

    def test_takes_whole_items_while_they_fit(self):
        vocabulary, three = self.tell(history_length=3)
        length = len(vocabulary.encode(three["inputs"].decode())) + 1

        _, fits = self.tell(history_length=5, inputs=length)
        _, too_long = self.tell(history_length=5, inputs=length - 1)
        _, two = self.tell(history_length=2)

        assert fits["inputs"] == three["inputs"]
        assert too_long["inputs"] == two["inputs"]

    def test_keeps_the_ids_of_what_is_told(self):
        vocabulary, three = self.tell(history_length=3)
        length = len(vocabulary.encode(three["inputs"].decode())) + 1

        _, fits = self.tell(history_length=5, inputs=length)

        for name in ("history_items", "history_ratings"):
            np.testing.assert_array_equal(fits[name], three[name])

    def test_most_recent_last(self):
        older, recent = (
            self.tell(length)[1]["inputs"].decode().removeprefix(sentences.INSTRUCTION)
            for length in (2, 1)
        )
        older = older.removeprefix(recent)

        _, example = self.tell(history_length=2, order="most_recent_last")

        assert example["inputs"].decode() == sentences.INSTRUCTION + older + recent

    def test_some_of_the_sentences(self):
        _, whole = self.tell(history_length=1)
        _, example = self.tell(history_length=1, told=("title_genres", "rating"))
        assert whole["inputs"].decode().startswith(f"{example['inputs'].decode()}. ")

    def test_a_template_of_ones_own(self, current_folder):
        _, example = self.tell(history_length=1, told=["{title}: {classes}", "{stars}", "{value}"])
        movie = current_folder.movies().row(example["history_items"][0], named=True)
        stars = f"{example['history_ratings'][0] / 2:g}"
        told = f"{movie['title']}: {', '.join(movie['genres'])}. {stars}. {stars}"
        assert example["inputs"].decode() == f"{sentences.INSTRUCTION} {told}"

    @pytest.mark.parametrize(
        ("told", "message"),
        [
            ((), r"\(\): give a list of title_genres, rating, description"),
            ("rating", "'rating': give a list of title_genres"),
            (("title",), r"'title' is none of the channels .* '\{title\}'"),
            (("{titel}",), "'{titel}' is none of the channels .* classes, description, movieId"),
            (("{title",), "expected '}' before end of string"),
        ],
    )
    def test_sentences_that_there_are_not(self, told, message):
        with pytest.raises(InputError, match=f"HISTORY_SENTENCES.*{message}"):
            self.tell(history_length=2, told=told)

    def test_an_unknown_order(self):
        with pytest.raises(InputError, match="HISTORY_ORDER='random': choose 'most_recent_first'"):
            self.tell(history_length=2, order="random")

    def test_never_cuts_an_item(self):
        _, tiny = self.tell(history_length=5, inputs=4)

        assert tiny["inputs"].decode() == sentences.INSTRUCTION
        assert len(tiny["history_items"]) == 0
