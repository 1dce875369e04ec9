"""Runs put together: over seeds, over users, and into ablations."""

import statistics

import fake_runs
import pytest

from uem_t5x.base.errors import InputError
from uem_t5x.report import settings
from uem_t5x.report.settings import Summary
from uem_t5x.runs.finished import Run


@pytest.fixture
def make(tmp_path):
    """Writes a run and reads it, in a folder of its own."""

    def make(**kwargs):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return Run.read(fake_runs.write(folder, **kwargs))

    return make


def test_the_mean_and_the_sample_standard_deviation():
    summary = Summary.of([0.1, 0.2, 0.6])
    assert summary.mean == pytest.approx(0.3)
    assert summary.spread == pytest.approx(statistics.stdev([0.1, 0.2, 0.6]))
    assert str(summary) == "0.300 ± 0.265"


def test_one_run_has_no_spread():
    assert Summary.of([0.25]) == Summary(0.25, None)
    assert str(Summary(0.25)) == "0.250"


def test_runs_that_differ_in_their_seed_alone_are_one_setting(make):
    runs = [
        make(RANDOM_SEED=2, f1=0.5),
        make(RANDOM_SEED=1, f1=0.3),
        make(HISTORY_LENGTH=5, f1=0.1),
    ]
    (comparison,) = settings.compare(runs)
    assert [setting.seeds for setting in comparison.settings] == [[0], [1, 2]]
    assert comparison.best.f1 == Summary.of([0.3, 0.5])
    assert comparison.best_run.seed == 2
    assert comparison.best.scores["liked_f1"].mean == pytest.approx(0.43)


def test_where_a_run_lay_and_how_often_it_was_looked_at_is_no_setting(make):
    runs = [make(EVAL_PERIOD=5, LAYOUT="data"), make(RANDOM_SEED=1, EVAL_PERIOD=9, LAYOUT="fsdp")]
    (comparison,) = settings.compare(runs)
    assert len(comparison.settings) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"trained_on": 40},  # users, and not 474
        {"channels": ("description", "poster")},
        {"vocabulary": "v2"},
        {"asked": {"task": "another_task"}},
        {"asked": {"well_formed": True}},
        {"asked": {"trained_steps": 20}},
        {"asked": {"is_best": False}},
    ],
)
def test_runs_that_are_not_comparable_are_no_seeds_of_one_setting(change, make):
    (comparison,) = settings.compare([make(), make(RANDOM_SEED=1, **change)])
    assert [setting.seeds for setting in comparison.settings] == [[0], [1]]
    assert len(set(comparison.labels.values())) == 2


def test_a_run_and_its_copy_are_refused(make):
    runs = [make(), make(RANDOM_SEED=1), make()]
    copies = rf"{runs[0].path} and {runs[2].path}: the same settings and the same seed, 0, .* leave"
    with pytest.raises(InputError, match=copies):
        settings.compare(runs)


def test_all_numbers_of_training_users_are_told(make):
    (comparison,) = settings.compare(
        [make(), make(trained_on=40), make(trained_on=40, UEM_LAYERS=2)]
    )
    assert comparison.training_users == [40, 474]


def test_other_users_are_another_comparison(make):
    comparisons = settings.compare([make(), make(inputs="b2"), make(RANDOM_SEED=1)])
    assert [len(comparison.runs) for comparison in comparisons] == [2, 1]


def test_users_split_or_labelled_otherwise_are_another_comparison(make):
    comparisons = settings.compare([make(), make(users="u2", RANDOM_SEED=1)])
    assert [len(comparison.runs) for comparison in comparisons] == [1, 1]


def test_other_users_are_told_by_what_counting_scores_on_them(make, monkeypatch):
    first = make()
    monkeypatch.setattr(fake_runs, "COUNTING_F1", 0.07)
    assert len(settings.compare([first, make()])) == 2


def test_an_ablation_is_identical_but_for_one_macro(make):
    runs = [
        make(HISTORY_LENGTH=5),
        make(HISTORY_LENGTH=50),
        make(HISTORY_LENGTH=20, LEARNING_RATE=0.03),
    ]
    (comparison,) = settings.compare(runs)

    def families(name):
        return [
            [setting.items for setting in family]
            for family in settings.families(
                comparison.settings, lambda other: other == name, lambda s: s.values[name]
            )
        ]

    assert families("HISTORY_LENGTH") == [[5, 50]]
    assert families("LEARNING_RATE") == []


def test_settings_are_named_by_what_differs(make):
    runs = [
        make(),
        make(LEARNING_RATE=0.03, LANGUAGE_MODEL_SIZE="base"),
        make(HISTORY_LENGTH=20),
        make(UEM_LAYERS=2),
        make(kind="text"),
        make(kind="text", LANGUAGE_MODEL="LongT5", LANGUAGE_MODEL_SIZE="base"),
    ]
    (comparison,) = settings.compare(runs)
    assert list(comparison.labels.values()) == [
        "text, 50 items, tiny T5",
        "embedding, 20 items, tiny T5",
        "embedding, 50 items, tiny T5",
        "embedding, 50 items, tiny T5 base",
        "embedding, 50 items, tiny T5, UEM_LAYERS=2",
        "LongT5 text, 50 items, LongT5 base",
    ]
    layers = [setting for setting in comparison.settings if setting.language_model == "tiny T5"]
    in_full = settings.labels(layers)
    assert in_full[layers[-1]] == "tiny T5, UEM_LAYERS=2"
    assert in_full[layers[-2]] == "tiny T5, UEM_LAYERS=1"
    assert settings.labels(layers, hidden={"UEM_LAYERS"})[layers[-1]] == "tiny T5"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00001, "1e-05"),
        (None, "None"),
        ("short/path", "short/path"),
        ("/a/very/long/path/to/some/checkpoint_3000/", "…/some/checkpoint_3000"),
        ({"inputs": 32, "targets": 8}, "inputs: 32, targets: 8"),
    ],
)
def test_values_as_text(value, text):
    assert settings.value_text({"NAME": value}, "NAME") == text
    assert settings.value_text({}, "NAME") == "not set"
    assert settings.short_name("a/module.function.parameter") == "function.parameter"


def marks(said):
    return {"marks": {"genres": list("ABCD"), "true": ["+...", ".+..", "..-."], "said": said}}


def test_a_setting_has_an_interval_over_users_and_is_paired_with_the_best(make):
    right, wrong = ["+...", ".+..", "..-."], ["+...", ".+..", None]
    runs = [
        make(f1=1.0, asked=marks(right)),
        make(f1=0.7, RANDOM_SEED=1, asked=marks(wrong)),
        make(f1=0.6, UEM_LAYERS=2, asked=marks(wrong)),
        make(f1=0.5, UEM_LAYERS=3),
    ]
    (comparison,) = settings.compare(runs)
    best, second, older = sorted(comparison.settings, key=lambda setting: -setting.f1.mean)
    # Where no draw has the third user both say all; where every draw has none else, one nothing.
    assert second.interval == (0.0, 1.0)
    assert best.draws == pytest.approx((1 + second.draws) / 2)  # the mean of its two runs
    difference, interval = comparison.behind_best(second)
    assert difference == pytest.approx(0.25)
    assert interval == (0.0, 0.5)
    assert comparison.behind_best(best) is None
    assert older.interval is None and comparison.behind_best(older) is None
