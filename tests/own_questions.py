"""A source of one's own with questions: what somebody bought next, asked at some time."""

import random

SOURCE = """
[items]
files = "goods.csv"
id = "sku"
title = "name"
classes = "kind"

[interactions]
files = "bought.csv"
user = "who"
item = "sku"
time = "at"
value = "stars"

[questions]
files = "asked.csv"
user = "who"
question = "What will somebody who asks for {wish} buy next?"
answer = "next"
time = "at"
metrics = ["accuracy", "macro_f1"]
"""
KINDS = ("lamp", "chair", "table")
ITEMS = 30


def write(folder, users=40, seed=0, future=0):
    """Writes the tables: the kind of the last item before a question is its answer.

    Args:
        folder: where to.
        users: how many.
        seed: draws all that is from before the last question of a user.
        future: draws what is from after it, or from that very moment.
    """
    past, later = random.Random(seed), random.Random(1000 + future)
    goods = [f"s{item},{KINDS[item % 3]} no. {item},{KINDS[item % 3]}" for item in range(ITEMS)]
    bought, asked = [], []
    for user in range(users):
        time = 1_000_000_000
        for number in range(past.randint(1, 3)):
            for _ in range(past.randint(0 if number else 1, 6)):
                time += past.randint(1, 9)
                item = past.randrange(ITEMS)
                bought.append(f"u{user},s{item},{past.randint(1, 5)},{time}")
                kind = KINDS[item % 3]
            time += 10
            asked.append(f"u{user},{past.choice(('light', 'rest'))},{kind},{time}")
        for later_by in range(later.randint(0, 5)):
            bought.append(f"u{user},s{later.randrange(ITEMS)},{later.randint(1, 5)},{time}")
            time += later_by
    past.shuffle(bought)
    tables = {
        "goods.csv": ["sku,name,kind", *goods],
        "bought.csv": ["who,sku,stars,at", *bought],
        "asked.csv": ["who,wish,next,at", *asked],
    }
    folder.mkdir(exist_ok=True)
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    (folder / "asked.toml").write_text(SOURCE)
    return folder
