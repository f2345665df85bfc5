"""Measure what planning has to choose by.

python -m experiments.plan_signal --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0
"""

from ml_collections import config_dict

from configs import common


def _q(**settings):
    return {"method": "m3pc_q"} | common.plan_q() | settings


M = {"method": "m3pc_m"} | common.PLAN_M
# Name -> a way to plan: what it has besides `plan`, or instead.
WAYS = {
    "m": M,
    "m_fd": M | {"readout": "fd"},
    "m_undiscounted": M | {"discount": 1.0},
    "m_fd_undiscounted": M | {"readout": "fd", "discount": 1.0},
    "q": _q(),
    "q_rp": _q(readout="rp"),
    "q_first": _q(lambda_=0.0),
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
    config.plan = config_dict.ConfigDict(common.PLAN)
    config.plan.target_fraction = 1.0  # of the best return in the training data
    config.ways = config_dict.ConfigDict(WAYS)  # each has these besides plan
    config.only = ()  # names of the ways to measure; none: all
    return config
