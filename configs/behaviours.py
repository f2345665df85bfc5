"""Train the behaviour policies of the built-in data: a ladder of actors, from random to expert.

Soft actor-critic (Haarnoja et al., 2018); the explorer learns from random network distillation
(Burda et al., ICLR 2019) alone, where MTM used ProtoRL for ExORL's data.

python -m experiments.behaviours --config=configs/behaviours.py:hopper
python -m experiments.behaviours --config=configs/behaviours.py:walker

On two CPU cores: hopper half an hour, walker2d and halfcheetah one to two hours, walker half an
hour. The actors that came of it are in mtm_jax/data/builtin/actors, with their returns in
ladder.json; configs/ladder.py is the page of their selection.
"""

from ml_collections import config_dict

from mtm_jax.errors import UserError


def get_config(name="hopper"):
    if name not in LADDERS:
        raise UserError(f"unknown ladder {name!r}; choose one of {', '.join(LADDERS)}")
    config = config_dict.ConfigDict()
    config.name = name  # name of the ladder
    config.env = name  # environment, or one of its tasks
    config.seed = 0  # seed of the environments, the replay samples and the initial networks
    config.out = ""  # run folder; empty: runs/behaviours/<name>-seed<seed>

    # Data
    config.reward = "environment"  # reward to learn from: environment, or rnd (novelty of states)
    config.total_steps = 600_000  # environment steps
    config.num_envs = 8  # environments stepped together
    config.steps_per_phase = 25  # steps of each environment between two phases of updates
    config.updates_per_step = 0.5  # gradient updates per environment step
    config.random_steps = 10_000  # steps with uniform actions, before learning starts
    config.replay_capacity = 1_000_000  # transitions in the replay buffer

    # Soft actor-critic
    config.sac = config_dict.ConfigDict()
    config.sac.hidden = (256, 256)  # layer widths of actor and critic
    config.sac.learning_rate = 3e-4  # learning rate of Adam
    config.sac.decay_from = 0.5  # share of the updates after which it falls linearly to zero
    config.sac.batch_size = 128  # transitions of an update
    config.sac.discount = 0.99  # discount of future rewards
    config.sac.polyak = 0.005  # step size of the target critic
    config.sac.actor_average = 0.001  # step size of the running average of the actor
    config.sac.target_entropy_per_dim = 1.0  # target entropy: minus this times the action's size

    # Random network distillation, with reward rnd
    config.rnd = config_dict.ConfigDict()
    config.rnd.hidden = (256, 256)  # layer widths of the target and the predictor
    config.rnd.features = 64  # features of a state that the predictor learns
    config.rnd.learning_rate = 1e-4  # learning rate of the predictor
    config.rnd.clip = 5.0  # clip normalised observations at so many standard deviations
    config.rnd.running_rate = 1e-3  # smallest step size of the running means and deviations

    # Logging and checkpoints
    config.coverage = False  # log the coverage of recent states (ExORL's walker only)
    config.snapshot_every = 10_000  # environment steps between two actors of the ladder
    config.save_every = 100_000  # environment steps between checkpoints
    config.use_older = False  # continue from an older checkpoint where the newest is damaged

    config.lock().update_from_flattened_dict(LADDERS[name])
    return config


# What differs from the values above.
LADDERS = {
    "hopper": {"snapshot_every": 5_000},
    "walker2d": {"total_steps": 2_000_000},
    "halfcheetah": {"total_steps": 2_000_000},
    "walker": {
        "env": "walker_run",
        "reward": "rnd",
        "total_steps": 500_000,
        "updates_per_step": 0.25,
        "coverage": True,
        # The reward of an explorer never settles, so neither does its learning rate; its actor is
        # averaged over fewer updates, because older ones pursued another reward.
        "sac.decay_from": 1.0,
        "sac.actor_average": 0.005,
    },
}
