"""Compare what random actions and the explorer's ladder reach of ExORL's walker.

python -m experiments.coverage --config.out=results/data/walker_coverage.jsonl
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.actors = ""  # folder of a ladder; empty: the one that comes with this package
    config.steps = 100_000  # of each source
    config.num_envs = 16  # that are stepped together
    config.out = "results/data/walker_coverage.jsonl"  # rows are appended
    config.seed = 0
    return config
