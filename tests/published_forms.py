"""Small made-up data sets in exactly the forms in which the real ones are published.

Ids, missing values and odd characters are as those have them: `usual` says what one is about.
"""

import datetime
import gzip
import json
import random
from pathlib import Path

USERS, ITEMS, PER_USER = 40, 60, 30
CLASSES = ("Alpha", "Beta", "Gamma & Delta", "Epsilon")


def tastes(seed):
    """Yields user, item, stars 1..5 and seconds: users like some classes, not others."""
    draw = random.Random(seed)
    for user in range(USERS):
        likes = draw.sample(range(len(CLASSES)), 2)
        for place, item in enumerate(draw.sample(range(ITEMS), PER_USER)):
            stars = draw.choice((4, 5) if item % len(CLASSES) in likes else (1, 2))
            yield user, item, stars, 1_500_000_000 + 86_400 * place + user


def _title(item):
    odd = ("Café №", 'The "Best" of', "O'Neil, part", "日本", "Tab\tand  space", "Plain")
    return f"{odd[item % len(odd)]} {item}"


def _lines(path, records, compress):
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if compress else text.encode())


def movielens_100k(folder):
    flags = ["unknown", "Action", "Adventure", "Animation", "Children"]
    with (folder / "u.item").open("w", encoding="latin-1") as file:
        for item in range(ITEMS):
            of = [int(item % 4 == place) for place in range(4)]
            genres = [int(item == 7), *(of if item != 7 else [0] * 4), *[0] * 14]
            title = f'Amélie "{item}" (1997)' if item % 2 else f"Film, The {item} (1995)"
            fields = [item + 1, title, "01-Jan-1995", "", f"http://u/{item}", *genres]
            file.write("|".join(map(str, fields)) + "\n")
    rows = [f"{u + 1}\t{i + 1}\t{stars}\t{time}\n" for u, i, stars, time in tastes(1)]
    (folder / "u.data").write_text("".join(rows))
    (folder / "u.genre").write_text("".join(f"{name}|{n}\n" for n, name in enumerate(flags)))


def amazon_reviews_2023(folder):
    def meta(item):
        return {
            "main_category": "All Beauty" if item % 3 else None,
            "title": _title(item) if item != 5 else "",
            "average_rating": 4.1,
            "features": ["Fits all", "Blue"] if item % 2 else [],
            "description": [f"Item {item} is good.", "Buy it."] if item % 3 == 0 else [],
            "price": "19.99" if item % 2 else None,
            "categories": ["All Beauty", CLASSES[item % 4]] if item != 9 else [],
            "details": {"Brand": "X"},
            "parent_asin": f"B00{item:07d}",
        }

    _lines(folder / "meta_All_Beauty.jsonl.gz", map(meta, range(ITEMS)), True)
    rows = ["user_id,parent_asin,rating,timestamp\n"]
    rows += [
        f"AE{u:06d}QX,B00{i:07d},{stars}.0,{1000 * time + 123}\n" for u, i, stars, time in tastes(2)
    ]
    rows.append("AE000000QX,B00NOWHERE,5.0,1500000000000\n")
    (folder / "All_Beauty.csv.gz").write_bytes(gzip.compress("".join(rows).encode()))


def goodreads(folder):
    def book(item):
        return {
            "isbn": "",
            "book_id": str(item * 1000 + 17),
            "title": _title(item),
            "title_without_series": _title(item),
            "description": "" if item % 3 else f"A book of {item} pages.\nAnd more.",
            "popular_shelves": [{"count": "3", "name": "to-read"}],
            "authors": [{"author_id": "5", "role": ""}],
        }

    def genres(item):
        names = {
            "fiction": 10,
            f"{CLASSES[item % 4].lower()}, {CLASSES[item % 4].lower()} tales": 3,
        }
        return {"book_id": str(item * 1000 + 17), "genres": names if item != 3 else {}}

    def interaction(row):
        user, item, stars, time = row
        added = datetime.datetime.fromtimestamp(time, datetime.UTC)
        return {
            "user_id": f"8842281e1d1347389f2ab93d60773d{user:02x}",
            "book_id": str(item * 1000 + 17),
            "review_id": "a",
            "is_read": True,
            "rating": stars if item % 11 else 0,
            "review_text_incomplete": "",
            "date_added": added.strftime("%a %b %d %H:%M:%S -0700 %Y"),
            "date_updated": "Wed Mar 22 11:37:05 -0700 2017",
            "read_at": "",
            "started_at": "",
        }

    _lines(folder / "goodreads_books_poetry.json.gz", map(book, range(ITEMS)), True)
    _lines(folder / "goodreads_book_genres_initial.json.gz", map(genres, range(ITEMS)), True)
    rows = map(interaction, tastes(3))
    _lines(folder / "goodreads_interactions_poetry.json.gz", rows, True)


def yelp(folder):
    def business(item):
        return {
            "business_id": f"Pns2l4eNsfO8kk83dixA{item:02d}",
            "name": _title(item),
            "city": "Santa Barbara" if item % 4 else "",
            "stars": 4.5,
            "is_open": item % 2,
            "attributes": {"ByAppointmentOnly": "True"} if item % 2 else None,
            "categories": f"{CLASSES[item % 4]}, Food" if item != 8 else None,
            "hours": None,
        }

    def review(row):
        user, item, stars, time = row
        date = f"2018-07-{1 + (time // 86_400) % 28:02d} 22:09:{user % 60:02d}"
        return {
            "review_id": "KU_O5udG6zpxOg-VcAEodg",
            "user_id": f"mh_-eMZ6K5RLWhZyISBhw{user:02d}",
            "business_id": f"Pns2l4eNsfO8kk83dixA{item:02d}",
            "stars": float(stars),
            "useful": 0,
            "text": 'Nice.\nVery "nice".',
            "date": date,
        }

    _lines(folder / "yelp_academic_dataset_business.json", map(business, range(ITEMS)), False)
    _lines(folder / "yelp_academic_dataset_review.json", map(review, tastes(4)), False)


def google_local(folder):
    def place(item):
        return {
            "name": _title(item) if item != 4 else None,
            "address": None,
            "gmap_id": f"0x88f16e41928ff687:0x883dad4fd048e8f{item:x}",
            "description": None if item % 3 else f"Place number {item}.",
            "latitude": 32.7,
            "category": [CLASSES[item % 4], "Store"] if item != 6 else None,
            "avg_rating": 4.0,
        }

    def review(row):
        user, item, stars, time = row
        return {
            "user_id": f"1011{user:017d}",
            "name": "A B",
            "time": 1000 * time + 7,
            "rating": stars if item % 13 else None,
            "text": None,
            "pics": None,
            "resp": None,
            "gmap_id": f"0x88f16e41928ff687:0x883dad4fd048e8f{item:x}",
        }

    _lines(folder / "meta-Vermont.json.gz", map(place, range(ITEMS)), True)
    _lines(folder / "review-Vermont_10.json.gz", map(review, tastes(5)), True)


FORMS = {
    "movielens-100k": movielens_100k,
    "amazon-reviews-2023": amazon_reviews_2023,
    "goodreads": goodreads,
    "yelp": yelp,
    "google-local": google_local,
}


def write(name: str, folder: Path) -> Path:
    """Writes the data set of a preset into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    FORMS[name](folder)
    return folder
