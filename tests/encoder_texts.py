"""Sentences for encoders: short and long, with marks and without."""

TEXTS = [
    "A dragon guards the ring.",
    "a DRAGON guards the ring",
    "Trench warfare, 1917: no man's land at night, and four soldiers who must cross it by dawn.",
    "The movie Heat (1995) is listed with genres Action, Crime, Thriller",
    "Amélie \u2013 a waitress in Montmartre",
    "x",
    " ".join(f"word{number}" for number in range(60)),
]
