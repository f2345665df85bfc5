"""Visibility patterns."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import masks
from mtm_jax.config import MaskConfig
from mtm_jax.errors import UserError
from mtm_jax.types import MODALITIES

GOLDEN = pathlib.Path(__file__).parent / "golden"
FRACTIONS = (0.5, 0.85, 1.0)
WEIGHTS = {"states": 0.2, "returns": 0.1, "actions": 0.6, "rewards": 0.1}
# Prompt -> what is visible at slot 4 of 8: states, returns, actions; never rewards.
AT_SLOT_4 = {
    "rcbc": ("11111000", "11111111", "11110000"),
    "bc": ("11111000", "00000000", "11110000"),
    "fd": ("11111000", "00000000", "11111111"),
    "rp": ("11111111", "00000000", "11111111"),
    "id": ("11111111", "00000000", "11110000"),
    "pi": ("11111001", "00000000", "11110000"),
    "goal": ("11111001", "00000000", "11110000"),
}


def as_text(visible):
    return {m: "".join("01"[int(slot)] for slot in v) for m, v in visible.items()}


def draw_many(draws, draw):
    """Stack draws of `draw(key)` as numpy arrays [draws, T]."""
    keys = jax.random.split(jax.random.key(0), draws)
    if draws <= 50:  # quicker than a compilation
        return jax.tree.map(lambda *v: np.stack(v), *map(draw, keys))
    return {m: np.asarray(v) for m, v in jax.jit(jax.vmap(draw))(keys).items()}


def assert_frequencies(counts, probabilities):
    """Hold each frequency to four standard errors of its probability."""
    p = np.asarray(probabilities)
    total = np.sum(counts)
    assert (np.abs(counts / total - p) <= 4 * np.sqrt(p * (1 - p) / total)).all(), counts


@pytest.mark.parametrize("name", masks.PROMPTS)
def test_prompts_show_what_their_table_says(name):
    states, returns, actions = AT_SLOT_4[name]
    expected = {"states": states, "returns": returns, "actions": actions, "rewards": "0" * 8}
    assert as_text(masks.prompt(name, 4, 8)) == expected


@pytest.mark.parametrize("name", masks.PROMPTS)
def test_prompts_at_the_first_slot_show_the_current_state_and_no_past_action(name):
    shown = as_text(masks.prompt(name, 0, 3))
    assert shown["states"] == {"rp": "111", "id": "111", "pi": "101", "goal": "101"}.get(
        name, "100"
    )
    assert shown["actions"] == {"fd": "111", "rp": "111"}.get(name, "000")


@pytest.mark.parametrize("name", masks.PROMPTS)
def test_prompts_at_the_last_slot_hide_at_most_the_last_action(name):
    shown = as_text(masks.prompt(name, 2, 3))
    assert shown["states"] == "111"
    assert shown["actions"] == {"fd": "111", "rp": "111"}.get(name, "110")


@pytest.mark.parametrize("name", masks.PROMPTS)
def test_prompts_accept_a_traced_slot(name):
    traced = jax.vmap(lambda i: masks.prompt(name, i, 5))(jnp.arange(5))
    for i in range(5):
        at_i = {m: v[i] for m, v in traced.items()}
        assert as_text(at_i) == as_text(masks.prompt(name, i, 5))


@pytest.mark.parametrize("name", ["rcbc", "fd"])
def test_prompts_equal_the_released_planner_masks(name):
    with np.load(GOLDEN / "m3pc_masks.npz") as recorded:
        for modality, visible in masks.prompt(name, 4, 8).items():
            expected = recorded[f"{name}_idx4/{modality}"]
            np.testing.assert_array_equal(visible, expected, err_msg=modality)


def test_an_unknown_prompt_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="'rbc'.*rcbc, bc"):
        masks.prompt("rbc", 0, 4)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.7, 0.85, 1.0])
def test_random_subset_shows_the_floor_of_its_fraction(fraction):
    shown = draw_many(10, lambda k: {"x": masks.random_subset(k, 10, [fraction])})["x"]
    assert (shown.sum(1) == np.floor(10 * fraction + 1e-6)).all()


def test_random_subset_shows_every_slot_equally_often():
    shown = draw_many(4000, lambda k: {"x": masks.random_subset(k, 4, [0.25])})["x"]
    assert_frequencies(shown.sum(0), np.full(4, 0.25))


def test_random_subset_draws_every_fraction_equally_often():
    shown = draw_many(4000, lambda k: {"x": masks.random_subset(k, 4, [0.25, 0.5, 1.0])})["x"]
    assert_frequencies(np.bincount(shown.sum(1), minlength=5)[[1, 2, 4]], np.full(3, 1 / 3))


def test_random_subsets_of_modalities_are_independent():
    shown = draw_many(4000, lambda k: masks.random(k, 4, [0.5]))
    assert shown.keys() == set(MODALITIES)
    both = (shown["states"][:, 0] & shown["actions"][:, 0]).sum()
    assert_frequencies(np.array([both, 4000 - both]), [0.25, 0.75])


def in_order(visible):
    """Interleave into the autoregressive order, [draws, T * modalities]."""
    present = [visible[m] for m in MODALITIES if m in visible]
    return np.stack(present, axis=-1).reshape(len(present[0]), -1)


@functools.cache
def autoregressive(fractions, window=4, draws=4000):
    """Draws with the same seeds, whatever the fractions."""
    return draw_many(draws, lambda k: masks.random_autoregressive(k, window, fractions, WEIGHTS))


def test_random_autoregressive_shows_nothing_from_its_token_on():
    # The cut has its own keys, so with everything else visible the same seeds show where it is.
    cut, random = in_order(autoregressive((1.0,))), in_order(autoregressive(FRACTIONS))
    last_action = 4 * len(MODALITIES) - 2  # has a rule of its own
    before = np.delete(cut, last_action, axis=1).astype(int)
    assert (np.diff(before, axis=1) <= 0).all()
    assert not cut[:, -1].any()
    assert not np.delete(random & ~cut, last_action, axis=1).any()
    assert (random != cut).any()


def test_random_autoregressive_of_one_step_hides_its_modality_and_the_later_ones():
    cut = in_order(autoregressive((1.0,), window=1, draws=50))
    assert set(map(tuple, cut)) <= {(0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 0, 0)}
    assert len(set(map(tuple, cut))) == 3


def test_random_autoregressive_draws_its_token_by_modality_weight_and_uniform_step():
    cut = in_order(autoregressive((1.0,)))
    counts = np.bincount(cut.sum(1), minlength=4 * len(MODALITIES)).astype(float)
    expected = np.tile([WEIGHTS[m] for m in MODALITIES], 4) / 4
    # With the token at the last reward the last-action rule hides one more.
    counts[-2], counts[-1] = counts[-2:].sum(), 0
    expected[-2], expected[-1] = expected[-2:].sum(), 0
    assert_frequencies(counts, expected)


def test_random_autoregressive_hides_the_last_action_where_all_would_be_visible():
    shown = autoregressive((1.0,))
    at_the_end = shown["states"].all(1) & shown["returns"].all(1)
    assert at_the_end.any()
    np.testing.assert_array_equal(shown["actions"][at_the_end], [[1, 1, 1, 0]] * at_the_end.sum())
    assert not autoregressive(FRACTIONS)["actions"].all(1).any()
    assert autoregressive(FRACTIONS)["actions"][:, -1].any()  # hidden only where all were shown


def drawn(draws, modalities=MODALITIES, **config):
    settings = MaskConfig(**config)
    return draw_many(draws, lambda k: masks.draw(k, settings, 4, modalities))


def test_draw_mixes_patterns_by_weight():
    patterns = (("rcbc", 5.0), ("rp", 3.0), ("bc", 2.0), ("fd", 0.0))
    shown = drawn(4000, patterns=patterns)
    rcbc, rp = shown["returns"].all(1), shown["actions"].all(1)
    assert shown["states"][rp].all()  # never fd
    assert_frequencies(np.array([rcbc.sum(), rp.sum(), (~rcbc & ~rp).sum()]), [0.5, 0.3, 0.2])


def test_draw_takes_the_slot_of_a_prompt_uniformly():
    shown = drawn(4000, patterns=(("bc", 1.0),))
    counts = np.bincount(shown["states"].sum(1), minlength=5)
    assert_frequencies(counts, [0, 0.25, 0.25, 0.25, 0.25])
    np.testing.assert_array_equal(shown["actions"].sum(1), shown["states"].sum(1) - 1)


@pytest.mark.parametrize("pattern", masks.TRAINING_DISTRIBUTIONS + masks.PROMPTS)
def test_draw_covers_exactly_the_modalities_asked_for(pattern):
    config = MaskConfig(patterns=((pattern, 1.0), ("bc", 0.5)))
    shown = masks.draw(jax.random.key(0), config, 4, ("states", "actions"))
    assert tuple(shown) == ("states", "actions")
    assert all(v.dtype == bool and v.shape == (4,) for v in shown.values())


def test_draw_covers_a_modality_that_has_no_weight():
    weights = (("states", 0.5), ("actions", 0.5))
    shown = drawn(50, modality_weights=weights, fractions=(1.0,))
    assert shown.keys() == set(MODALITIES)
    tokens = in_order(shown).sum(1)
    assert set(tokens % len(MODALITIES)) == {0, 2}  # the token is a state or an action


def test_draw_refuses_an_unknown_pattern_with_the_choices():
    with pytest.raises(UserError, match="'forward'.*random_autoregressive.*fd"):
        drawn(1, patterns=(("forward", 1.0),))


def test_draw_refuses_weights_that_leave_out_every_modality():
    with pytest.raises(UserError, match="rewards.*states.*positive weight"):
        drawn(1, ("states", "actions"), modality_weights=(("rewards", 1.0), ("states", 0.0)))


def test_hide_missing_hides_exactly_what_a_sample_lacks():
    every = {m: jnp.ones((2, 3, 4), bool) for m in ("states", "actions")}
    lacks = jnp.array([[True, False, True], [False, True, True]])
    hidden = masks.hide_missing(every, {"actions": ~lacks, "rewards": lacks})
    assert hidden.keys() == every.keys()
    assert hidden["states"].all()
    np.testing.assert_array_equal(hidden["actions"], np.repeat(~lacks[..., None], 4, -1))


def test_hide_missing_never_shows_a_hidden_token():
    visible = {"actions": jnp.array([[True, False], [False, True]])}
    hidden = masks.hide_missing(visible, {"actions": jnp.array([True, False])})
    np.testing.assert_array_equal(hidden["actions"], [[True, False], [False, False]])
