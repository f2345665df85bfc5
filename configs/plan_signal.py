"""Measure what a planner has to choose by: do its predictions tell good actions from bad ones?

python -m experiments.plan_signal --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0

hopper-medium-replay, preset small, seed 0: the rank correlation of utilities with real returns is
-0.02 +- 0.04 for M3PC-M and 0.04 +- 0.05 for M3PC-Q (results/m3pc_signal.jsonl).
"""

from ml_collections import config_dict

from configs import common


def get_config():
    config = config_dict.ConfigDict()
    config.run = ""  # run folder of the pretraining
    config.seed = 0  # seed of the windows, episodes and candidates

    # Sensitivity, on held-out data
    config.windows = 2_000  # held-out windows

    # Ranking, in the simulator
    config.moments = 32  # states at which plans are made
    config.first_step, config.last_step = 20, 300  # first and last step where they may lie
    config.candidates = 64  # candidates of a plan, all of which are executed
    config.steps_after = 100  # steps of the policy after each candidate

    # Planning
    config.plan = config_dict.ConfigDict(common.PLAN)
    config.plan.target_fraction = 1.0  # return to aim for: 0 is the data's mean, 1 its best
    config.ways = config_dict.ConfigDict(ways())  # this way only
    config.only = ()  # names of the ways to measure; empty: all
    return config


def ways() -> dict[str, dict]:
    """Ways to plan, by name: what each has besides the options of `plan`."""
    m = {
        "method": "m3pc_m",  # planning method
        **common.PLAN_M,
    }
    return {
        "m": m,
        "m_fd": m | {"readout": "fd"},
        "m_undiscounted": m | {"discount": 1.0},
        "m_fd_undiscounted": m | {"readout": "fd", "discount": 1.0},
        "v": {"method": "m3pc_v"} | common.plan_v(),
        "q": _q(),
        "q_rp": _q(readout="rp"),
        "q_first": _q(lambda_=0.0),
    }


def _q(**options):
    return {"method": "m3pc_q"} | common.plan_q() | options
