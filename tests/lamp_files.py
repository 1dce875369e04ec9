"""Small made-up tasks in exactly the form in which LaMP publishes its own."""

import json
import random

TAGS = ("sci-fi", "based on a book", "twist ending", "true story")
PER_SPLIT = {"train": 60, "dev": 20, "test": 15}


def write(task, folder, outputs=("train", "dev")):
    """Writes the files of `lamp-2` or `lamp-3`."""
    folder.mkdir(parents=True)
    draw = random.Random(task)
    for number, (split, users) in enumerate(PER_SPLIT.items(), start=1):
        questions, golds = [], []
        for user in range(users):
            name = f"{number}{user}0"
            make = _tagging if task == "lamp-2" else _rating
            entry, question, answer = make(draw)
            profile = [{"id": f"{name}{place}", **entry()} for place in range(draw.randint(1, 8))]
            questions.append({"id": name, "input": question, "profile": profile})
            golds.append({"id": name, "output": answer})
        text = json.dumps(questions, ensure_ascii=False)
        (folder / f"{split}_questions.json").write_text(text)
        if split in outputs:
            task_name = task.replace("lamp-", "LaMP_")
            record = {"task": task_name, "golds": golds}
            (folder / f"{split}_outputs.json").write_text(json.dumps(record))
    return folder


def _tagging(draw):
    def entry():
        film = draw.randrange(12)
        text = f'A film, no. {film}: "Amélie"\nand\tothers.'
        return {"tag": TAGS[film % 4], "description": text}

    film = draw.randrange(40)
    question = (
        "Which tag does this movie relate to among the following tags? Just answer with the tag "
        f"name without further explanation. tags: [{', '.join(TAGS)}] description: Film {film}"
    )
    return entry, question, TAGS[film % 4]


def _rating(draw):
    likes = draw.choice((1, 5))

    def entry():
        return {"text": f"Review {draw.randrange(500)}. 日本 {{x}}", "score": str(likes)}

    question = (
        "What is the score of the following review on a scale of 1 to 5? just answer with 1, 2, "
        f"3, 4, or 5 without further explanation. review: No. {draw.randrange(500)}"
    )
    return entry, question, str(likes)
