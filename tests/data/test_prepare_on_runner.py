"""The same folder by Beam's pipeline: from several files, in several ranges, by several workers."""

import dataclasses
import re

import own_questions
import polars as pl
import published_forms
import pytest
from same_folders import assert_same_folder

from uem_t5x import cli
from uem_t5x.base.errors import InputError
from uem_t5x.data import prepare_on_runner
from uem_t5x.data.options import PrepareOptions
from uem_t5x.data.prepare import prepare

beam_steps = pytest.importorskip("uem_t5x.data.beam_steps", reason="needs uem-t5x[beam]")
HERE = "DirectRunner"


@pytest.fixture
def small(monkeypatch):
    """Ranges of few rows, and few users at a time."""
    monkeypatch.setattr(beam_steps, "_SAMPLED", 7)
    monkeypatch.setattr(beam_steps, "_USERS_AT_A_TIME", 3)
    monkeypatch.setattr(beam_steps.Job.__init__, "__defaults__", (150,))


def parts_of(data, number):
    """Cuts the table of ratings into files, whose order is not that of users or times."""
    (file,) = data.glob("*.csv.gz")
    rows = pl.read_csv(file, infer_schema=False)
    file.unlink()
    for part in range(number):
        rows.gather_every(number, part).write_csv(data / f"All_Beauty_{part}.csv")
    return data


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {"test_users": 7, "validation_users": 5},
        {"test_users": 0.3, "validation_users": 4},
        {"test_users": 3, "validation_users": 0},
    ],
)
def test_the_folder_is_that_of_one_machine(shares, small, tmp_path):
    data = parts_of(published_forms.write("amazon-reviews-2023", tmp_path / "data"), 4)
    options = PrepareOptions(
        source="amazon-reviews-2023",
        data=data,
        encoder_width=16,
        vocabulary_size=700,
        output=tmp_path / "one",
        **shares,
    )
    one = prepare(options)
    other = prepare_on_runner.prepare(dataclasses.replace(options, output=tmp_path / "other"), HERE)
    assert_same_folder(one.path, other.path)


@pytest.mark.parametrize("name", ["movielens-100k", "yelp"])
def test_so_are_others(name, small, tmp_path):
    data = published_forms.write(name, tmp_path / "data")
    options = PrepareOptions(source=name, data=data, encoder_width=16, output=tmp_path / "one")
    one = prepare(options)
    other = prepare_on_runner.prepare(dataclasses.replace(options, output=tmp_path / "other"), HERE)
    assert_same_folder(one.path, other.path)


def test_by_several_processes(tmp_path, capsys):
    data = parts_of(published_forms.write("amazon-reviews-2023", tmp_path / "data"), 3)
    command = ["prepare", "--source", "amazon-reviews-2023", "--data", str(data)]
    command += ["--encoder-width", "16"]
    runner = f"{HERE} --direct_num_workers=2 --direct_running_mode=multi_processing"
    assert cli.main([*command, "--output", str(tmp_path / "one")]) == 0
    assert cli.main([*command, "--output", str(tmp_path / "other"), "--runner", runner]) == 0
    assert_same_folder(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",5.0,", ",6.0,", r"All_Beauty.csv, row \d+: rating is '6.0'; it must be 0.5 to 5 stars"),
        (",B00", ",C00", "no interaction is with an item that is listed: ids are such as 'C000"),
        (None, ["--min-history", "31"], "0 users are too few for the asked split: of the 60 items"),
        (None, ["--test-users", "41"], r"40 users are too few for the asked split \(41 for test"),
    ],
)
def test_what_is_refused_is_told_alike(old, new, message, tmp_path, capsys):
    data = parts_of(published_forms.write("amazon-reviews-2023", tmp_path / "data"), 1)
    (file,) = data.glob("*.csv")
    file = file.rename(data / "All_Beauty.csv")
    flags = [] if old else new
    if old:
        file.write_text(file.read_text().replace(old, new))
    command = ["prepare", "--source", "amazon-reviews-2023", "--data", str(data), *flags]
    told = []
    for runner in ([], ["--runner", HERE]):
        output = ["--output", str(tmp_path / "dataset"), "--encoder-width", "16"]
        assert cli.main([*command, *output, *runner]) == 2
        told.append(capsys.readouterr().err.strip().splitlines()[-1])
        assert not (tmp_path / "dataset").exists()
    assert told[0] == told[1]
    assert re.search(message, told[0])


def test_sources_for_one_machine(tmp_path):
    data = own_questions.write(tmp_path / "data")
    options = PrepareOptions(source=str(data / "asked.toml"), data=data, output=tmp_path / "d")
    with pytest.raises(InputError, match="prepare is a matter of one machine; leave it out"):
        prepare_on_runner.prepare(options, HERE)


@pytest.mark.parametrize(
    ("runner", "message"),
    [
        ("NoRunner", "--runner 'NoRunner': Unexpected pipeline runner: NoRunner"),
        ('DirectRunner "unclosed', "No closing quotation"),
        ("DirectRunner --help", "Beam knows no --help"),
        ("DirectRunner --direct_num_workers=x", "direct_num_workers: invalid int value: 'x'"),
        ("DirectRunner --direct_num_workrs=2", "Beam knows no --direct_num_workrs=2"),
    ],
)
def test_runners_that_are_none(runner, message, tmp_path):
    data = published_forms.write("yelp", tmp_path / "data")
    options = PrepareOptions(source="yelp", data=data, output=tmp_path / "d")
    with pytest.raises(InputError, match=re.escape(message)):
        prepare_on_runner.prepare(options, runner)
