import itertools
import random
import time
import unicodedata

import pytest
import sentencepiece

from uem_t5x.tastes.verbalizer import (
    Wording,
    normalize,
    read_answer,
    read_taste,
    spell,
    write_answer,
)

MOVIELENS_GENRES = [
    *("Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "IMAX", "Musical", "Mystery", "Romance", "Sci-Fi"),
    *("Thriller", "War", "Western"),
]
# Names that could be taken for each other, or for the grammar of the sentence.
AWKWARD_GENRES = [
    *("A", "B", "A and B", "Sword and Sorcery", "Film", "Film-Noir", "Noir", "Rom, Com", "R&B"),
    *('The "Best"', "The", "Vol", "Vol.", "Likes", "doesn't like", "and", "no clear taste", "Spaß"),
    *("Never", "Doesn", "Isn't", "Liked"),
]


def orderings(genres, most=3):
    return [side for size in range(most + 1) for side in itertools.permutations(genres, size)]


def assert_inverse(liked, disliked, genres):
    answer = write_answer(liked, disliked)
    assert read_answer(answer, genres) == (list(liked), list(disliked)), answer


@pytest.mark.parametrize(
    ("liked", "disliked", "answer"),
    [
        (
            ["Drama", "Crime", "War"],
            ["Horror"],
            "The user likes Drama, Crime and War and doesn't like Horror.",
        ),
        (["Drama", "War"], [], "The user likes Drama and War."),
        ([], ["Horror"], "The user doesn't like Horror."),
        ([], [], "The user has no clear taste."),
        (["Sword and Sorcery"], [], 'The user likes "Sword and Sorcery".'),
    ],
)
def test_golden_sentences(liked, disliked, answer):
    assert write_answer(liked, disliked) == answer
    assert read_answer(answer, [*MOVIELENS_GENRES, "Sword and Sorcery"]) == (liked, disliked)


def test_inverse_for_every_ordered_choice_on_one_side():
    for side in orderings(MOVIELENS_GENRES):
        assert_inverse(side, [], MOVIELENS_GENRES)
        assert_inverse([], side, MOVIELENS_GENRES)


def test_inverse_for_every_pair_of_sides_of_six_genres():
    genres = ["Drama", "Film-Noir", "Sci-Fi", "War", "Western", "Children"]
    for liked in orderings(genres):
        for disliked in orderings([genre for genre in genres if genre not in liked]):
            assert_inverse(liked, disliked, MOVIELENS_GENRES)


def test_inverse_for_names_that_look_like_grammar():
    for side in orderings(AWKWARD_GENRES):
        assert_inverse(side, [], AWKWARD_GENRES)
    choose = random.Random(0)
    for _ in range(20_000):
        mixed = choose.sample(AWKWARD_GENRES, 6)
        assert_inverse(
            mixed[: choose.randrange(4)], mixed[3 : choose.randrange(3, 7)], AWKWARD_GENRES
        )


@pytest.mark.parametrize(
    ("text", "liked", "disliked"),
    [
        ("the USER  likes sci-fi ,drama\nand  WAR", ["Sci-Fi", "Drama", "War"], []),
        ("The user likes Dramedy, Drama and Cats.", ["Drama"], []),  # unknown words
        ("The user likes Warm Drama.", ["Drama"], []),  # War is not in Warm
        ("The user likes War, War and Drama.", ["War", "Drama"], []),  # repeated
        ("The user likes War and doesn't like War.", ["War"], []),  # both sides: the first counts
        ("The user doesn\N{RIGHT SINGLE QUOTATION MARK}t like War", [], ["War"]),
        ("The user does not like War and likes Drama", ["Drama"], ["War"]),
        ("I don't like War; dislikes Drama", [], ["War", "Drama"]),
        ("Drama, War", [], []),  # no verb yet
        ("The user likes", [], []),
        ("", [], []),
        ("They like War and the viewer likes Drama", ["War", "Drama"], []),
        ("\x00⁇ %$ likes \ud800 Drama", ["Drama"], []),
    ],
)
def test_imperfect_answers(text, liked, disliked):
    assert read_answer(text, MOVIELENS_GENRES) == (liked, disliked)


@pytest.mark.parametrize(
    "denied",
    [
        *(
            "doesn ⁇ t like",
            "doesn ⁇ like",
            "⁇ like",
            "doesn ⁇ t likes",
            "doesn t like",
            "doesn\N{RIGHT SINGLE QUOTATION MARK} t like",
        ),
        *(
            "doesn\N{LEFT SINGLE QUOTATION MARK}t like",
            "doesn\N{ACUTE ACCENT}t like",
            "doesn`t like",
        ),
        *("doesn\N{MODIFIER LETTER APOSTROPHE}t like", "doesn ⁇ t dislike", "doesn't dislike"),
        *(
            "never likes",
            "likes no",
            "doesn't really like",
            "isn't one who likes",
            "like",
            "disliked",
        ),
        *("doesn't lik", "doesn ⁇ t", "does"),
    ],
)
def test_a_side_that_cannot_be_told_is_none(denied):
    """Such answers were read as their contrary, or went on with the verb before."""
    assert read_answer(f"The user {denied} War.", MOVIELENS_GENRES) == ([], [])
    read = read_answer(f"The user likes Drama and {denied} War, Crime.", MOVIELENS_GENRES)
    assert read == (["Drama"], [])


def test_a_verb_that_can_be_read_ends_the_doubt():
    read = read_answer("The user doesn ⁇ t like War and likes Drama.", MOVIELENS_GENRES)
    assert read == (["Drama"], [])


DECOMPOSED = "Come\u0301die"  # as some systems write file names, and SentencePiece no text


def test_names_are_read_however_they_are_encoded():
    genres = ["Drama", DECOMPOSED, "\uff33\uff26"]
    answer = write_answer(["Drama", DECOMPOSED], ["\uff33\uff26"])
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        read = read_answer(unicodedata.normalize(form, answer), genres)
        assert read == (["Drama", DECOMPOSED], ["\uff33\uff26"])


@pytest.mark.parametrize("blank", ["\u200b", "\u200c", "\u200e", "\u200f", "\u2028", "\ufeff"])
def test_what_takes_no_room_is_a_space_as_for_sentencepiece(blank):
    genres = [f"Science{blank}Fiction", f"Likes{blank}and"]
    assert normalize(genres[0]) == "science fiction"
    assert spell(genres[1]) == f'"{genres[1]}"'  # as it is read, it is grammar
    answer = write_answer(genres[:1], genres[1:])
    assert read_answer(answer, genres) == (genres[:1], genres[1:])
    assert read_answer(answer.replace(blank, " "), genres) == (genres[:1], genres[1:])


def test_a_text_and_what_sentencepiece_makes_of_it_are_read_alike():
    """Of every character there is, between others and before an accent."""
    tokens = sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc")
    for block in range(0, 0x110000, 0x800):
        if block != 0xD800:  # halves of surrogate pairs
            characters = map(chr, range(block, block + 0x800))
            text = " | ".join(f"a{character}b {character}\u0301" for character in characters)
            assert normalize(tokens.normalize(text)) == normalize(text), hex(block)


def test_inverse_for_names_that_become_grammar():
    """In full width, these are no letters of the grammar until they are normalized."""
    genres = [
        "Vol",
        "Vol\uff0e",
        "\uff21\uff2e\uff24",
        "a\uff02, \uff02b",
        "a",
        "b",
        "\u2116",
        "x\u2026",
    ]
    assert all(spell(genre) != genre for genre in genres if genre not in ("Vol", "a", "b"))
    for side in orderings(genres):
        assert_inverse(side, [], genres)


OTHER_WORDS = [
    Wording("The shopper", "buys", "never buys", "The shopper buys anything."),
    Wording("Leser 7", "mag", "mag nicht", "Leser 7 mag alles."),
    # Either verb begins the other one, or ends it.
    Wording("It", "would not sell", "would sell", "It is kept."),
    Wording("It", "likes", "likes not", "It likes all."),
]


@pytest.mark.parametrize("wording", OTHER_WORDS)
def test_inverse_in_words_of_ones_own(wording):
    genres = [*AWKWARD_GENRES, "Leser", "nicht", "buys never", "keep, or sell"]
    rng = random.Random(0)
    for _ in range(2000):
        chosen = rng.sample(genres, rng.randrange(7))
        border = rng.randrange(max(0, len(chosen) - 3), min(3, len(chosen)) + 1)
        liked, disliked = chosen[:border], chosen[border:]
        answer = write_answer(liked, disliked, wording)
        assert read_taste(answer, genres, wording) == (liked, disliked), answer
        # What is known of the words forgives what it always does.
        assert read_answer(f"  {answer.upper()}", genres, wording) == (liked, disliked), answer


def test_words_of_ones_own_as_written_by_hand():
    wording = OTHER_WORDS[0]
    answer = "The shopper buys Toys and Tools and never buys Music."
    assert write_answer(["Toys", "Tools"], ["Music"], wording) == answer
    assert read_answer("shopper never buys Toys, buys Music", ["Toys", "Music"], wording) == (
        ["Music"],
        ["Toys"],
    )
    assert read_taste("Who knows?", ["Toys"], wording) is None
    assert read_taste("The shopper buys anything", ["Toys"], wording) == ([], [])


def test_no_genres():
    assert read_answer("The user likes Drama.", []) == ([], [])


def test_long_answers_take_linear_time():
    text = "The user likes " + "Film-Noi, Dra likes doesn't lik " * 30_000
    start = time.perf_counter()
    assert read_answer(text, MOVIELENS_GENRES) == ([], [])
    assert time.perf_counter() - start < 5
