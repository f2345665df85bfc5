"""Train one environment's behaviour ladder with SAC (two CPU cores, half an hour for hopper).

python -m experiments.behaviours --config=configs/behaviours.py:hopper
python -m experiments.behaviours --config=configs/behaviours.py:walker  # explores, ExORL's walker
"""

from ml_collections import config_dict

from mtm_jax.errors import UserError

# Ladder -> how it differs from the others.
LADDERS = {
    "hopper": {"env": "hopper", "total_steps": 600_000},
    "walker2d": {"env": "walker2d", "total_steps": 2_000_000},
    "halfcheetah": {"env": "halfcheetah", "total_steps": 2_000_000},
    "walker": {
        "env": "walker_run",
        "reward": "rnd",
        "coverage": True,
        "total_steps": 500_000,
        "updates_per_step": 0.25,
        # An explorer's aim moves all the time: it never settles, and only lately it was like this.
        "sac": {"decay_from": 1.0, "actor_average": 0.005},
    },
}


def get_config(name="hopper"):
    if name not in LADDERS:
        raise UserError(f"unknown ladder {name!r}; choose one of {', '.join(LADDERS)}")
    config = config_dict.ConfigDict()
    config.name = name
    config.env = name  # of the ladder, or one task of it
    config.seed = 0
    config.out = ""  # run folder; empty: runs/behaviours/<name>-seed<seed>
    config.reward = "environment"  # or rnd, for reaching unfamiliar states
    config.coverage = False  # whether to log the coverage of recent states, of ExORL's walker only
    config.total_steps = 0  # environment steps
    config.num_envs = 8  # that are stepped together
    config.steps_per_phase = 25  # steps of each environment between two update phases
    config.updates_per_step = 0.5  # gradient updates per environment step
    config.random_steps = 10_000  # uniform actions before learning starts
    config.snapshot_every = 10_000  # environment steps between two actors of the ladder
    config.save_every = 100_000  # environment steps between two checkpoints
    config.use_older = False  # continue from the newest good checkpoint where the newest is damaged
    config.replay_capacity = 1_000_000  # transitions that are kept to learn from
    config.sac = config_dict.ConfigDict()
    config.sac.hidden = (256, 256)
    config.sac.learning_rate = 3e-4
    config.sac.decay_from = 0.5  # share of the updates; then the rate falls to zero linearly
    config.sac.batch_size = 128
    config.sac.discount = 0.99
    config.sac.polyak = 0.005
    config.sac.actor_average = 0.001
    config.sac.target_entropy_per_dim = 1.0
    config.rnd = config_dict.ConfigDict()  # of reward "rnd" only
    config.rnd.hidden = (256, 256)
    config.rnd.features = 64
    config.rnd.learning_rate = 1e-4
    config.rnd.clip = 5.0
    config.rnd.running_rate = 1e-3
    config.update(LADDERS[name])
    return config
