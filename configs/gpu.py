"""Time training and planning on one accelerator, and train and evaluate one base run there.

Everything in at most `minutes`, without a network once the data are there; what has been reached
by then is kept and shown.

make gpu
python -m experiments.gpu --config.minutes=5
python -m experiments.gpu --config.preset=small --config.steps=50   # to try it out on a CPU
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.out = "runs/gpu"  # folder of timings and of the run; the same command continues the run
    config.minutes = 8.0  # time for everything
    config.timing_share = 0.5  # largest share of it that timing may take

    # Timing
    config.presets = ("small", "base", "paper")  # presets whose training steps are timed
    config.seeds = 5  # seeds in one program, compared with one
    config.candidates = 625  # candidates of a decision
    config.environments = (1, 20)  # decisions per call
    config.widths = (256,)  # widths of the models that decide

    # Run
    config.env = "hopper-medium-replay"  # data set
    config.preset = "base"  # preset of the run
    config.steps = 10_000  # gradient steps
    config.overrides = ()  # further settings of the pretraining: ('optim.average=0.999',)
    config.critic_steps = 60_000  # updates of the critic
    config.critic_discount = 0.997  # discount of the critic
    config.episodes = 20  # episodes of each method
    return config
