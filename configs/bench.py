"""Time training, planning and everything else on this machine.

python -m experiments.bench
python -m experiments.bench --config.sections="('training','decisions')"
python -m experiments.bench --config.stored=results/bench-cpu.json

The first command takes a quarter of an hour on two CPU cores, which ran float32 matmuls at 127
GFLOP/s (results/bench-cpu.json): a training step of width 64 takes 62 ms, a decision over 625
candidates 51 ms. docs/performance.md explains the table.
"""

from ml_collections import config_dict

from configs import common

SECTIONS = ("presets", "seeds", "training", "critic", "decisions", "collection", "peer", "parts")


def get_config():
    config = config_dict.ConfigDict()
    config.sections = SECTIONS  # sections to time

    # Models and trainings
    config.compute_dtypes = ("auto",)  # float32, bfloat16; auto: bfloat16 on accelerators only
    config.presets = ("auto",)  # small, base, paper; auto: small on the CPU, all on accelerators
    config.seeds = (2, 3, 5)  # numbers of seeds in one program, compared with one
    config.encoder_layers = 2  # encoder layers of all models except those of the presets
    config.training = config_dict.ConfigDict()
    config.training.widths = (64, 128, 128, 256, 512)  # widths, each with its batch
    config.training.batches = (128, 256, 64, 64, 64)  # windows of a step, one for each width
    config.training.other_batches = (32, 64, 256, 512)  # further batches at the first width
    config.training.other_windows = (4, 16, 32)  # further window lengths at the first width
    config.training.steps = 4  # steps per call
    config.critic = config_dict.ConfigDict()
    config.critic.widths = (256, 64, 128)  # widths of the hidden layers, with the first batch
    config.critic.batches = (256, 64, 1024)  # transitions of an update, at the first width

    # Decisions
    config.widths = (64, 128, 512)  # widths of the models that decide
    config.around = (128,)  # widths at which horizons, environments and m3pc_q vary as well
    config.compared = (128, 512)  # widths at which plans by full passes are timed as well
    config.candidates = (1, 5, 25, 125, 625, 2500)  # candidates of a plan
    config.horizons = (1, 2, 4)  # planned steps
    config.environments = (1, 4, 16)  # decisions per call
    standard = ("candidates", "history", "horizon")
    config.plan = config_dict.ConfigDict({key: common.PLAN[key] for key in standard})

    # The other sections
    config.collection_steps = 40_000  # environment steps to collect
    config.peer = config_dict.ConfigDict()
    config.peer.decisions = (128, 512)  # widths at which decisions are compared with PyTorch
    config.peer.widths = (128, 512)  # widths at which training steps are, each with its batch
    config.peer.batches = (256, 64)  # windows of a step, one for each of these widths
    config.parts = config_dict.ConfigDict()
    config.parts.widths = (64, 128, 512)  # widths at which parts are timed, each with its batch
    config.parts.batches = (128, 256, 64)  # windows of a step, one for each of these widths

    # Timing
    config.seconds = 1.0  # shortest duration of a loop; see also repeats
    config.repeats = 5  # smallest number of calls of a program, of which the median counts
    config.patience = 10.0  # seconds after which three calls are enough
    config.longest = 5.0  # leave out decisions that need more seconds at the peak rate of matmuls

    # Output
    config.results = ""  # file to write; empty: results/bench-DEVICE.json
    config.stored = ""  # file of results to print instead of timing anything
    config.figure = ""  # PNG file for the time of decisions against candidates; empty: none
    return config
