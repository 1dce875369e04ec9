from pathlib import Path

import numpy as np
import pytest
import seqio
import tensorflow as tf

from uem_t5x.base import checksums
from uem_t5x.data import examples, synthetic
from uem_t5x.data.dataset_folder import SPLITS, DatasetFolder
from uem_t5x.data.prepare import PrepareOptions, prepare
from uem_t5x.data.synthetic import SynthesizeOptions
from uem_t5x.encoders.sentences import make_encoder
from uem_t5x.inputs import data_sources, vocabularies
from uem_t5x.inputs import users as users_lib
from uem_t5x.tastes import baselines, metrics, verbalizer
from uem_t5x.tastes.labels import LabelRule

SHARED = Path(__file__).parents[3] / "shared/data"


def options(folder, **changes):
    defaults = {"min_history": 2, "validation_users": 0, "test_users": 0}
    places = {"descriptions": folder / "descriptions.csv", "output": folder / "dataset"}
    return PrepareOptions(movielens=folder, **{**defaults, **places, **changes})


def users_of(dataset, split):
    """Returns the examples of a split by user: rows, half-stars, liked and disliked genres."""
    users = {}
    for record in tf.data.TFRecordDataset([str(path) for path in dataset.examples(split)]):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        (user,) = feature["user_id"].bytes_list.value
        users[user.decode()] = (
            list(feature["history_items"].int64_list.value),
            list(feature["history_ratings"].int64_list.value),
            [name.decode() for name in feature["liked"].bytes_list.value],
            [name.decode() for name in feature["disliked"].bytes_list.value],
        )
    return users


@pytest.fixture(scope="module")
def synthetic_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepare") / "ml"
    synthetic.synthesize(SynthesizeOptions(output=folder, users=200, movies=400))
    return folder


class TestGoldenFolder:
    def test_movies(self, inputs):
        dataset = prepare(options(inputs))
        assert dataset.genres == ("Comedy", "Crime", "Drama", "Horror")
        assert dataset.movies().rows() == [
            (0, 0, "", [], ""),
            (1, 1, "Toy Story (1995)", ["Comedy"], "About movie 1."),
            (2, 2, "Heat (1995)", ["Crime", "Drama"], "About movie 2."),
            (3, 3, "Postman, The (1997)", ["Drama"], "About movie 3."),
            (4, 6, "Alien (1979)", ["Horror"], "About movie 6."),
        ]

    def test_histories_are_whole_and_in_time_order(self, inputs):
        dataset = prepare(options(inputs))
        assert users_of(dataset, "train") == {
            # Rated in the same second: by movieId. No genre occurs three times.
            "1": ([1, 4, 2, 3], [4, 1, 8, 10], [], []),
            "3": ([2, 1], [9, 7], [], []),
        }

    def test_counts(self, inputs):
        counts = prepare(options(inputs)).manifest.counts
        assert counts["dropped_duplicate_ratings"] == 1
        assert counts["dropped_unknown_movie_ratings"] == 1
        assert counts["dropped_undescribed_ratings"] == 2
        assert counts["dropped_short_history_ratings"] == 1
        assert (counts["ratings_read"], counts["ratings"]) == (11, 6)
        assert (counts["users_read"], counts["users"], counts["dropped_users"]) == (3, 2, 1)
        assert (counts["movies_read"], counts["movies"], counts["descriptions"]) == (6, 4, 5)

    def test_an_item_whose_cell_of_genres_is_empty_is_dropped(self, inputs):
        movies = inputs / "movies.csv"
        movies.write_text(movies.read_text().replace("(no genres listed)", ""))
        self.test_movies(inputs)
        assert DatasetFolder.open(inputs / "dataset").manifest.counts["dropped_movies"] == 2

    def test_a_user_id_beyond_int64_is_written_as_it_is(self, inputs):
        ratings = inputs / "ratings.csv"
        ratings.write_text(ratings.read_text().replace("\n3,", f"\n{2**63 + 1},"))
        users = users_of(prepare(options(inputs)), "train")
        assert users == {
            "1": ([1, 4, 2, 3], [4, 1, 8, 10], [], []),
            "9223372036854775809": ([2, 1], [9, 7], [], []),
        }

    @pytest.mark.parametrize("name", ["descriptions.csv", "movies.csv"])
    def test_every_input_has_its_checksum(self, inputs, name):
        table = inputs / "tmdb" / name
        table.parent.mkdir()
        (inputs / "descriptions.csv").rename(table)
        files = {kind: inputs / f"{kind}.csv" for kind in ("movies", "ratings")}
        files["descriptions"] = table
        sums = {kind: checksums.sha256(file) for kind, file in files.items()}
        assert prepare(options(inputs, descriptions=table)).manifest.inputs == sums

    def test_labels(self, inputs):
        ratings = inputs / "ratings.csv"
        more = [f"4,{movie},{stars},{movie}" for movie, stars in [(1, 1), (2, 5), (3, 4), (6, 2)]]
        ratings.write_text(ratings.read_text() + "\n".join([*more, ""]))
        movies = inputs / "movies.csv"
        movies.write_text(movies.read_text().replace("Comedy", "Comedy|Horror|Drama"))
        movies.write_text(movies.read_text().replace("Crime|Drama", "Crime|Drama|Horror"))
        users = users_of(prepare(options(inputs)), "train")
        # Drama: 1, 5 and 4 stars, a mean of 3.33; Horror: 1, 5 and 2 stars, a mean of 2.67.
        assert users["4"] == ([1, 2, 3, 4], [2, 10, 8, 4], [], ["Horror"])

    def test_embeddings_are_those_of_the_sentences(self, inputs):
        dataset = prepare(options(inputs, encoder_width=16))
        embeddings = dataset.embeddings()
        assert [(c.name, c.width, c.index) for c in dataset.channels] == [
            ("title_genres", 16, "item"),
            ("rating", 16, "rating"),
            ("description", 16, "item"),
        ]
        record = dataset.encoder
        encode = make_encoder(record.name, record.width, record.source).encode
        expected = {
            ("title_genres", 2): "The movie Heat (1995) is listed with genres Crime, Drama",
            ("rating", 9): "The movie is rated with 4.5 stars",
            ("rating", 10): "The movie is rated with 5 stars",
            ("description", 4): "About movie 6.",
        }
        for (channel, row), text in expected.items():
            np.testing.assert_array_equal(embeddings[channel][row], encode([text])[0])
        lengths = {channel: len(matrix) for channel, matrix in embeddings.items()}
        assert lengths == {"title_genres": 5, "rating": 11, "description": 5}
        assert not any(matrix[0].any() for matrix in embeddings.values())


def test_a_vocabulary_spells_whatever_was_prepared(inputs):
    """Letters that are rare, that no user's answer has, or that stand in a long text."""
    rare = "W" * 5000 + " Z\u00e9bre d'\u6771\u4eac \ufb01n"
    with (inputs / "descriptions.csv").open("a") as file:
        file.write(f"4,{rare}\n")
    dataset = prepare(options(inputs, vocabulary_size=128))
    vocabulary = vocabularies.load(str(dataset.vocabulary_path))
    movies = dataset.movies()
    answers = [verbalizer.write_answer([], []), verbalizer.write_answer(*[dataset.genres] * 2)]
    assert rare in movies["description"]
    for text in [*answers, *movies["title"], *movies["description"]]:
        assert vocabulary.unk_id not in vocabulary.encode(text), text


class TestSynthetic:
    def test_every_user_is_in_one_split(self, synthetic_folder, tmp_path):
        dataset = prepare(
            PrepareOptions(
                synthetic_folder,
                synthetic_folder / "descriptions.csv",
                tmp_path / "dataset",
                validation_users=20,
                test_users=0.2,
                vocabulary_size=500,
            )
        )
        users = {split: users_of(dataset, split) for split in SPLITS}
        assert {split: len(users[split]) for split in SPLITS} == {
            split: dataset.num_examples(split) for split in SPLITS
        }
        assert len(users["validation"]) == 20
        assert 25 < len(users["test"]) < 55
        assert sorted(int(user) for split in users.values() for user in split) == list(
            range(1, 201)
        )
        self.check_vocabulary(dataset)

    def check_vocabulary(self, dataset):
        import sentencepiece

        vocabulary = sentencepiece.SentencePieceProcessor(str(dataset.vocabulary_path))
        special = (vocabulary.pad_id(), vocabulary.eos_id(), vocabulary.unk_id())
        assert (*special, vocabulary.bos_id()) == (0, 1, 2, -1)
        genres = dataset.genres
        answer = verbalizer.write_answer(genres[:3], genres[3:6])
        pieces = vocabulary.encode(answer, out_type=str)
        assert {"\N{LOWER ONE EIGHTH BLOCK}" + genre for genre in genres[:6]} <= set(pieces)
        assert vocabulary.decode(vocabulary.encode(answer)) == answer

    def test_the_same_input_gives_the_same_bytes(self, synthetic_folder, tmp_path):
        for name in ("one", "two"):
            prepare(
                PrepareOptions(
                    synthetic_folder,
                    synthetic_folder / "descriptions.csv",
                    tmp_path / name,
                    vocabulary_size=500,
                )
            )
        files = sorted(path for path in (tmp_path / "one").rglob("*") if path.is_file())
        assert len(files) == 8
        for file in files:
            twin = tmp_path / "two" / file.relative_to(tmp_path / "one")
            assert file.read_bytes() == twin.read_bytes(), file

    def test_each_process_writes_the_same_bytes(self, synthetic_folder, tmp_path):
        dataset = prepare(options(synthetic_folder, output=tmp_path / "dataset"))
        for record in tf.data.TFRecordDataset([str(path) for path in dataset.examples("train")]):
            example = tf.train.Example.FromString(record.numpy())
            assert record.numpy() == example.SerializeToString(deterministic=True)

    def test_hosts_read_equally_many_users(self, synthetic_folder, tmp_path, monkeypatch):
        monkeypatch.setattr(examples, "USERS_PER_SHARD", 15)
        dataset = prepare(options(synthetic_folder, output=tmp_path / "dataset"))
        assert len(dataset.examples("train")) == 16  # 14 would hold them
        task = seqio.Task("users", data_sources.DatasetFolderSource(), {}, [])

        def users(index, hosts):
            part = task.get_dataset(
                None, "train", shuffle=False, shard_info=seqio.ShardInfo(index, hosts)
            )
            return len(list(part))

        with data_sources.use_dataset_folder(dataset):
            for hosts in (1, 2, 4, 8, 16):
                parts = [users(index, hosts) for index in range(hosts)]
                assert sum(parts) == 200
                assert max(parts) - min(parts) <= 1, hosts


needs_data = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")


@pytest.fixture(scope="module")
def real_folder(tmp_path_factory):
    return prepare(
        PrepareOptions(
            SHARED / "ml-latest-small",
            SHARED / "movie_descriptions.csv",
            tmp_path_factory.mktemp("real") / "dataset",
        )
    )


@needs_data
def test_real_data(real_folder):
    counts = real_folder.manifest.counts
    assert len(real_folder.genres) == 19
    assert 575 <= counts["users"] <= 590
    assert 79_000 <= counts["ratings"] <= 83_000
    assert counts["labels_per_user"] == pytest.approx(3.5, abs=0.05)
    assert counts["users_without_disliked"] / counts["users"] == pytest.approx(0.59, abs=0.01)
    assert 66 <= counts["median_history"] <= 70


@needs_data
def test_what_no_model_can_beat_on_real_data(real_folder):
    """Labels, order, trimming and metric, against what was counted apart on the same files.

    There descriptions were joined by id; the join here finds 98.7 % of them by title, and the
    figures have two digits: hence the tolerances. Five items tell the most recent from the oldest,
    and five from four.
    """
    splits = [users_lib.read(real_folder, split) for split in SPLITS]
    genres = real_folder.genre_matrix(), real_folder.genres
    tastes = [taste for users in splits for taste in users.tastes]

    def f1(answer):
        predicted = [taste for users in splits for taste in answer(users)]
        return metrics.score(tastes, predicted, real_folder.genres)["f1"]

    def rule(p, *numbers):
        return f1(lambda users: baselines.rule(users.most_recent(p), *genres, *numbers))

    counting = f1(lambda users: baselines.counting(users, *genres))
    assert counting == pytest.approx(0.080, abs=0.005)
    assert rule(5) == pytest.approx(0.11, abs=0.01)
    assert rule(5, LabelRule(min_count=1)) == pytest.approx(0.23, abs=0.01)
    for p, counted in ((20, 0.38), (50, 0.66), (100, 0.82)):
        assert rule(p) == pytest.approx(counted, abs=0.025)
    assert rule(10_000) == 1.0
