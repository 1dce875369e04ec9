"""What task prompts start as."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from golden import t5x_case as case

from uem_t5x.base.errors import InputError
from uem_t5x.inputs import vocabularies
from uem_t5x.training import prompt_init

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def vocabulary(dataset_folder):
    return vocabularies.load(str(dataset_folder.vocabulary_path))


def fresh(prompts=6, rows=256):
    """Parameters whose embedding holds in each row its number."""
    table = jnp.repeat(jnp.arange(rows, dtype=jnp.float32)[:, None], 4, axis=1)
    params = {"token_embedder": {"embedding": table}, "decoder": {"norm": jnp.ones(4)}}
    return {**params, "task_prompt": {"embedding": jnp.full((prompts, 4), -1.0)}}


def started(spec, vocabulary, **options):
    made = prompt_init.start(fresh(**options), spec, vocabulary, KEY)
    return np.asarray(made["task_prompt"]["embedding"])


def test_random_prompts_stay_as_the_network_drew_them(vocabulary):
    params = fresh()
    assert prompt_init.start(params, "random", vocabulary, KEY) is params


def test_a_text_is_repeated_piece_by_piece(vocabulary):
    pieces = vocabulary.encode("The user likes")
    assert len(pieces) < 6
    made = started("text:The user likes", vocabulary)
    np.testing.assert_array_equal(made[:, 0], np.resize(pieces, 6))
    np.testing.assert_array_equal(made, made[:, :1].repeat(4, axis=1))


def test_pieces_are_drawn_once_each_and_never_special_ones(vocabulary):
    made = started("vocabulary", vocabulary, prompts=100)[:, 0]
    assert len(set(made)) == 100
    assert made.min() >= 3
    assert made.max() < vocabulary.vocab_size
    again = started("vocabulary", vocabulary, prompts=100)[:, 0]
    np.testing.assert_array_equal(made, again)


def test_of_a_large_vocabulary_common_pieces_are_drawn(vocabulary):
    class Large:
        vocab_size = 32128

    made = prompt_init.start(fresh(200, 32128), "vocabulary", Large(), KEY)
    assert np.asarray(made["task_prompt"]["embedding"]).max() < 5003


def test_nothing_else_changes(vocabulary):
    params = fresh()
    made = prompt_init.start(params, "vocabulary", vocabulary, KEY)
    assert made.keys() == params.keys()
    assert made["token_embedder"] is params["token_embedder"]
    assert made["decoder"] is params["decoder"]


@pytest.mark.parametrize(("prompts", "stays"), [(3, True), (4, False)])
def test_prompts_of_a_checkpoint_of_the_same_sizes_stay(tmp_path, vocabulary, prompts, stays):
    params = {**case.language_model_params(), "task_prompt": {"embedding": np.ones((3, 16))}}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(tmp_path / "checkpoint_1/state", ocp.args.PyTreeSave({"target": params}))
    begun = {**params, "task_prompt": {"embedding": jnp.ones((prompts, 16))}}
    made = prompt_init.start(begun, "vocabulary", vocabulary, KEY, tmp_path)
    assert np.array_equal(made["task_prompt"]["embedding"], jnp.ones((prompts, 16))) == stays


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("words", r"^PROMPT_INIT='words': choose 'random', 'vocabulary' or 'text:WORDS'"),
        ("text: ", "^PROMPT_INIT='text: ': no text; write some behind 'text:'"),
        ("text:" + "The user likes movies. " * 9, r"has \d+ pieces, and PROMPT_LENGTH=6; shorten"),
        ("text:\u4f60", "the vocabulary cannot write some of it"),
    ],
)
def test_what_makes_no_sense_is_refused(spec, message, vocabulary):
    with pytest.raises(InputError, match=message):
        started(spec, vocabulary)


def test_without_task_prompts_there_is_nothing_to_start(vocabulary):
    params = fresh()
    del params["task_prompt"]
    with pytest.raises(InputError, match=r"no task prompts \(PROMPT_LENGTH=0"):
        prompt_init.start(params, "vocabulary", vocabulary, KEY)
