"""The other roles are masks of in-painting, and what does not fit a window is refused."""

import numpy as np
import pytest

import mtm_jax
from mtm_jax.agents import agent as agent_lib
from mtm_jax.errors import UserError

RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(8, 11)).astype(np.float32)
ACTIONS = RNG.uniform(-0.9, 0.9, (8, 3)).astype(np.float32)
SLOTS = np.arange(8)


@pytest.fixture(scope="module")
def agent(drawn_run):
    return agent_lib.load(drawn_run)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_acting_with_a_return_is_a_mask(agent):
    returns = np.full((8, 1), agent.target_token(1.0))
    values = {"states": STATES, "returns": returns}
    found = agent.inpaint(values, {"states": SLOTS < 1, "returns": SLOTS >= 0})
    close(found["actions"][0], agent.policy("rcbc").act(STATES[0]))


def test_imagining_is_a_mask(agent):
    expected = agent.imagine(STATES[0], ACTIONS[:3])
    visible = {"states": SLOTS < 1, "actions": SLOTS < 3}
    found = mtm_jax.inpaint(agent, {"states": STATES, "actions": ACTIONS}, visible)
    close(found["states"][1], expected.next_states[0])
    close(found["rewards"][0, 0], expected.rewards[0])
    close(found["returns"][0, 0], expected.return_tokens[0])


def test_inverse_dynamics_are_a_mask(agent):
    actions = agent.inverse_dynamics(STATES)
    values = {"states": STATES, "actions": np.concatenate([actions, actions[:1]])}
    for slot in (0, 4):
        visible = {"states": SLOTS >= 0, "actions": SLOTS < slot}
        close(agent.inpaint(values, visible)["actions"][slot], actions[slot])


def test_hidden_values_have_no_influence_and_visible_ones_are_kept(agent):
    visible = {"states": SLOTS % 2 == 0, "actions": SLOTS < 3}
    broken = {
        "states": np.where(visible["states"][:, None], STATES, np.nan),
        "actions": np.where(visible["actions"][:, None], ACTIONS, np.inf),
    }
    found = agent.inpaint(broken, visible)
    plain = agent.inpaint({"states": STATES, "actions": ACTIONS}, visible)
    for name, x in found.items():
        np.testing.assert_array_equal(x, plain[name])
    np.testing.assert_array_equal(found["states"][::2], STATES[::2])
    np.testing.assert_array_equal(found["actions"][:3], ACTIONS[:3])
    rebuilt = agent.inpaint(broken, visible, reconstruct=True)
    assert (rebuilt["states"][::2] != STATES[::2]).any()
    np.testing.assert_array_equal(rebuilt["states"][1::2], found["states"][1::2])


def test_a_batch_has_a_mask_for_each_window_or_one_for_all(agent):
    states = np.stack([STATES, STATES[::-1]])
    masks = np.stack([SLOTS < 3, SLOTS > 5])
    found = agent.inpaint({"states": states}, {"states": masks})
    assert found["actions"].shape == (2, 8, 3)
    for k in range(2):
        close(
            found["states"][k], agent.inpaint({"states": states[k]}, {"states": masks[k]})["states"]
        )
    shared = agent.inpaint({"states": STATES}, {"states": masks})
    close(shared["states"][0], found["states"][0])


def test_fewer_steps_than_slots_are_the_first_of_the_window(agent):
    short = agent.inpaint({"states": STATES[:3]}, {"states": SLOTS[:3] < 2})
    whole = agent.inpaint({"states": STATES}, {"states": SLOTS < 2})
    close(short["states"], whole["states"][:3])
    assert short["actions"].shape == (3, 3)


def test_discrete_tokens_are_filled_in_within_their_range():
    data = mtm_jax.trajectories_from_arrays(
        {"observations": STATES[:, :2], "actions": ACTIONS[:, :1], "lengths": [8]}, name="toy"
    )
    specs = [
        mtm_jax.ModalitySpec(m, 5, d, "categorical") for m, d in (("states", 2), ("actions", 1))
    ]
    config = mtm_jax.ModelConfig(tuple(specs), 4, 8, 2, 1, 1)
    optim = mtm_jax.OptimConfig(total_steps=1, warmup_steps=0)
    agent = mtm_jax.train(data, mtm_jax.PretrainConfig(config, optim=optim, batch_size=2))
    hidden = np.full((3, 2), np.nan)
    found = agent.inpaint({"states": hidden}, {"states": np.zeros(3, bool)})["states"]
    low, high = STATES[:, :2].min(0), STATES[:, :2].max(0)
    assert ((low < found) & (found < high)).all()


ALL = np.ones(8, bool)


@pytest.mark.parametrize(
    ("values", "visible", "says"),
    [
        ({}, {}, "name no modality"),
        ({"goals": STATES}, {}, "values name 'goals', which this model does not have; it has sta"),
        ({"states": STATES}, {"goal": ALL}, "visible name 'goal'"),
        ({"states": STATES}, {"actions": ALL}, "visible names 'actions', and values do not"),
        ({"states": STATES[:, :4]}, {}, r"shape \(8, 4\); the model's states are 11 wide"),
        ({"states": STATES[0]}, {}, r"shape \(11,\)"),
        ({"states": STATES}, {"states": ALL[:5]}, "'states'. has 5 steps and values.* has 8"),
        ({"states": STATES}, {"states": np.ones((8, 11), bool)}, "has 11 steps and values"),
        ({"states": STATES}, {"states": np.arange(8)}, "dtype int64; give .* booleans"),
        ({"states": np.ones((2, 9, 11))}, {}, "9 steps, more than the model's window of 8"),
        (
            {"states": np.ones((2, 8, 11)), "actions": np.ones((3, 8, 3))},
            {},
            "values.'states'.* has 2 and values.'actions'.* has 3; give equally many",
        ),
        (
            {"states": np.where(SLOTS[:, None] == 2, np.nan, STATES)},
            {"states": ALL},
            "'states'. are not finite at step 2, dimension 0, which is visible",
        ),
        ({"states": {"a": 1}}, {}, "is a dictionary"),
    ],
)
def test_what_does_not_fit_is_refused(agent, values, visible, says):
    with pytest.raises(UserError, match=says):
        agent.inpaint(values, visible)
