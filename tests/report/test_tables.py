"""The tables: the paper's figures, our settings in their places, and the limits."""

import fake_runs

from uem_t5x.report import paper_results, tables


def rows(table):
    """Returns what stands in each group of a table."""
    return {
        group.headers: [table.labels[setting] for setting in group.settings]
        for group in table.groups
    }


def test_the_papers_figures():
    """Copied by hand from the paper's tables."""
    assert paper_results.COUNTING == {"base": 0.192, "large": 0.192}
    inputs = paper_results.HISTORY_INPUTS
    assert {key: tuple(scores.values()) for key, scores in inputs.items()} == {
        ("text", 5): (0.273, 0.261),
        ("embedding", 5): (0.252, 0.215),
        ("embedding", 50): (0.396, 0.381),
        ("embedding", 100): (0.404, 0.444),
        ("LongT5 text", 50): (0.529, 0.557),
    }
    lengths = paper_results.HISTORY_LENGTHS
    assert list(lengths) == [5, 20, 30, 50, 100]
    assert [row["base"] for row in lengths.values()] == [0.273, 0.275, 0.337, 0.396, 0.404]
    assert [row["large"] for row in lengths.values()] == [0.261, 0.281, 0.367, 0.381, 0.444]
    models = paper_results.LANGUAGE_MODELS
    assert {name: tuple(row.values()) for name, row in models.items()} == {
        "T5 1.1": (0.208, 0.267),
        "T5 1.1 LM-adapted": (0.338, 0.378),
        "Flan-T5": (0.396, 0.381),
    }
    layers = paper_results.UEM_LAYERS
    assert {depth: tuple(row.values()) for depth, row in layers.items()} == {
        1: (0.346, 0.347),
        2: (0.384, 0.365),
        3: (0.396, 0.381),
    }


def test_what_is_said_of_the_papers_figures_follows_from_them():
    clash, gains = paper_results.INCONSISTENCIES
    inputs, lengths = paper_results.HISTORY_INPUTS, paper_results.HISTORY_LENGTHS
    for size in paper_results.SIZES:
        assert f"{inputs['embedding', 5][size]:.3f}" in clash
        assert f"{lengths[5][size]:.3f}" in clash
        assert lengths[5][size] == inputs["text", 5][size]
        most = inputs["embedding", 100][size]
        assert f"{most - paper_results.COUNTING[size]:.2f}" in gains
        assert f"{most - inputs['text', 5][size]:.3f}" in gains


def test_our_settings_stand_beside_the_papers(compared):
    comparison = compared(
        {"HISTORY_LENGTH": 5},
        {"HISTORY_LENGTH": 50},
        {"HISTORY_LENGTH": 50, "RANDOM_SEED": 1},
        {"UEM_LAYERS": 2},
        {"kind": "text", "HISTORY_LENGTH": 5},
        {"kind": "text", "LANGUAGE_MODEL": "tiny LongT5"},
        {"LANGUAGE_MODEL": "Flan-T5", "LANGUAGE_MODEL_SIZE": "base", "VOCAB_SIZE": 32128},
    )
    inputs, lengths, models, layers = tables.paper_tables(comparison)

    assert rows(inputs) == {
        ("text", 5): ["tiny T5"],
        ("embedding", 5): ["tiny T5"],
        ("embedding", 50): ["tiny T5"],
        ("embedding", 100): [],
        ("LongT5 text", 50): ["tiny LongT5"],
    }
    assert rows(lengths) == {
        (5,): ["tiny T5"],
        (20,): [],
        (30,): [],
        (50,): ["tiny T5"],
        (100,): [],
    }
    assert rows(models) == {
        ("T5 1.1", 50): [],
        ("T5 1.1 LM-adapted", 50): [],
        ("Flan-T5", 50): ["Flan-T5 base"],
        ("tiny T5", 50): ["tiny T5"],
    }
    assert rows(layers) == {(1, 50): ["tiny T5"], (2, 50): ["tiny T5"], (3, 50): []}
    assert lengths.groups[0].paper == {"base": 0.273, "large": 0.261}
    (of_fifty,) = next(group.settings for group in lengths.groups if group.headers == (50,))
    assert of_fifty.seeds == [0, 1]


def test_every_table_has_counting_and_the_rule_on_what_was_read(compared):
    comparison = compared(
        {"HISTORY_LENGTH": 5}, {}, {"UEM_LAYERS": 3}, {"kind": "text", "HISTORY_LENGTH": 5}
    )
    found = tables.paper_tables(comparison)
    assert {table.counting["f1"] for table in found} == {fake_runs.COUNTING_F1}
    inputs, lengths, _, layers = found
    assert [rule.label for group in inputs.groups for rule in group.rules] == [
        "label rule on the items told (4.5 a user)",
        "label rule on the 5 most recent items",
        "label rule on the 50 most recent items",
    ]
    assert [rule.scores["f1"] for group in lengths.groups for rule in group.rules] == [0.11, 0.66]
    assert [rule.scores["f1"] for rule in layers.rules] == [0.66]  # the same for all its rows
    assert not any(group.rules for group in layers.groups)


def test_what_no_run_varies_is_shown_by_the_best_setting(compared):
    comparison = compared({"HISTORY_LENGTH": 20, "f1": 0.3}, {"UEM_LAYERS": 2, "f1": 0.5})
    _, lengths, _, _ = tables.paper_tables(comparison)
    assert [headers for headers, ours in rows(lengths).items() if ours] == [(50,)]


def test_runs_of_text_alone_leave_the_tables_of_embeddings_to_the_paper(compared):
    inputs, lengths, models, layers = tables.paper_tables(compared({"kind": "text"}))
    assert rows(inputs)["text", 50] == ["tiny T5"]
    for table in (lengths, models, layers):
        assert table.groups and not any(group.settings for group in table.groups)


def test_settings_of_one_cell_are_told_apart(compared):
    comparison = compared(
        *(
            {"HISTORY_LENGTH": items, "LEARNING_RATE": rate}
            for items in (5, 50)
            for rate in (0.1, 1.0)
        )
    )
    _, lengths, _, _ = tables.paper_tables(comparison)
    assert rows(lengths)[50,] == ["tiny T5, LEARNING_RATE=0.1", "tiny T5, LEARNING_RATE=1"]


def test_whatever_else_differs_alone_has_a_table_of_its_own(compared):
    comparison = compared(
        {},
        {"encoder_width": 384},
        {"PROMPT_LENGTH": 20},
        {"bindings": ["network.T5Config.emb_dim = 64"]},
        {"HISTORY_LENGTH": 5},
        {"TRAIN_STEPS": 80, "BATCH_SIZE": 64},  # two at once: no ablation of either
    )
    found = {table.title: table for table in tables.other_tables(comparison)}
    assert list(found) == ["ENCODER", "PROMPT_LENGTH", "T5Config.emb_dim"]
    assert rows(found["ENCODER"]) == {
        ("hashing, 384", "embedding", 50): ["tiny T5"],
        ("hashing, 96", "embedding", 50): ["tiny T5"],
    }
    assert list(rows(found["PROMPT_LENGTH"])) == [(8, "embedding", 50), (20, "embedding", 50)]
    assert found["PROMPT_LENGTH"].is_numeric and not found["T5Config.emb_dim"].is_numeric
    assert not any(group.paper for table in found.values() for group in table.groups)


def test_another_vocabulary_comes_with_another_size_of_it(compared):
    comparison = compared({}, {"VOCAB_SIZE": 512, "vocabulary": "v2"}, {"vocabulary": "v3"})
    vocabularies, sizes = tables.other_tables(comparison)
    assert list(rows(sizes)) == [(256, "embedding", 50), (512, "embedding", 50)]
    assert vocabularies.title == "VOCABULARY" and len(vocabularies.groups) == 2


def test_what_is_unknown_is_no_ablation(compared):
    free, grammar = {}, {"asked": {"well_formed": True}}
    comparison = compared(free, grammar, {"asked": {"well_formed": None}})
    (decoding,) = tables.other_tables(comparison)
    assert [headers[0] for headers in rows(decoding)] == ["free", "within the grammar"]


def test_another_initial_checkpoint_is_another_language_model_and_an_ablation(compared):
    comparison = compared({}, {"INITIAL_CHECKPOINT_PATH": "pretrained"})
    (other,) = tables.other_tables(comparison)
    assert list(rows(other)) == [("None", "embedding", 50), ("pretrained", "embedding", 50)]
