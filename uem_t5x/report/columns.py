"""Which scores a table shows, and how its columns are headed."""

COLUMNS = {
    "f1": "F1",
    "precision": "prec.",
    "recall": "recall",
    "liked_f1": "liked",
    "disliked_f1": "disliked",
}
