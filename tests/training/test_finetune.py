"""Online finetuning teaches every head of the model, and the critic what a fall costs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_pretrain import make_setup

from mtm_jax.agents import finetuner
from mtm_jax.config import CriticConfig, FinetuneConfig
from mtm_jax.training import finetune, iql, program, replay

LIMIT, S, A = 20, 3, 2
CRITIC = CriticConfig(hidden=(16,), batch_size=32, discount=0.9, polyak=0.1, learning_rate=1e-2)


@pytest.fixture(scope="module")
def setup():
    return make_setup("m3pc")


def config_of(setup, **changes):
    optim = dataclasses.replace(setup.config.optim, warmup_steps=0, schedule="constant")
    model = dataclasses.replace(setup.config, optim=optim, batch_size=8)
    return FinetuneConfig(model, CRITIC, **changes)


def memories(setup, steps=None):
    empty = replay.empty_steps(100, LIMIT, S, A)
    episodes = replay.best_episodes(setup.data, 4, LIMIT)
    return finetune.Memories(episodes, empty if steps is None else steps, setup.data)


def test_every_head_learns(setup):
    training = finetune.make_training(config_of(setup, critic_updates=2), setup.model, setup.stats)
    compiled = program.make_program(training)
    state = compiled.init(jax.random.key(0))
    before = jax.device_get(state.model.params)
    state, metrics = compiled.run(state, memories(setup), 1)
    heads = {name for name in before if "head" in name}
    assert len(heads) >= 4
    for name in heads:
        moved = jax.tree.map(
            lambda a, b: np.abs(a - b).max(), before[name], state.model.params[name]
        )
        assert min(jax.tree.leaves(moved)) > 0, name
    assert int(state.critic.step) == 2 and metrics["critic/q_loss"] > 0
    assert {"train/states", "train/returns", "train/actions", "train/rewards"} <= metrics.keys()


def test_a_critic_that_rests_stays_what_it_was(setup):
    critic, config = object(), config_of(setup, critic_updates=0)
    assert finetune.update_critic(config, None, critic, None) == (critic, {})


def ring_of(terminal):
    """Two kinds of state, in which a step earns 1; the second is the last of its episode."""
    ring = replay.empty_steps(400, LIMIT, S, A)
    for k in range(20):
        state, length = np.eye(S)[k % 2], 1 if k % 2 else LIMIT
        rows, actions = np.tile(state, (length, 1)), np.zeros((length, A))
        ends = terminal and k % 2 == 1
        ring = replay.add_steps(
            ring, finetuner.pad(rows, actions, np.ones(length), state, ends, LIMIT)
        )
    return ring


def test_after_a_fall_the_critic_expects_nothing_and_after_a_timeout_it_does(setup):
    stats = setup.stats["states"]
    config = config_of(setup, critic_updates=400, online_after=0)

    @jax.jit
    def learn(kept):
        critic = iql.init_state(jax.random.key(0), CRITIC, S, A)
        critic, _ = finetune.update_critic(config, stats, critic, kept)
        return iql.v_values(iql.raw_params(critic, CRITIC), stats, jnp.eye(S)[:2])

    fallen, timed_out = (learn(memories(setup, ring_of(ends))) for ends in (True, False))
    assert fallen[1] < timed_out[1] - 2  # of at most 10
    assert fallen[0] > fallen[1] + 2
