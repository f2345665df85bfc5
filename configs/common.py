"""What the pages share: reading NAME and its options, naming a run, options of plans."""

from __future__ import annotations

from ml_collections import config_dict

from mtm_jax.envs import registry
from mtm_jax.errors import UserError

LOCOMOTION = ("hopper", "walker2d", "halfcheetah")  # environments of the papers' first tables

# How bc and rcbc act by their prompts.
PROMPT = {
    "guidance": 1.0,  # rcbc: 0 acts like bc, 1 as predicted, more goes on in the same direction
    "action": "mode",  # of the predicted distribution: mode, mean or sample
    "temperature": 1.0,  # factor of the standard deviation of a sample
    "returns_shown": "window",  # rcbc: show the target in all of the window, or at the present step
    "compute_dtype": "",  # precision of matmuls: float32 or bfloat16; empty: as trained
}
# How M3PC plans (table 4, where xi multiplies raw utilities).
PLAN = {
    "candidates": 625,  # action sequences to choose among (N)
    "history": 4,  # past steps in view
    "horizon": 4,  # planned steps, the present one included (h)
    "lambda_": 0.6,  # weight of longer n-step returns: 0 trusts the first value, 1 the last
    "falls": "ignored",  # expected: what follows counts as far as it is reached; asks the critic
    "fall_penalty": 0.0,  # cost of an expected fall, in returns
    "current_state": "true",  # state that stands for the present: true or reconstructed
    "convention": "equation3",  # values and discount of equation3, or those of the released code
    "pruned": True,  # compute only the tokens that are needed; False: full passes, same numbers
    "compute_dtype": "",  # precision of matmuls: float32 or bfloat16; empty: as trained
}
# What differs between guidance by predicted returns (M3PC-M) and by a critic.
PLAN_M = {
    "discount": 0.99,  # discount of future rewards; unset: that of the critic
    "xi": 1.0,  # factor of the utilities in the softmax over the candidates
    "xi_unit": "std",  # unit of these utilities: std over the candidates, or raw
    "spread": 0.5,  # factor of the policy's standard deviation when candidates are drawn
    "readout": "rp",  # pass from which rewards and returns are read: fd, or rp, one of its own
}


def plan_0() -> dict:
    """Options of M3PC without guidance; a new dict each time, like all that hold a placeholder."""
    return {
        "spread": config_dict.placeholder(float),  # that of candidates; unset: that of m3pc_m
    }


def plan_v() -> dict:
    """Options of M3PC guided by the critic's values of states."""
    return {name: value for name, value in plan_q().items() if name != "pessimism"} | {
        "spread": 0.5
    }


def plan_q() -> dict:
    """Options of M3PC-Q; a new dict each time, because copies would share the placeholder."""
    return {
        "discount": config_dict.placeholder(float),
        "xi": 1.0,
        "xi_unit": "std",
        "spread": 1.0,
        "readout": "fd",
        # Of the critic's ensemble: its mean less so many standard deviations; unset: its least.
        "pessimism": config_dict.placeholder(float),
    }


def add_planning(config: config_dict.ConfigDict) -> None:
    """Add the keys of programs that evaluate plans."""
    config.eval = config_dict.ConfigDict()
    config.eval.episodes = 20  # episodes of each method
    config.eval.seed = 1_000  # environments are reset with this seed, seed + 1, ...
    config.eval.target_fraction = 1.0  # return to aim for: 0 is the data's mean, 1 its best
    config.weights = "auto"  # weights of the checkpoint: latest, average, or auto: average if any
    config.world = ""  # run folder of another model that rolls out candidates; empty: the run's own
    config.plan = config_dict.ConfigDict(PLAN)
    config.m3pc_0 = config_dict.ConfigDict(plan_0())  # candidates without guidance
    config.m3pc_m = config_dict.ConfigDict(PLAN_M)  # M3PC-M
    config.m3pc_v = config_dict.ConfigDict(plan_v())  # by the critic's values of states
    config.m3pc_q = config_dict.ConfigDict(plan_q())  # M3PC-Q


# Keys that NAME decides together with others, and how NAME says them.
RUN_NAME_KEYS = {
    "env": "ENV",
    "preset": "ENV,preset=small|base|paper",
    "variant": "ENV,variant=m3pc|mtm",
}


def name_run(config: config_dict.ConfigDict, text: str, roles: tuple[str, ...] = ()) -> None:
    """Add the keys that say which run is meant; `text` is what configs/pretrain.py was given.

    With `roles`, one of which `text` may name, there is a key for it; the first is the default.
    """
    config.run = ""  # run folder; empty: that of configs/pretrain.py:NAME with the keys below
    config.env = ""  # data set of the run that NAME stands for
    config.preset = ""  # preset of that run: small, base or paper
    config.variant = ""  # variant of that run: m3pc or mtm
    config.source = "builtin"  # source of the data of that run
    config.seed = 0  # seed of that run
    if roles:
        config.role = ""  # role that this run was trained for: goals, unified or prompts
    if text:
        choices = {"preset": ("auto", "small", "base", "paper"), "variant": ("m3pc", "mtm")}
        config.env, options = parse(text, **choices, **({"role": roles} if roles else {}))
        config.preset, config.variant = choose(options["preset"]), options["variant"]
        if roles:
            config.role = options["role"]


def parse(name: str, **choices: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Split `<env>-<level>[,option=value...]`; the first choice of an option is its default.

    Raises:
        UserError: an unknown environment, level, option or value.
    """
    env, *settings = name.split(",")
    if not env.startswith("custom"):  # data of an environment that is not in the registry
        registry.split_name(env)
    options = {key: values[0] for key, values in choices.items()}
    for setting in settings:
        key, _, value = setting.partition("=")
        if value not in choices.get(key, ()):
            known = ", ".join(f"{k}={'|'.join(v)}" for k, v in choices.items())
            raise UserError(f"unknown option {setting!r} in {name!r}; choose among {known}")
        options[key] = value
    return env, options


def choose(preset: str) -> str:
    """Resolve "auto": small on the CPU, paper on an accelerator."""
    if preset != "auto":
        return preset
    import jax  # starting a backend takes a second, which other presets need not wait for

    return "small" if jax.default_backend() == "cpu" else "paper"
