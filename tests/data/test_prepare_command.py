"""`uem-t5x prepare`: what it says, and what it refuses in a line."""

import json

import pytest

from uem_t5x import cli
from uem_t5x.data.dataset_folder import DatasetFolder


def command(folder, **changes):
    arguments = {
        "movielens": folder,
        "descriptions": folder / "descriptions.csv",
        "output": folder / "dataset",
        "min-history": 2,
        "validation-users": 0,
        "test-users": 1,
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    return ["prepare", *(f"--{name}={value}" for name, value in arguments.items())]


def test_help_tells_fractions_from_numbers(capsys):
    with pytest.raises(SystemExit):
        cli.main(["prepare", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("those of a fraction stay when users are added") == 2


def test_says_what_became_of_the_input(inputs, capsys):
    assert cli.main(command(inputs)) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "1 rated again later" in out
    assert "1 unknown movie id" in out
    assert "4 genres: Comedy|Crime|Drama|Horror 0.0 liked or disliked" in out
    assert DatasetFolder.open(inputs / "dataset").num_examples("test") == 1


def test_says_how_many_genres_there_are(inputs, capsys):
    movies = inputs / "movies.csv"
    movies.write_text(movies.read_text().replace(",Crime|", ",A|B|C|D|E|F, G|"))
    assert cli.main(command(inputs)) == 2
    assert "line 3: 4 fields where there should be 3" in capsys.readouterr().err
    movies.write_text(movies.read_text().replace("A|B|C|D|E|F, G|Drama", '"A|B, C|D|E|F|G|Drama"'))
    assert cli.main(command(inputs)) == 0
    assert "9 genres: A|B, C|Comedy|D|Drama|E and 3 more\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"movielens": "nowhere"}, "nowhere: no such folder or zip file"),
        ({"descriptions": "nowhere.csv"}, "nowhere.csv: No such file"),
        ({"encoder": "bert"}, "--encoder bert: no such sentence encoder"),
        ({"encoder": "sentence-t5-base=nowhere"}, "nowhere: no SavedModel"),
        ({"encoder": "hashing=folder"}, "--encoder hashing=folder: it needs no weights"),
        ({"encoder_width": 0}, "--encoder-width 0"),
        ({"min_history": 0}, "--min-history 0: must be at least 1"),
        ({"min_history": 9}, "0 users are too few for the asked split"),
        ({"test_users": 2}, "2 users are too few for the asked split"),
        ({"test_users": "-1"}, "--test-users -1"),
        ({"validation_users": "1.5"}, "--validation-users 1.5"),
        ({"vocabulary_size": 5}, "--vocabulary-size 5: too small"),
    ],
)
def test_refuses_in_one_line_and_leaves_nothing(inputs, capsys, changes, expected):
    before = sorted(inputs.iterdir())
    assert cli.main(command(inputs, **changes)) == 2
    error = capsys.readouterr().err
    assert f"uem-t5x prepare: {expected}" in error.replace(f"{inputs}/", "")
    assert error.count("\n") == 1
    assert sorted(inputs.iterdir()) == before


def test_nobody_has_so_many_movies(inputs, capsys):
    assert cli.main(command(inputs, min_history=9)) == 2
    told = capsys.readouterr().err
    assert "of the 6 movies of" in told and "4 have a genre and a description in" in told
    assert "7 of its 11 ratings are of these, and no user has --min-history 9" in told


def test_a_share_that_is_no_number(inputs, capsys):
    with pytest.raises(SystemExit):
        cli.main(command(inputs, test_users="20%"))
    assert "'20%': give a number of users (500) or a fraction" in capsys.readouterr().err


def test_the_layout_of_movielens_100k(inputs, capsys):
    folder = inputs / "ml-100k"
    folder.mkdir()
    for name in ("u.data", "u.item"):
        (folder / name).touch()
    assert cli.main(command(inputs, movielens=folder)) == 2
    assert "MovieLens 100K, whose layout is not read" in capsys.readouterr().err


def test_a_description_table_of_other_columns(inputs, capsys):
    (inputs / "descriptions.csv").write_text("movie_id,description\n1,A movie.\n")
    assert cli.main(command(inputs)) == 2
    told = capsys.readouterr().err
    assert "no column 'movie_title' in its first line ('movie_id, description')" in told
    assert "or movieId, description" in told


def test_a_description_table_that_matches_nothing(inputs, capsys):
    (inputs / "descriptions.csv").write_text("movieId,description\n77,Of no movie.\n")
    assert cli.main(command(inputs)) == 2
    assert "none of its 1 descriptions belongs" in capsys.readouterr().err
    assert not (inputs / "dataset").exists()


def test_overwrites_on_demand_only(inputs, capsys):
    assert cli.main(command(inputs)) == 0
    assert cli.main(command(inputs)) == 2
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert cli.main([*command(inputs, seed=1), "--overwrite"]) == 0
    manifest = json.loads((inputs / "dataset/manifest.json").read_text())
    assert manifest["options"]["seed"] == 1
