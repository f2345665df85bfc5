"""What is trained from Python is an agent, of the same numbers as those of the command."""

import dataclasses

import jax
import numpy as np
import pytest

import mtm_jax
from mtm_jax.errors import UserError
from mtm_jax.training import dataset, pretrain, program

RNG = np.random.default_rng(0)
SPECS = (mtm_jax.ModalitySpec("states", 2), mtm_jax.ModalitySpec("actions", 1))


def settings(specs=SPECS, window=4, **optim):
    optim = {"learning_rate": 3e-3, "warmup_steps": 5, "total_steps": 60} | optim
    return mtm_jax.PretrainConfig(
        model=mtm_jax.ModelConfig(specs, window, 8, 2, 1, 1, dropout=0.0),
        masks=mtm_jax.MaskConfig(patterns=(("random", 1.0),)),
        optim=mtm_jax.OptimConfig(**optim),
        batch_size=8,
    )


@pytest.fixture(scope="module")
def data():
    arrays = {"observations": RNG.normal(size=(60, 2)), "actions": RNG.uniform(-1, 1, (60, 1))}
    return mtm_jax.trajectories_from_arrays(arrays | {"lengths": [20, 25, 15]}, name="toy")


@pytest.fixture(scope="module")
def agent(data):
    return mtm_jax.train(data, settings(), seed=3)


def test_training_ends_with_the_state_of_the_common_program(data, agent):
    config = settings()
    split = dataset.make_dataset(data, 4)
    compiled = program.make_program(
        pretrain.make_training(config, agent.model, dataset.compute_stats(split))
    )
    state, _ = compiled.run(compiled.init(jax.random.key(3)), split, 60)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), agent.params, state.params
    )
    assert (agent.step, agent.history, agent.info.name) == (60, 3, "toy")
    assert agent.returns.best is None


def test_a_model_without_returns_still_imagines(agent):
    assert agent.imagine(np.zeros(2), np.zeros((2, 1))).return_tokens is None
    with pytest.raises(UserError, match="has no returns, which rcbc needs; it was trained on st"):
        agent.policy("rcbc")


def test_a_trained_agent_fills_in_windows(agent):
    found = agent.inpaint({"states": np.zeros((3, 2))}, {"states": np.ones(3, bool)})
    assert found["actions"].shape == (3, 1)


def test_a_role_that_a_model_lacks_is_refused(agent):
    config = dataclasses.replace(agent.model.config, modalities=SPECS[:1])
    agent = dataclasses.replace(agent, model=agent.model._replace(config=config))
    asks = {
        "imagining": lambda: agent.imagine(np.zeros(2), np.zeros((2, 1))),
        "inverse dynamics": lambda: agent.inverse_dynamics(np.zeros((3, 2))),
        "bc": lambda: agent.policy("bc"),
    }
    for role, ask in asks.items():
        with pytest.raises(UserError, match=f"has no actions, which {role} needs"):
            ask()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (settings((mtm_jax.ModalitySpec("states", 3),)), "states have 3 dim.*data have 2; write"),
        (settings(window=26), "longest of its 3 episodes has 25 steps"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(data, config, says):
    with pytest.raises(UserError, match=says):
        mtm_jax.train(data, config)


def test_a_training_that_breaks_is_stopped(data):
    with pytest.raises(UserError, match="not finite any more by step 50"):
        mtm_jax.train(data, settings(learning_rate=1e30))
