"""The tables and figures of MTM (Wu et al., ICML 2023), one study each: what one model can do.

study            compares                                                             there
capabilities     one MTM, specialised ones and MLPs as BC, RCBC, ID and FD            tables 2, A.1
masking          training masks, by RCBC                                              figure 4
heteromodal      actions in 1% of the episodes, with and without the other states     figure 5
data_efficiency  shares of the data: MTM, heteromodal MTM, MLP                        figure 6
window_length    windows of 2 to 32 steps                                             figure D.1

python -m experiments.mtm_study --config.study=capabilities
python -m experiments.mtm_study --config.study=heteromodal --config.quick=True
python -m experiments.mtm_study --config.study=masking --config.report=True

Models are shared between studies, and what is done is not done again. What each costs, and what it
prints: docs/roles.md.
"""

from typing import NamedTuple

from ml_collections import config_dict

from configs import pretrain

unset = config_dict.placeholder


def get_config():
    config = config_dict.ConfigDict()
    config.study = "capabilities"  # name in STUDIES
    config.out = ""  # folder of all runs; empty: runs/mtm_study, by variant and with -quick
    config.quick = False  # True: one data set, one seed, few steps, episodes and values
    config.results = ""  # file of rows whose table and figure are made, and nothing else is done
    config.report = False  # print the table of what is there, and say what remains
    config.figure = ""  # PNG file; empty: <study>.png in the folder of all runs

    # What is compared
    config.names = ()  # data sets; empty: those of the study
    config.recipes = ()  # recipes of the study; empty: all of them
    config.actings = ()  # ways of acting and questions; empty: all of each recipe
    config.variant = "mtm"  # variant of configs/pretrain.py: mtm or m3pc
    config.preset = "small"  # preset of configs/pretrain.py that recipes change
    config.source = "builtin"  # source of the data
    config.compute_dtype = "float32"  # precision of matmuls, the same on every device
    config.seed = 0  # first training seed
    config.seeds = 4  # training seeds, which share a program
    config.steps = unset(int)  # gradient steps of every recipe; unset: those of the preset
    config.data_steps = unset(int)  # steps of built-in data; unset: those of the preset

    # Evaluation
    config.episodes = 20  # episodes of each seed and way of acting
    config.eval_seed = 1_000  # environments are reset with this seed, seed + 1, ...

    # Running
    config.parallel = 1  # pairs of recipe and data set worked on at a time, each by a process
    return config


# What `quick` changes, besides taking the first data set and the quick recipes of a study.
QUICK = {"seeds": 1, "episodes": 5, "steps": 1_500}

# Networks of the MLPs, by preset; the paper's have two layers of 1024 and batches of 4096.
MLPS = {
    "small": {"hidden": (256, 256), "batch_size": 256, "learning_rate": 1e-3},
    "base": {"hidden": (512, 512), "batch_size": 1024, "learning_rate": 5e-4},
    "paper": {"hidden": (1024, 1024), "batch_size": 4096, "learning_rate": 2e-4},
}
ROLES = ("bc", "rcbc", "id", "fd")
PERCENTS = (100, 50, 20, 10, 5, 2, 1, 0.5)
WINDOWS = (2, 4, 8, 16, 32)


def _patterns(**weights: float) -> dict:
    return {"masks.patterns.random_autoregressive": 0.0} | {
        f"masks.patterns.{name}": weight for name, weight in weights.items()
    }


# Recipe -> what it changes in configs/pretrain.py. The MLPs take their data alone from there.
RECIPES = {
    "mtm": {},
    **{f"only_{role}": _patterns(**{role: 1.0}) for role in ROLES},
    **{f"mlp_{role}": {} for role in ROLES},
    "random": _patterns(random=1.0),
    "mixture": pretrain.ROLES["prompts"],
    **{f"window_{t}": {"model.window": t, "eval.history": t - 1} for t in WINDOWS},
    **{f"mtm_{p}": {"data.episodes_fraction": p / 100} for p in PERCENTS[1:]},
    **{f"mlp_rcbc_{p}": {"data.episodes_fraction": p / 100} for p in PERCENTS[1:]},
    # Half of each batch has actions, and half of the masks are those of inverse dynamics.
    **{
        f"hetero_{p}": {
            "data.actions_fraction": p / 100,
            "data.labelled_share": 0.5,
            "masks.patterns.id": 1.0,
        }
        for p in PERCENTS[1:]
    },
}
MLP_ROLES = {name: name.split("_")[1] for name in RECIPES if name.startswith("mlp_")}

# Way of acting -> method, what it changes in configs/m3pc_offline.py, and nothing to compare with.
ACTINGS = {name: (name, {}, "") for name in ("bc", "rcbc", "two_stage")}


class Study(NamedTuple):
    """One study.

    Attributes:
        names: its data sets.
        recipes: recipe -> ways of acting, and questions of `training.held_out`.
        quick: the recipes that are enough for a first look.
        bars: label of a bar -> (recipe, way of acting).
        curves: label of a line -> value on the axis -> (recipe, way of acting).
        axis: what the values are; empty: the figure has bars.
    """

    names: tuple[str, ...]
    recipes: dict[str, tuple[str, ...]]
    quick: tuple[str, ...] = ()
    bars: dict[str, tuple[str, str]] = {}
    curves: dict[str, dict[float, tuple[str, str]]] = {}
    axis: str = ""


def _curves() -> dict[str, dict[float, tuple[str, str]]]:
    whole = {"mtm": ("mtm", "rcbc"), "mlp": ("mlp_rcbc", "rcbc")}
    lines = {"heteromodal mtm": {p: (f"hetero_{p}", "two_stage") for p in PERCENTS[1:]}}
    for label, prefix in (("mtm", "mtm"), ("mlp", "mlp_rcbc")):
        rest = {p: (f"{prefix}_{p}", "rcbc") for p in PERCENTS[1:]}
        lines[label] = {PERCENTS[0]: whole[label]} | rest
    return lines


def _recipes(curves: dict) -> dict[str, tuple[str, ...]]:
    return {recipe: (acting,) for line in curves.values() for recipe, acting in line.values()}


_WINDOW_CURVES = {"rcbc": {t: (f"window_{t}", "rcbc") for t in WINDOWS}}
STUDIES = {
    "capabilities": Study(
        names=("hopper-expert", "hopper-medium-replay"),
        recipes={
            "mtm": ("bc", "rcbc", "id", "fd", "fd_alone"),
            **{f"only_{role}": (role,) for role in ("bc", "rcbc", "id")},
            "only_fd": ("fd", "fd_alone"),
            **{f"mlp_{role}": (role,) for role in ROLES},
        },
    ),
    "masking": Study(
        names=("hopper-medium-replay", "walker2d-medium-replay"),
        recipes=dict.fromkeys(("random", "mtm", "only_rcbc", "mixture"), ("rcbc",)),
        bars={
            "random": ("random", "rcbc"),
            "autoregressive": ("mtm", "rcbc"),
            "rcbc": ("only_rcbc", "rcbc"),
            "mixture": ("mixture", "rcbc"),
        },
    ),
    "heteromodal": Study(
        names=("hopper-expert", "halfcheetah-expert"),
        recipes={
            "mlp_rcbc_1": ("rcbc",),
            "mtm_1": ("rcbc",),
            "hetero_1": ("rcbc", "two_stage"),
            "mtm": ("bc", "rcbc"),  # the oracle: all actions
        },
        bars={
            "MLP on 1%": ("mlp_rcbc_1", "rcbc"),
            "MTM on 1%": ("mtm_1", "rcbc"),
            "heteromodal": ("hetero_1", "rcbc"),
            "two stages": ("hetero_1", "two_stage"),
            "oracle, bc": ("mtm", "bc"),
            "oracle, rcbc": ("mtm", "rcbc"),
        },
    ),
    "data_efficiency": Study(
        names=("hopper-expert",),
        recipes=_recipes(_curves()),
        quick=("mtm", "mlp_rcbc", *(f"{kind}_1" for kind in ("mtm", "hetero", "mlp_rcbc"))),
        curves=_curves(),
        axis="share of the episodes (%)",
    ),
    "window_length": Study(
        names=("walker2d-medium-replay",),
        recipes=_recipes(_WINDOW_CURVES),
        quick=("window_2", "window_8"),
        curves=_WINDOW_CURVES,
        axis="steps of the window",
    ),
}

# MTM's tables 2 and A.1: data set -> role -> MLP, specialised MTM, MTM; on D4RL's own data.
PAPER = {
    "hopper-expert": {
        "bc": ("111.14 ± 0.33", "111.81 ± 0.18", "107.35 ± 7.77"),
        "rcbc": ("111.17 ± 0.56", "112.64 ± 0.47", "112.49 ± 0.37"),
        "id": ("0.009", "0.013", "0.050 ± 0.026"),
        "fd": ("0.072", "0.517 ± 0.025", "0.088 ± 0.049"),
    },
    "hopper-medium-replay": {
        "bc": ("35.63 ± 6.27", "36.17 ± 4.09", "29.46 ± 6.74"),
        "rcbc": ("88.61 ± 1.68", "93.30 ± 0.33", "92.95 ± 1.51"),
        "id": ("0.240 ± 0.028", "0.219 ± 0.008", "0.534 ± 0.009"),
        "fd": ("2.179 ± 0.052", "3.310 ± 0.425", "0.493 ± 0.030"),
    },
    "walker2d-medium-replay": {
        "bc": ("23.39 ± 2.75", "48.45 ± 2.84", "21.98 ± 2.77"),
        "rcbc": ("72.85 ± 5.23", "78.33 ± 2.11", "77.32 ± 1.79"),
        "id": ("0.532 ± 0.017", "0.493 ± 0.018", "0.921 ± 0.032"),
        "fd": ("1.224 ± 0.011", "0.883 ± 0.011", "0.446 ± 0.016"),
    },
    "halfcheetah-expert": {
        "bc": ("93.14 ± 0.16", "95.21 ± 0.44", "94.19 ± 0.21"),
        "rcbc": ("94.16 ± 0.35", "95.12 ± 0.64", "94.83 ± 0.72"),
        "id": ("0.001", "0.003", "0.009 ± 0.001"),
        "fd": ("0.009", "0.018 ± 0.003", "0.005 ± 0.001"),
    },
}
