"""Writes genres as the sentence a model learns to generate, and reads such a sentence back.

The two functions are exact inverses for every combination of genres, in order. A name that the
grammar of the sentence could be confused by (it holds a comma, a full stop or a word such as `and`)
stands in double quotes. The reader forgives what an imperfect model writes; see `read_answer`.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence

_NO_TASTE = "The user has no clear taste."
_SEPARATORS = re.compile(r'[,."]')
_QUOTES = re.compile(r'["\N{FULLWIDTH QUOTATION MARK}]')  # both are read as the first
_WORDS = (re.compile(r"[\w']+"), re.compile(r"\w+"))  # `doesn't` is one; `like'` holds one
_LIKES = r"(?<!\w)likes?(?!\w)"
_DISLIKES = r"(?<!\w)(?:(?:do|does)(?:n'?t| not) like|dislikes?)(?!\w)"
# The words of the sentences below, and of the verbs that the reader accepts for theirs.
_RESERVED_WORDS = frozenset(
    {"the", "user", "likes", "and", "doesn't", "like", "has", "no", "clear", "taste"}
    | {"do", "does", "not", "don't", "dont", "doesnt", "dislike", "dislikes"}
)


def write_answer(liked: Sequence[str], disliked: Sequence[str]) -> str:
    """Writes the target sentence: `The user likes Drama and War and doesn't like Horror.`.

    Args:
        liked: genre names, best first.
        disliked: genre names, worst first.

    Returns:
        One sentence; it also says so where there is neither a liked nor a disliked genre.
    """
    clauses = []
    if liked:
        clauses.append(f"likes {_enumerate(liked)}")
    if disliked:
        clauses.append(f"doesn't like {_enumerate(disliked)}")
    return f"The user {' and '.join(clauses)}." if clauses else _NO_TASTE


def read_answer(text: str, genres: Iterable[str]) -> tuple[list[str], list[str]]:
    """Reads the genres out of an answer.

    What `normalize` evens out is forgiven and unknown words are skipped. A genre belongs to the
    verb before it (`likes`, `doesn't like`); before any verb it says nothing. Of a genre that is
    repeated, or claimed on both sides, the first mention counts.

    Args:
        text: what a model wrote, anything at all.
        genres: the class names, no two of which `normalize` makes the same.

    Returns:
        The liked and the disliked genres, each in the order of the text.
    """
    tokens, names = _grammar(tuple(genres))
    liked: list[str] = []
    disliked: list[str] = []
    side: list[str] | None = None
    seen: set[str] = set()
    for token in tokens.finditer(normalize(text)):
        if token["dislikes"]:
            side = disliked
        elif token["likes"]:
            side = liked
        elif side is not None and (name := names[token["genre"]]) not in seen:
            seen.add(name)
            side.append(name)
    return liked, disliked


def _enumerate(genres: Sequence[str]) -> str:
    *head, last = map(spell, genres)
    return f"{', '.join(head)} and {last}" if head else last


def spell(genre: str) -> str:
    """Returns the name as it stands in a sentence: quoted if it could be taken for grammar."""
    read = normalize(genre)
    words = {word for pattern in _WORDS for word in pattern.findall(read)}
    if _SEPARATORS.search(read) or not _RESERVED_WORDS.isdisjoint(words):
        return '"' + _QUOTES.sub(r"\g<0>\g<0>", genre) + '"'
    return genre


def normalize(text: str) -> str:
    """Returns the text as the reader sees it: without case, and with single spaces only.

    Characters are made those that SentencePiece makes them before it cuts a text into tokens
    (NFKC), and decodes to: an accent, say, may be given as a character of its own.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())


@functools.lru_cache(maxsize=16)
def _grammar(genres: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """Returns the pattern of everything that bears meaning, and the genre of each spelling."""
    names = {normalize(spell(genre)): genre for genre in genres}
    # Longest first: `Film-Noir` must not be read as `Film` where both are genres.
    spellings = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    genre = rf"(?<!\w)(?:{spellings})(?!\w)" if names else r"(?!)"
    pattern = rf"(?P<dislikes>{_DISLIKES})|(?P<likes>{_LIKES})|(?P<genre>{genre})"
    return re.compile(pattern), names
