"""The learning rate's course, against values worked out by hand."""

import jax
import jax.numpy as jnp
import pytest

from uem_t5x.base.errors import InputError
from uem_t5x.training import learning_rates


def course(*args, **kwargs):
    rate = jax.jit(learning_rates.trapezoid(*args, **kwargs))
    return [float(rate(jnp.asarray(step))) for step in range(11)]


def test_without_slopes_it_is_constant():
    assert course(0.5, total_steps=10) == [0.5] * 11


def test_rises_stays_and_falls():
    rates = course(0.4, total_steps=10, warmup_steps=4, decay_steps=2)
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.2, 0.0])


def test_slopes_that_cross_take_the_lower_one():
    rates = course(1.0, total_steps=10, warmup_steps=5, decay_steps=10)
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])


def test_a_trial_of_a_longer_recipe_stays_under_the_peak():
    rates = course(1.0, total_steps=2, warmup_steps=10, decay_steps=10)
    assert rates[:3] == pytest.approx([0.1, 0.1, 0.0])


@pytest.mark.parametrize("slope", ["warmup_steps", "decay_steps"])
def test_no_slope_is_of_negative_length(slope):
    with pytest.raises(InputError, match=rf"{slope.upper()}=-1: bind it to 0 or more"):
        learning_rates.trapezoid(1.0, total_steps=10, **{slope: -1})
