"""Compare recipes of pretraining and ways of acting so that noise cannot choose among them.

Every recipe is trained on every data set with several seeds, in one program each; every way of
acting plays the same episodes with all of them. The table has sums over the data sets, the spread
over seeds, and paired differences with 95% intervals: a difference counts where its interval leaves
out zero.

python -m experiments.arena
python -m experiments.arena --config.recipes="('default','average')" --config.parallel=6
python -m experiments.arena --config.report=True
python -m experiments.arena --config.recipes="('average',)" --config.results=FILE

On one H200, six processes side by side trained the recipe average on all data sets and evaluated it
in eight ways of acting within eleven minutes; rcbc summed to 269.9 with the average of the
parameters and to 257.1 with the latest ones (results/arena/small.jsonl; docs/results.md).
"""

from ml_collections import config_dict

from configs import common

unset = config_dict.placeholder


def get_config():
    config = config_dict.ConfigDict()
    config.out = "runs/arena"  # folder of all runs; the same command continues what is there
    config.results = ""  # file of rows whose table is printed, and nothing else is done
    config.report = False  # print the table of what is there, and say what remains

    # What is compared
    config.recipes = ("default",)  # names in RECIPES
    config.names = DATA  # data sets
    config.actings = PLANNING  # names in ACTINGS
    config.preset = "small"  # preset of configs/pretrain.py that recipes change
    config.source = "builtin"  # source of the data
    config.compute_dtype = "float32"  # precision of matmuls, the same on every device
    config.seed = 0  # first training seed
    config.seeds = 5  # training seeds, which share a program
    config.baseline = "default"  # recipe that the others are compared with
    config.steps = unset(int)  # gradient steps of every recipe; unset: its own
    config.critic_steps = unset(int)  # updates of every critic; unset: those of the preset

    # Evaluation
    config.episodes = 20  # episodes of each seed and way of acting
    config.eval_seed = 1_000  # environments are reset with this seed, seed + 1, ...
    config.candidates = 64  # action sequences to choose among, of actings that plan

    # Running
    config.parallel = 1  # pairs of recipe and data set worked on at a time, each by a process
    return config


DATA = tuple(f"{e}-{level}" for e in common.LOCOMOTION for level in ("medium", "medium-replay"))

# Ways to plan with what they are compared with.
PLANNING = ("bc", "rcbc", "m3pc_0", "m3pc_m", "m3pc_0_wide", "m3pc_q")

# Recipe -> what it changes in configs/pretrain.py.
RECIPES = {
    "default": {},
    "average": {"optim.average": 0.999},
    "constant": {"optim.average": 0.999, "optim.schedule": "constant"},
    "longer": {"optim.average": 0.999, "steps": 12_000},
    "wide": {"optim.average": 0.999, "steps": 12_000, "model.width": 128},
    "dropout": {"optim.average": 0.999, "model.dropout": 0.1},
    "noise": {"optim.average": 0.999, "data.state_noise": 0.05},
}

# Acting -> method, what it changes in configs/m3pc_offline.py, and the acting that it is compared
# with under the same recipe.
ACTINGS = {
    "bc": ("bc", {}, ""),
    "bc_mean": ("bc", {"prompt.action": "mean"}, "bc"),
    "rcbc": ("rcbc", {}, "bc"),
    "rcbc_latest": ("rcbc", {"weights": "latest"}, "rcbc"),
    "rcbc_mean": ("rcbc", {"prompt.action": "mean"}, "rcbc"),
    "rcbc_cool": ("rcbc", {"prompt.action": "sample", "prompt.temperature": 0.5}, "rcbc"),
    "rcbc_guided_1.5": ("rcbc", {"prompt.guidance": 1.5}, "rcbc"),
    "rcbc_guided_2": ("rcbc", {"prompt.guidance": 2.0}, "rcbc"),
    "rcbc_guided_3": ("rcbc", {"prompt.guidance": 3.0}, "rcbc"),
    "rcbc_present": ("rcbc", {"prompt.returns_shown": "present"}, "rcbc"),
    "rcbc_half": ("rcbc", {"eval.target_fraction": 0.5}, "rcbc"),
    "m3pc_0": ("m3pc_0", {}, "rcbc"),
    "m3pc_0_wide": ("m3pc_0", {"m3pc_0.spread": 1.0}, "rcbc"),
    "m3pc_m": ("m3pc_m", {}, "m3pc_0"),
    "m3pc_v": ("m3pc_v", {}, "m3pc_0"),
    "m3pc_q": ("m3pc_q", {}, "m3pc_0_wide"),
}
