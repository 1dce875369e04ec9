"""Soft prompts that are injected: their length, FLOPs and description, and a class of one's own."""

import functools

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from uem_t5x import models, network
from uem_t5x.network import flops, parameters, user_embedding
from uem_t5x.network.item_table import Channel, ItemTable

CHANNELS = (Channel("title", 7, 6, "item"), Channel("rating", 11, 6, "rating"))
T5 = network.T5Config(
    vocab_size=24,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=24,
    num_encoder_layers=2,
    num_decoder_layers=2,
)
TEXT = np.array([[4, 5, 6, 7], [7, 8, 0, 0]], np.int32)
HISTORY = {
    "history_items": np.array([[1, 2, 3], [4, 0, 0]], np.int32),
    "history_ratings": np.array([[9, 2, 7], [10, 0, 0]], np.int32),
}
LENGTHS = {
    "encoder_input_tokens": 4,
    "decoder_target_tokens": 5,
    "history_items": 3,
    "history_ratings": 3,
}


class MeanPrompt(network.SoftPromptModule):
    """One token: the mean of the history's vectors, projected."""

    channels: tuple[Channel, ...]

    @nn.compact
    def __call__(self, features, embed_dim, *, enable_dropout=True):
        items = features["history_items"]
        vectors = ItemTable(self.channels, name="item_table")(items, features["history_ratings"])
        mean = vectors.sum(axis=1) / jnp.maximum((items > 0).sum(axis=1), 1)[:, None]
        prompt = nn.Dense(embed_dim, use_bias=False, name="mean_projection")(mean)[:, None]
        return network.SoftPrompt(prompt, jnp.ones(prompt.shape[:2], bool))


def user_prompt(**options):
    config = user_embedding.UserEmbeddingConfig(num_layers=2, num_heads=2, head_dim=4, mlp_dim=12)
    return user_embedding.UserPrompt(config, channels=CHANNELS, **options)


@pytest.mark.parametrize("soft_prompt", [user_prompt(prompt_length=2), MeanPrompt(CHANNELS)])
def test_what_is_counted_by_hand_is_what_jax_traces(soft_prompt):
    module = network.Transformer(T5, soft_prompt)

    def logits(variables, tokens, targets, history):
        return module.apply(variables, tokens, targets, targets, history, enable_dropout=False)

    targets = np.ones((2, 5), np.int32)
    init = functools.partial(module.init, enable_dropout=False)
    variables = jax.eval_shape(init, jax.random.PRNGKey(0), TEXT, targets, targets, HISTORY)
    traced = flops.products(logits, variables, TEXT, targets, HISTORY)
    assert flops.forward_flops(module, LENGTHS, batch_size=2) == traced


@pytest.mark.parametrize("trainable", [parameters.everything, parameters.soft_prompt_alone])
def test_flops_of_training_counted_by_hand_are_those_of_its_gradients(trainable):
    """By hand the gradient of the item vectors counts, too: one product of the first layer."""
    module = network.Transformer(T5, MeanPrompt(CHANNELS))
    model = models.EncoderDecoderModel(module, None, None, None, trainable=trainable)
    shapes = {name: (2, length) for name, length in LENGTHS.items()}
    variables = jax.eval_shape(
        lambda: flax.core.unfreeze(model.get_initial_variables(jax.random.PRNGKey(0), shapes))
    )
    trained, frozen = parameters.split(variables["params"], trainable)
    mutables = {"item_table": variables["item_table"]}
    batch = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()}

    def loss(trained, frozen, mutables, batch):
        return model.loss_fn(parameters.merge(trained, frozen), batch, None, mutables)[0]

    traced = flops.products(jax.grad(loss), trained, frozen, mutables, batch)
    trains_language_model = trainable is parameters.everything
    by_hand = flops.training_flops(module, LENGTHS, 2, trains_language_model)
    of_the_vectors = 2 * module.soft_prompt.flops(LENGTHS, 16)
    assert traced == by_hand - of_the_vectors


def test_positions_before_the_text():
    assert user_prompt(prompt_length=2).length(LENGTHS, 16) == 2 + 3
    assert user_prompt(prompt_length=0).length(LENGTHS, 16) == 3
    assert MeanPrompt(CHANNELS).length(LENGTHS, 16) == 1


def test_flops_of_a_mean():
    """One product of a vector of 12 columns with a matrix of 12 x 16."""
    assert MeanPrompt(CHANNELS).flops(LENGTHS, 16) == 2 * 12 * 16


def test_a_loop_counts_in_full():
    def loop(matrix):
        return jax.lax.scan(lambda x, _: (x @ matrix, None), matrix, None, length=5)[0]

    assert flops.products(loop, jnp.ones((3, 3))) == 5 * 2 * 27


def test_one_of_ones_own_stands_before_the_text():
    module = network.Transformer(T5, MeanPrompt(CHANNELS))
    targets = np.ones((2, 5), np.int32)
    variables = module.init(
        jax.random.PRNGKey(0), TEXT, targets, targets, HISTORY, enable_dropout=False
    )
    assert variables["params"].keys() == {
        "token_embedder",
        "encoder",
        "decoder",
        "mean_projection",
    }
    assert variables["item_table"]["item_table"].keys() == {"title", "rating"}
    encoded = module.apply(variables, TEXT, HISTORY, enable_dropout=False, method="encode")
    assert encoded.values.shape == (2, 1 + 4, 16)


def test_the_t5_is_the_same_whatever_stands_before_it():
    targets = np.ones((2, 5), np.int32)
    key = jax.random.PRNGKey(0)
    alone = network.Transformer(T5).init(key, TEXT, targets, targets, enable_dropout=False)
    under = network.Transformer(T5, user_prompt()).init(
        key, TEXT, targets, targets, HISTORY, enable_dropout=False
    )
    for name, values in alone["params"].items():
        jax.tree.map(np.testing.assert_array_equal, values, under["params"][name])


def test_a_class_of_ones_own_is_described_by_its_name_and_settings():
    described = MeanPrompt(CHANNELS).describe()
    assert described["class"].endswith("MeanPrompt")
    assert described["settings"] == {"channels": CHANNELS}

    class Other(user_embedding.UserPrompt):
        """May compute anything."""

    assert "class" not in user_prompt().describe()
    assert "class" in Other(channels=CHANNELS).describe()


def test_a_class_without_a_call_says_what_it_lacks():
    module = network.Transformer(T5, network.SoftPromptModule())
    with pytest.raises(NotImplementedError, match=r"SoftPromptModule\.__call__ makes"):
        module.init(jax.random.PRNGKey(0), TEXT, TEXT, TEXT, HISTORY)
