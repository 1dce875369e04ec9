"""What is drawn, read off matplotlib's own objects."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from uem_t5x.report import difficulty_plot, figures, run_plots, table_plots, tables

MIXED = [
    {"HISTORY_LENGTH": 5, "f1": 0.2},
    {"f1": 0.4},
    {"f1": 0.5, "RANDOM_SEED": 1},
    {"UEM_LAYERS": 2},
    {"LEARNING_RATE": 0.03},
    {"encoder_width": 384},
    {"kind": "text", "HISTORY_LENGTH": 5},
]


def drawn(plot):
    """Returns the axes of a plot."""
    figure = Figure(layout="constrained")
    plot.draw(figure, figures.LIGHT)
    (axes,) = figure.axes
    return axes


def by_label(axes):
    handles, labels = axes.get_legend_handles_labels()
    return dict(zip(labels, handles))


def all_tables(comparison):
    return [*tables.paper_tables(comparison), *tables.other_tables(comparison)]


@pytest.mark.parametrize("runs", [MIXED, [{"kind": "text"}], [{}]], ids=["mixed", "text", "lone"])
def test_counting_and_the_rule_are_in_every_plot_of_f1(runs, compared):
    comparison = compared(*runs)
    for table in all_tables(comparison):
        labels = by_label(drawn(table_plots.of_table(table)))
        assert "counting baseline" in labels
        ours = [setting for group in table.groups for setting in group.settings]
        assert any("label rule" in label for label in labels) == bool(ours)
    for plot in run_plots.per_genre(comparison):
        labels = " ".join(by_label(drawn(plot)))
        assert "counting baseline" in labels and "label rule" in labels
    for validation, _ in run_plots.learning_curves(comparison):
        axes = drawn(validation)
        assert "counting baseline, test" in by_label(axes)
        assert any("rule on the" in text.get_text() for text in axes.texts)


def test_f1_by_history_length(compared):
    table = tables.paper_tables(compared(*MIXED))[1]
    lines = by_label(drawn(table_plots.of_table(table)))
    x, y = lines["tiny T5"].lines[0].get_data()
    assert list(x) == [5, 50] and y == pytest.approx([0.2, 0.45])
    assert list(lines["paper, base"].get_ydata()) == [0.273, 0.275, 0.337, 0.396, 0.404]
    assert list(lines["paper, large"].get_xdata()) == [5, 20, 30, 50, 100]
    rule = lines["label rule on the same items"]
    assert dict(zip(*rule.get_data())) == {5: 0.11, 50: 0.66}
    assert lines["counting baseline"].get_ydata()[0] == 0.06
    assert lines["counting baseline, paper"].get_ydata()[0] == 0.192


def said(genres, model, rule):
    return {"genres": genres, "said": {"uem": model, "rule": rule}}


def difficulty(model):
    """Returns what `evaluate` writes: a group without genres, and two with some."""
    margins = [
        {"kind": kind, "low": low, "high": high, **shares}
        for kind in ("liked", "disliked")
        for low, high, shares in (
            (None, -1.0, said(0, 0.0, 0.0)),
            (-1.0, 0.0, said(30, 0.1, 0.05)),
            (0.0, None, said(12, model, 0.75)),
        )
    ]
    return {"by_margin": margins, "by_count": margins[1:3]}


def test_what_is_said_by_margin_and_by_count(compared):
    runs = [{"asked": difficulty(0.25)}, {"RANDOM_SEED": 1, "asked": difficulty(0.35)}]
    plot = difficulty_plot.of_best(compared(*runs))
    assert "liked, by margin: -1 to 0 (30) 0.10 (rule 0.05), 0 or more (12) 0.30" in plot.alt
    figure = Figure(layout="constrained")
    plot.draw(figure, figures.LIGHT)
    margins, *_ = figure.axes
    model, rule = (line.get_ydata().tolist() for line in margins.lines)
    assert model == pytest.approx([0.1, 0.3]) and rule == [0.05, 0.75]
    assert [axes.get_title() for axes in figure.axes] == ["liked", "disliked", "", ""]


def test_older_scores_do_not_tell_what_is_said_by_margin(compared):
    runs = [{"asked": difficulty(0.25)}, {"RANDOM_SEED": 1}]
    assert difficulty_plot.of_best(compared(*runs)) is None


def test_what_is_no_number_is_drawn_as_bars(compared):
    plot = table_plots.of_table(tables.paper_tables(compared(*MIXED))[0])
    axes = drawn(plot)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [
        "text, 5 items",
        "embedding, 5 items",
        "embedding, 50 items",
        "embedding, 100 items",
        "LongT5 text, 50 items",
    ]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.4, 0.2, 0.45])
    assert "tiny T5, embedding, 50 items: 0.450 ± 0.071" in plot.alt


def test_the_papers_clash_is_said_in_plots_of_five_embeddings(compared):
    comparison = compared(*MIXED)
    clashing = []
    for table in all_tables(comparison):
        figure = Figure(layout="constrained")
        table_plots.of_table(table).draw(figure, figures.LIGHT)
        (legend,) = figure.legends
        if "0.252" in legend.get_title().get_text():
            clashing.append(table.name)
    assert clashing == ["history-inputs", "history-length"]


def test_learning_curves_are_the_mean_in_a_band(compared):
    comparison = compared({"curve": ((20, 0.1), (40, 0.2))}, {"RANDOM_SEED": 1})
    ((validation, losses),) = run_plots.learning_curves(comparison)
    axes = drawn(validation)
    (label,) = comparison.labels.values()
    steps, means = by_label(axes)[label].get_data()
    assert list(steps) == [20, 40] and means == pytest.approx([0.15, 0.25])
    (band,) = axes.collections
    low_and_high = band.get_paths()[0].vertices[:, 1]
    assert {round(value, 6) for value in low_and_high} == {0.1, 0.2, 0.3}
    assert f"{label} 1.000" in losses.alt


def test_learning_curves_leave_out_what_is_no_score(compared):
    comparison = compared({"curve": ((20, 0.1), (40, float("nan")))})
    ((validation, _),) = run_plots.learning_curves(comparison)
    (label,) = comparison.labels.values()
    assert [list(data) for data in by_label(drawn(validation))[label].get_data()] == [[20], [0.1]]


@pytest.mark.parametrize(
    ("steps", "left"),
    [([60], 0), ([20, 40, 60], 0), ([1_184_500, 1_185_000], 1_184_500)],  # the last by T5X
)
def test_an_axis_of_steps_begins_where_training_did(steps, left, compared):
    curve = [(step, 0.2) for step in steps]
    ((validation, losses),) = run_plots.learning_curves(compared({"curve": curve, "losses": curve}))
    for plot in (validation, losses):
        low, high = drawn(plot).get_xlim()
        assert low == left and high > steps[-1]


def test_many_settings_are_spread_over_several_plots(compared):
    comparison = compared(*({"LEARNING_RATE": rate / 1000} for rate in range(1, 9)))
    names = [plot.name for few in run_plots.learning_curves(comparison) for plot in few]
    assert names == ["validation-f1-1", "training-loss-1", "validation-f1-2", "training-loss-2"]


def test_genres_with_most_labels_come_first_in_both_plots(compared):
    liked, disliked = run_plots.per_genre(compared({}))
    axes = drawn(liked)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["Comedy (40)", "Drama (39)", "Horror (38)", "War (37)"]
    assert drawn(disliked).get_yticklabels()[0].get_text() == "Comedy (36)"
    assert axes.patches[0].get_width() == pytest.approx(0.4)


def test_confusion_is_summed_over_seeds_of_the_best_setting(compared):
    comparison = compared({}, {"RANDOM_SEED": 1}, {"UEM_LAYERS": 3, "f1": 0.1})
    counts = run_plots.confusion(comparison)
    np.testing.assert_array_equal(counts, 2 * np.array([[60, 5, 35], [4, 20, 26], [40, 30, 780]]))
    shares = run_plots.row_shares(counts)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert shares[1, 0] == pytest.approx(0.08)
    assert "disliked answered as liked 8.0%" in run_plots.confusion_plot(comparison).alt
    drawn(run_plots.confusion_plot(comparison))
