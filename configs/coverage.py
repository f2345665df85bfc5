"""Compare the states of ExORL's walker that random actions and the explorer's ladder reach.

python -m experiments.coverage

100 000 steps of each (results/data/walker_coverage.jsonl):

source      occupied cells of the grid   particle entropy
random                           3 554               0.56
explorer                        19 857               1.27
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.actors = ""  # folder of a ladder; empty: the one that comes with this package
    config.steps = 100_000  # environment steps of each source
    config.num_envs = 16  # environments stepped together
    config.seed = 0  # seed of the environments and the actions
    config.out = "results/data/walker_coverage.jsonl"  # file to append a row per source to
    return config
