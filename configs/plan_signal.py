"""Measure what planning has to choose by.

python -m experiments.plan_signal --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0
"""

from ml_collections import config_dict

from experiments import presets

# A critic's discount is its own.
GUIDED = {"method": "m3pc_q", "discount": config_dict.placeholder(float)}
# Name -> how this way to plan differs from the paper's.
WAYS = {
    "m": {"method": "m3pc_m"},
    "m_rp": {"method": "m3pc_m", "readout": "rp"},
    "m_undiscounted": {"method": "m3pc_m", "discount": 1.0},
    "m_rp_undiscounted": {"method": "m3pc_m", "readout": "rp", "discount": 1.0},
    "q": GUIDED,
    "q_rp": GUIDED | {"readout": "rp"},
    "q_first": GUIDED | {"lambda_": 0.0},
}


def get_config():
    config = config_dict.ConfigDict()
    config.run = ""  # the run folder
    config.seed = 0
    config.windows = 2_000  # held-out windows
    config.moments = 32  # states in the simulator
    config.first_step, config.last_step = 20, 300  # of the episode, where these states are
    config.candidates = 64  # executed in each of them
    config.steps_after = 100  # of the policy after each candidate
    config.plan = config_dict.ConfigDict(presets.PLAN | presets.PLAN_M)
    config.plan.target_fraction = 1.0  # of the best return in the training data
    config.ways = config_dict.ConfigDict(WAYS)  # how a way differs from plan
    config.only = ()  # names of the ways to measure; none: all
    return config
