"""Writes genres as the sentence a model learns to generate, and reads such a sentence back.

The two functions are exact inverses for every combination of genres, in order. A name that the
grammar of the sentence could be confused by (it holds a comma, a full stop or a word such as `and`)
stands in double quotes. The reader forgives what an imperfect model writes; see `read_answer`.
"""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence

import sentencepiece

_SEPARATORS = re.compile(r'[,."]')
_QUOTES = re.compile(r'["\N{FULLWIDTH QUOTATION MARK}]')  # both are read as the first
_WORDS = (re.compile(r"[\w']+"), re.compile(r"\w+"))  # `doesn't` is one; `like'` holds one
# The verbs that tell a side, as whole words. `like` by itself may be what is left of one that does
# not: it is read after those who like, as others `likes`.
_VERBS = {
    "dislikes": r"(?:do|does)(?:n'?t| not) like|dislikes?",
    "likes": r"likes|(?:i|you|we|they|users) like",
}
_UNCLEAR = r"like|(?:dis)?lik(?:ed|ing)"
# What turns the verb behind it, or the names, to the other side, or may: `doesn` of `doesn ⁇ t`.
_DENIAL = r"\w*n't|(?:do|does|did)(?:nt?)?|not?|nor|never|neither|without|hardly"
_AND = "and"
# Of the verbs that the reader accepts besides those that are written.
_ACCEPTED_WORDS = {"do", "does", "not", "don't", "dont", "doesnt", "dislike", "dislikes"}
_normalizer = sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc")


@dataclasses.dataclass(frozen=True)
class Wording:
    """The words of the sentence.

    Attributes:
        user: who has the taste.
        likes: the verb before what is liked.
        dislikes: the verb before what is not.
        no_taste: the whole sentence where neither is.
    """

    user: str = "The user"
    likes: str = "likes"
    dislikes: str = "doesn't like"
    no_taste: str = "The user has no clear taste."


USUAL = Wording()


def write_answer(liked: Sequence[str], disliked: Sequence[str], wording: Wording = USUAL) -> str:
    """Writes the target sentence: `The user likes Drama and War and doesn't like Horror.`.

    Args:
        liked: genre names, best first.
        disliked: genre names, worst first.
        wording: the other words.

    Returns:
        One sentence; it also says so where there is neither a liked nor a disliked genre.
    """
    clauses = []
    if liked:
        clauses.append(f"{wording.likes} {_enumerate(liked, wording)}")
    if disliked:
        clauses.append(f"{wording.dislikes} {_enumerate(disliked, wording)}")
    if not clauses:
        return wording.no_taste
    return f"{wording.user} {f' {_AND} '.join(clauses)}."


def answer_parts(liked: int, disliked: int, wording: Wording = USUAL) -> list[str]:
    """Returns what stands before, between and after so many liked and disliked names."""
    name = "\0"
    return write_answer([name] * liked, [name] * disliked, wording).split(name)


def read_answer(
    text: str, genres: Iterable[str], wording: Wording = USUAL
) -> tuple[list[str], list[str]]:
    """Reads the genres out of an answer.

    What `normalize` evens out is forgiven and unknown words are skipped. A genre belongs to the
    verb before it (`likes`, `doesn't like`); before any verb it says nothing, nor does it behind
    one whose side cannot be told, such as `doesn ⁇ t like` or `never likes`. Of a genre that is
    repeated, or claimed on both sides, the first mention counts.

    Args:
        text: what a model wrote, anything at all.
        genres: the class names, no two of which `normalize` makes the same.
        wording: of the sentence that it shall be. Other forms of the usual verbs are accepted for
            them, and no other forms of others.

    Returns:
        The liked and the disliked genres, each in the order of the text.
    """
    tokens, names = _grammar(tuple(genres), wording)
    liked: list[str] = []
    disliked: list[str] = []
    sides = {"likes": liked, "dislikes": disliked}
    side: list[str] | None = None
    is_denied = False
    seen: set[str] = set()
    for token in tokens.finditer(normalize(text)):
        kind = token.lastgroup
        if kind == "genre":
            name = names[token["genre"]]
            if side is not None and name not in seen:
                seen.add(name)
                side.append(name)
        else:
            side = None if is_denied else sides.get(kind)
            is_denied = kind == "denial"
    return liked, disliked


def read_taste(
    text: str, genres: Iterable[str], wording: Wording = USUAL
) -> tuple[list[str], list[str]] | None:
    """Returns what `read_answer` does; None if the text neither names genres nor denies any."""
    liked, disliked = read_answer(text, genres, wording)
    if not liked and not disliked and _words(text) != _words(wording.no_taste):
        return None
    return liked, disliked


def _words(sentence: str) -> str:
    # A full stop that is missing hides no genre from the reader, either.
    return normalize(sentence).rstrip(" .")


def _enumerate(genres: Sequence[str], wording: Wording) -> str:
    *head, last = (spell(genre, wording) for genre in genres)
    return f"{', '.join(head)} {_AND} {last}" if head else last


def spell(genre: str, wording: Wording = USUAL) -> str:
    """Returns the name as it stands in a sentence: quoted if it could be taken for grammar."""
    read = normalize(genre)
    words = {word for pattern in _WORDS for word in pattern.findall(read)}
    if _SEPARATORS.search(read) or not _reserved_words(wording).isdisjoint(words):
        return '"' + _QUOTES.sub(r"\g<0>\g<0>", genre) + '"'
    return genre


def normalize(text: str) -> str:
    """Returns the text as the reader sees it: without case, and with single spaces only.

    An accent, say, may be given as a character of its own.
    """
    # What SentencePiece leaves of characters that belong together is put together, too.
    text = unicodedata.normalize("NFKC", as_in_tokens(text)).casefold()
    return " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())


def as_in_tokens(text: str) -> str:
    """Returns the text as SentencePiece cuts it into tokens and decodes them, by `nmt_nfkc`.

    That is NFKC, and besides: control characters are dropped, and some that take no room, such as
    the zero-width non-joiner of Persian and German words, become spaces. What is no character (half
    of a surrogate pair) becomes a question mark.
    """
    return _normalizer.normalize(text.encode(errors="replace").decode())


@functools.lru_cache(maxsize=16)
def _reserved_words(wording: Wording) -> frozenset[str]:
    """Returns the words of the sentences, and of the verbs that are accepted for theirs."""
    written = " ".join((*dataclasses.astuple(wording), _AND))
    return frozenset(re.findall(r"[\w']+", normalize(written))) | _ACCEPTED_WORDS


def _verbs(wording: Wording) -> dict[str, str]:
    """Returns the pattern of each verb by its side, the longer one first."""
    verbs = {
        side: _VERBS[side] if verb == usual else re.escape(normalize(verb))
        for side, verb, usual in (
            ("dislikes", wording.dislikes, USUAL.dislikes),
            ("likes", wording.likes, USUAL.likes),
        )
    }
    longer = sorted(verbs, key=lambda side: -len(getattr(wording, side)))
    return {side: verbs[side] for side in longer}


@functools.lru_cache(maxsize=16)
def _grammar(genres: tuple[str, ...], wording: Wording) -> tuple[re.Pattern[str], dict[str, str]]:
    """Returns the pattern of everything that bears meaning, and the genre of each spelling."""
    names = {normalize(spell(genre, wording)): genre for genre in genres}
    # Longest first: `Film-Noir` must not be read as `Film` where both are genres.
    spellings = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    # Genres may be called what makes no sentence: `Liked`, `Never`.
    genre = {"genre": spellings or r"(?!)"}
    kinds = {**_verbs(wording), **genre, "unclear": _UNCLEAR, "denial": _DENIAL}
    pattern = "|".join(rf"(?P<{kind}>{words})" for kind, words in kinds.items())
    return re.compile(rf"(?<!\w)(?:{pattern})(?!\w)"), names
