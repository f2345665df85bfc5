"""Reach goals by backward M3PC and by a single mask: motions that no data show.

M3PC (Wen et al., ICLR 2025), figures 5, 13 and 14. The name is that of a task: hopper-wiggle,
hopper-wiggle-fast, walker-split or cheetah-flip; its run is that of configs/pretrain.py with the
task's data set and role=goals.

python -m experiments.m3pc_goal --config=configs/m3pc_goal.py:hopper-wiggle
python -m experiments.m3pc_goal --config=configs/m3pc_goal.py:cheetah-flip --config.run=RUN
"""

from ml_collections import config_dict

from configs import common
from mtm_jax.envs.goals import tasks

# Keys that NAME decides together with others, and how NAME says them.
NAME_KEYS = {
    "env": "TASK",
    "task": "TASK",
    "role": "TASK,role=goals|unified|prompts",
    "preset": "TASK,preset=small|base|paper",
    "variant": "TASK,variant=m3pc|mtm",
}


def get_config(name="hopper-wiggle"):
    name, _, options = name.partition(",")
    task = tasks.find(name)
    config = config_dict.ConfigDict()
    config.task = name  # what to do
    common.name_run(config, f"{task.data},{options}" if options else task.data, ROLES)

    # The motion and its goals
    config.motion = config_dict.ConfigDict(task.settings)  # of the robot: see motions.py
    config.steps = task.steps  # steps of an episode
    config.spacing = task.spacing  # steps from one goal to the next
    config.given = task.given  # dimensions that goals give; empty: all, else the others are free
    config.goals = ""  # npz file of other goals: states, and if needed steps and given
    config.aim = config_dict.ConfigDict()
    config.aim.ahead = 1  # least steps to the goal that is aimed at
    config.aim.reach = config_dict.placeholder(int)  # most steps; unset: farther goals are refused
    config.aim.path = "anchored"  # states on the way: anchored at both ends, or as predicted
    config.aim.inpainting = 2  # rounds that fill in the dimensions that goals leave free
    config.aim.compute_dtype = ""  # precision of matmuls: float32 or bfloat16; empty: as trained

    # Evaluation
    config.eval = config_dict.ConfigDict()
    config.eval.methods = ("m3pc_goal", "goal_mask")  # methods to evaluate; bc is another
    config.eval.episodes = 10  # episodes of each method
    config.eval.seed = 1_000  # environments are reset with this seed, seed + 1, ...
    config.weights = "auto"  # weights of the checkpoint: latest, average, or auto: average if any
    config.video = True  # draw the first episodes as a video

    # Reaching states of held-out episodes
    config.reach = config_dict.ConfigDict()
    config.reach.windows = 64  # states to start from; 0: leave it out
    config.reach.distances = (2, 3, 4, 5, 6, 7)  # steps to the goal
    config.reach.seed = 0  # seed of the choice of states
    return config


ROLES = ("goals", "unified", "prompts")
