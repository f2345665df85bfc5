"""Frozen settings of the programs. The settings of experiments live in `configs/`, not here."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from mtm_jax.errors import UserError
from mtm_jax.types import MODALITIES, ModalitySpec


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise UserError(message)


# Precisions to act in; the empty one is that of the training.
PRECISIONS = ("", "float32", "bfloat16")


def _either(choices: tuple[str, ...]) -> str:
    return " or ".join(choice or "''" for choice in choices)


def _check_network(hidden: tuple[int, ...], learning_rate: float) -> None:
    _require(
        len(hidden) > 0 and all(isinstance(n, int) and n >= 1 for n in hidden),
        f"hidden is {hidden}; it must be a tuple of layer widths, each at least 1",
    )
    _require(
        0 < learning_rate < math.inf,
        f"learning_rate is {learning_rate}; it must be positive and finite",
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The masked trajectory model: MTM appendix C, M3PC table 4."""

    modalities: tuple[ModalitySpec, ...]  # in the order of MODALITIES
    window: int = 8  # T, steps of a trajectory that the model sees at once
    width: int = 512  # C, features of a token inside the transformer
    heads: int = 4  # attention heads of a layer
    encoder_layers: int = 2
    decoder_layers: int = 1
    ffn_multiplier: int = 4  # hidden units of the feed-forward network, as a multiple of the width
    dropout: float = 0.1  # probability of dropping an activation in training
    # Precision of matmuls; parameters, normalisation, softmax and losses stay float32.
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    positions: Literal["released", "orthogonal"] = "released"  # fixed embedding of window slots
    remat: bool = False  # recompute (rematerialise) activations in the backward pass

    def __post_init__(self):
        names = tuple(m.name for m in self.modalities)
        ordered = tuple(m for m in MODALITIES if m in names)
        _require(
            names == ordered and len(names) > 0,
            f"model modalities are {names}; expected a selection of {MODALITIES} in that order",
        )
        for spec in self.modalities:
            for name in ("features", "tokens_per_step"):
                value = getattr(spec, name)
                _require(value >= 1, f"{name} of {spec.name} is {value}; it must be at least 1")
        for name in ("heads", "encoder_layers", "decoder_layers", "ffn_multiplier"):
            value = getattr(self, name)
            _require(value >= 1, f"model {name} is {value}; it must be at least 1")
        _require(self.width >= 2, f"model width is {self.width}; it must be at least 2")
        _require(
            self.width % self.heads == 0 and self.width % 2 == 0,
            f"model width {self.width} must be even and a multiple of the {self.heads} heads",
        )
        _require(self.window >= 1, f"window is {self.window} steps; it must be at least 1")
        _require(0.0 <= self.dropout < 1.0, f"dropout is {self.dropout}; it must be in [0, 1)")
        _require(
            self.positions in ("released", "orthogonal"),
            f"positions are {self.positions!r}; choose 'released' or 'orthogonal'",
        )
        _require(
            self.positions == "released" or self.window <= self.width,
            f"a window of {self.window} slots cannot have orthogonal positions in a width of "
            f"{self.width}; choose a shorter window or positions='released'",
        )
        _require(
            self.compute_dtype in ("float32", "bfloat16"),
            f"compute_dtype is {self.compute_dtype!r}; choose 'float32' or 'bfloat16'",
        )


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """The distribution of training masks.

    Attributes:
        patterns: pattern name -> weight; "random_autoregressive", "random" or a prompt's name.
        fractions: visible fractions of the random subsets, one is drawn per modality.
        modality_weights: modality -> weight of m*, the modality of the autoregressive token.
    """

    patterns: tuple[tuple[str, float], ...] = (("random_autoregressive", 1.0),)
    fractions: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
    modality_weights: tuple[tuple[str, float], ...] = (
        ("states", 0.2),
        ("returns", 0.1),
        ("actions", 0.6),
        ("rewards", 0.1),
    )

    def __post_init__(self):
        for name, weights in (
            ("patterns", self.patterns),
            ("modality_weights", self.modality_weights),
        ):
            values = [w for _, w in weights]
            _require(
                len(values) > 0 and min(values) >= 0 and 0 < sum(values) < math.inf,
                f"mask {name} are {dict(weights)}; weights must be finite, not negative and not "
                "all zero",
            )
        _require(
            len(self.fractions) > 0 and all(0.0 <= f <= 1.0 for f in self.fractions),
            f"visible fractions are {self.fractions}; each must be in [0, 1]",
        )


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The action loss of a tanh_normal head; other heads have no settings."""

    entropy_constraint: bool = True  # False: train by the likelihood alone (M3PC table 6)
    entropy_target: float = -3.0  # beta of M3PC equation 2, the lower bound of the entropy in nats
    # The entropy of the whole action, or its mean per dimension as in the released code (F4).
    entropy_reduction: Literal["joint", "per_dimension"] = "joint"
    entropy_samples: int = 4  # K, reparameterised samples of the entropy estimate
    initial_sigma: float = 0.1  # first value of the multiplier of the entropy constraint
    sigma_learning_rate: float = 1e-4  # step size of the multiplier, under Adam

    def __post_init__(self):
        _require(
            self.entropy_samples >= 1,
            f"entropy_samples is {self.entropy_samples}; it must be at least 1",
        )
        _require(
            math.isfinite(self.entropy_target),
            f"entropy_target is {self.entropy_target}; it must be finite",
        )
        for name in ("initial_sigma", "sigma_learning_rate"):
            value = getattr(self, name)
            _require(0 < value < math.inf, f"{name} is {value}; it must be positive and finite")
        _require(
            self.entropy_reduction in ("joint", "per_dimension"),
            f"entropy_reduction is {self.entropy_reduction!r}; choose 'joint' or 'per_dimension'",
        )


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay to zero: MTM table C.2, M3PC table 4.

    The average is Polyak's, over the steps; the papers have none.
    """

    learning_rate: float = 1e-4  # peak, reached after the warm-up
    warmup_steps: int = 40_000  # steps of linear warm-up from zero
    total_steps: int = 140_000  # steps of the run, after which a cosine is zero
    schedule: Literal["cosine", "constant"] = "cosine"  # of the learning rate after the warm-up
    weight_decay: float = 0.005  # decoupled, on matrices only
    b1: float = 0.9  # decay rate of the first moment
    b2: float = 0.999  # decay rate of the second moment
    clip_norm: float = 0.0  # largest global gradient norm; 0: no clipping
    average: float = 0.0  # decay rate of the running average of the parameters; 0: none

    def __post_init__(self):
        _require(
            self.total_steps >= 1 and 0 <= self.warmup_steps <= self.total_steps,
            f"warmup_steps {self.warmup_steps} and total_steps {self.total_steps}: "
            "the warm-up must fit into the run, and the run must have at least one step",
        )
        rate = self.learning_rate
        _require(0 < rate < math.inf, f"learning_rate is {rate}; it must be positive and finite")
        for name in ("weight_decay", "clip_norm"):
            value = getattr(self, name)
            _require(
                0 <= value < math.inf, f"{name} is {value}; it must be finite and not negative"
            )
        for name in ("b1", "b2", "average"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"{name} is {value}; it must be in [0, 1)")
        _require(
            self.schedule in ("cosine", "constant"),
            f"schedule is {self.schedule!r}; choose 'cosine' or 'constant'",
        )


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """One pretraining program."""

    model: ModelConfig
    masks: MaskConfig = MaskConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    batch_size: int = 2048  # windows per optimiser step
    micro_batches: int = 1  # sequential parts of a batch, whose gradients are accumulated
    # Standard deviation of noise on the visible states, in token units; targets stay as they are.
    state_noise: float = 0.0
    # Generator of dropout and noise; windows and masks are drawn with threefry.
    prng: Literal["threefry", "rbg"] = "threefry"

    def __post_init__(self):
        for name in ("batch_size", "micro_batches"):
            value = getattr(self, name)
            _require(value >= 1, f"{name} is {value}; it must be at least 1")
        _require(
            self.batch_size % self.micro_batches == 0,
            f"micro_batches is {self.micro_batches}, which does not divide the batch_size "
            f"{self.batch_size}; choose one that does",
        )
        noise, heads = self.state_noise, {m.name: m.head for m in self.model.modalities}
        _require(
            0 <= noise < math.inf, f"state_noise is {noise}; it must be finite and not negative"
        )
        _require(
            noise == 0 or heads.get("states", "categorical") != "categorical",
            f"state_noise is {noise}, which needs continuous states; those of this model are "
            f"{heads.get('states', 'missing')}: choose 0",
        )
        _require(
            self.prng in ("threefry", "rbg"),
            f"prng is {self.prng!r}; choose 'threefry' or 'rbg'",
        )


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """Online finetuning of a model and its critic: M3PC section 5.3 and table 4."""

    model: PretrainConfig  # its optimiser starts anew
    critic: CriticConfig
    critic_updates: int = 10  # updates of the critic for one of the model; 0: the critic rests
    online_after: int = 5_000  # online transitions from which on they are half of a batch

    def __post_init__(self):
        for name in ("critic_updates", "online_after"):
            value = getattr(self, name)
            _require(value >= 0, f"{name} is {value}; it must not be negative")


@dataclasses.dataclass(frozen=True)
class MLPConfig:
    """A network for one role alone, the baseline of MTM (table 2)."""

    role: Literal["bc", "rcbc", "id", "fd"]
    hidden: tuple[int, ...] = (1024, 1024)  # widths of the hidden layers
    optim: OptimConfig = OptimConfig(learning_rate=2e-4, warmup_steps=5_000)
    batch_size: int = 4096  # steps of the data per optimiser step

    def __post_init__(self):
        roles = ("bc", "rcbc", "id", "fd")
        _require(self.role in roles, f"no MLP has the role {self.role!r}; choose {_either(roles)}")
        _check_network(self.hidden, self.optim.learning_rate)
        _require(self.batch_size >= 1, f"batch_size is {self.batch_size}; it must be at least 1")


@dataclasses.dataclass(frozen=True)
class SACConfig:
    """Soft actor-critic, which trains the behaviour policies of the built-in data."""

    hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers
    learning_rate: float = 3e-4  # of Adam, for all networks
    decay_from: float = 0.5  # fraction of the updates after which the rate decays linearly to zero
    total_updates: int = 500_000
    batch_size: int = 128  # transitions per update
    discount: float = 0.99  # discount of future rewards
    polyak: float = 0.005  # step size of the target critic
    actor_average: float = 0.001  # step size of the running average of the actor
    target_entropy_per_dim: float = 1.0  # the target entropy is -A times this, in nats

    def __post_init__(self):
        _check_network(self.hidden, self.learning_rate)
        _require(self.batch_size >= 1, f"batch_size is {self.batch_size}; it must be at least 1")
        for name in ("discount", "decay_from"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"{name} is {value}; it must be in [0, 1]")
        for name in ("polyak", "actor_average"):
            value = getattr(self, name)
            _require(0 < value <= 1, f"{name} is {value}; it must be in (0, 1]")
        target = self.target_entropy_per_dim
        _require(math.isfinite(target), f"target_entropy_per_dim is {target}; it must be finite")


@dataclasses.dataclass(frozen=True)
class RNDConfig:
    """Random network distillation, the exploration bonus of the explorer."""

    hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers
    features: int = 64  # random features of a state, which the predictor learns
    learning_rate: float = 1e-4  # of Adam, for the predictor
    clip: float = 5.0  # largest normalised observation, in standard deviations
    running_rate: float = 1e-3  # smallest step of the running means and standard deviations

    def __post_init__(self):
        _check_network(self.hidden, self.learning_rate)
        _require(self.features >= 1, f"features is {self.features}; it must be at least 1")
        _require(0 < self.clip < math.inf, f"clip is {self.clip}; it must be positive and finite")
        rate = self.running_rate
        _require(0 <= rate <= 1, f"running_rate is {rate}; it must be in [0, 1]")


@dataclasses.dataclass(frozen=True)
class CriticConfig:
    """Implicit Q-learning, which trains the critic that guides planning."""

    hidden: tuple[int, ...] = (256, 256)
    members: int = 2  # networks of the Q ensemble
    # Members drawn for every update, the least of which is what V learns from; 0: all of them.
    least_of: int = 0
    layer_norm: bool = False  # normalise the hidden layers of Q and V
    terminals: bool = False  # also learn how probably a state ends the episode
    expectile: float = 0.7  # tau: V is this expectile of Q over the data's actions
    discount: float = 0.99  # discount of future rewards
    unit: float = 1.0  # unit in which values are learnt, in returns
    learning_rate: float = 3e-4  # of Adam, for all networks
    polyak: float = 0.005  # step size of the target Q
    batch_size: int = 256  # transitions per step
    total_steps: int = 1_000_000
    policy: bool = False  # also train a policy by advantage-weighted regression
    policy_temperature: float = 3.0  # beta, multiplies the advantage; 0 is behaviour cloning

    def __post_init__(self):
        _check_network(self.hidden, self.learning_rate)
        for name in ("members", "batch_size", "total_steps"):
            value = getattr(self, name)
            _require(value >= 1, f"{name} is {value}; it must be at least 1")
        _require(
            0 <= self.least_of <= self.members,
            f"least_of is {self.least_of}; it must be 1 to {self.members} members, or 0 for all",
        )
        _require(
            0 < self.expectile < 1,
            f"expectile is {self.expectile}; it must be between 0 and 1, such as 0.7",
        )
        _require(0 <= self.discount <= 1, f"discount is {self.discount}; it must be in [0, 1]")
        _require(0 < self.polyak <= 1, f"polyak is {self.polyak}; it must be in (0, 1]")
        _require(0 < self.unit < math.inf, f"unit is {self.unit}; it must be positive and finite")
        beta = self.policy_temperature
        _require(
            0 <= beta < math.inf,
            f"policy_temperature is {beta}; it must be finite and not negative",
        )


@dataclasses.dataclass(frozen=True)
class TD3Config:
    """TD3 on recorded data, by default as MTM trains it on features (MTM appendix E)."""

    hidden: tuple[int, ...] = (1024, 1024)  # widths of the hidden layers
    bounded: bool = True  # LayerNorm and tanh after the first layer, otherwise ReLU
    discount: float = 0.99  # discount of future rewards
    unit: float = 1.0  # unit in which values are learnt, in returns
    learning_rate: float = 1e-4  # of Adam, for all networks
    polyak: float = 0.01  # step size of the targets
    batch_size: int = 1024  # transitions per update
    total_steps: int = 100_000
    noise: float = 0.2  # standard deviation of the noise on actions, which are in [-1, 1]
    noise_clip: float = 0.3  # largest noise on an action
    actor_noise: bool = True  # also on the actions that the actor learns by, not only on targets
    actor_value: Literal["least", "first"] = "least"  # of the twin critics, for the actor
    target_actor: bool = False  # targets act by a slow copy of the actor
    policy_delay: int = 1  # critic updates for each update of the actor and the targets
    # TD3+BC: weight of values, relative to the squared distance to the data's actions; 0 clones
    # behaviour. None: values alone.
    alpha: float | None = None

    def __post_init__(self):
        _check_network(self.hidden, self.learning_rate)
        for name in ("batch_size", "total_steps", "policy_delay"):
            value = getattr(self, name)
            _require(value >= 1, f"{name} is {value}; it must be at least 1")
        for name in ("noise", "noise_clip", *(("alpha",) if self.alpha is not None else ())):
            value = getattr(self, name)
            _require(
                0 <= value < math.inf, f"{name} is {value}; it must be finite and not negative"
            )
        _require(0 <= self.discount <= 1, f"discount is {self.discount}; it must be in [0, 1]")
        _require(0 < self.polyak <= 1, f"polyak is {self.polyak}; it must be in (0, 1]")
        _require(0 < self.unit < math.inf, f"unit is {self.unit}; it must be positive and finite")
        _require(
            self.actor_value in ("least", "first"),
            f"actor_value is {self.actor_value!r}; choose 'least' or 'first'",
        )


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """Acting by a prompt: behaviour cloning, conditioned on a return or not (MTM section 3.3)."""

    # w of the guidance between the prompts (CFGRL, arXiv 2505.23458): actions are distributed
    # around bc + w (rcbc - bc), before the tanh. 1 is rcbc, and needs no second pass.
    guidance: float = 1.0
    action: Literal["mode", "mean", "sample"] = "mode"  # of the predicted distribution
    temperature: float = 1.0  # multiplies the standard deviation when actions are drawn
    # Slots at which rcbc sees the target return: all of the window, or the present one alone.
    returns_shown: Literal["window", "present"] = "window"
    compute_dtype: Literal["", "float32", "bfloat16"] = ""  # precision of matmuls; "": as trained

    def __post_init__(self):
        w, temperature = self.guidance, self.temperature
        _require(math.isfinite(w), f"prompt guidance is {w}; it must be finite")
        _require(
            0 < temperature < math.inf,
            f"prompt temperature is {temperature}; it must be positive and finite",
        )
        for name, choices in (
            ("action", ("mode", "mean", "sample")),
            ("returns_shown", ("window", "present")),
            ("compute_dtype", PRECISIONS),
        ):
            value = getattr(self, name)
            _require(value in choices, f"prompt {name} is {value!r}; choose {_either(choices)}")


DEFAULT_PROMPT = PromptConfig()


@dataclasses.dataclass(frozen=True)
class GoalConfig:
    """Acting towards goals: backward M3PC and its baseline, one mask (M3PC section 4.2)."""

    # The goal is the first one that is at least so many steps away; the last one stays so far away.
    ahead: int = 1
    # A goal that is farther away is aimed at as if it were so many steps away. None: it has its own
    # slot, and goals that lie farther apart than the window reaches are refused.
    reach: int | None = None
    # Rounds in which a goal's dimensions that are not given are taken from its reconstruction.
    inpainting: int = 2
    # States on the way: as predicted, or shifted by the known errors at the present and the goal.
    path: Literal["anchored", "predicted"] = "anchored"
    compute_dtype: Literal["", "float32", "bfloat16"] = ""  # precision of matmuls; "": as trained

    def __post_init__(self):
        ahead, reach, rounds = self.ahead, self.reach, self.inpainting
        _require(ahead >= 1, f"goal ahead is {ahead}; it must be at least 1 step")
        _require(
            reach is None or reach >= ahead,
            f"goal reach is {reach}; it must be at least ahead, {ahead} steps",
        )
        _require(rounds >= 0, f"goal inpainting is {rounds}; it must be at least 0")
        for name, choices in (
            ("path", ("anchored", "predicted")),
            ("compute_dtype", PRECISIONS),
        ):
            value = getattr(self, name)
            _require(value in choices, f"goal {name} is {value!r}; choose {_either(choices)}")


# Defaults of plans that depend on their guidance. Predicted returns distinguish candidates less
# well than a critic does, so plans guided by them stay closer to the policy. Without guidance, all
# candidates of such a plan weigh the same.
BY_GUIDANCE: dict[str, dict[str, Any]] = {
    "none": {"discount": 0.99, "xi": 0.0, "spread": 0.5, "readout": "fd"},
    "returns": {"discount": 0.99, "xi": 1.0, "spread": 0.5, "readout": "rp"},
    "value": {"xi": 1.0, "spread": 0.5, "readout": "fd"},
    "critic": {"xi": 1.0, "spread": 1.0, "readout": "fd"},
}


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """Forward M3PC: algorithm 1 and equation 3."""

    # What values steps: nothing (the control), predicted returns (M3PC-M), a critic's V of the
    # predicted states, or its Q (M3PC-Q).
    guidance: Literal["none", "returns", "value", "critic"] = "returns"
    candidates: int = 625  # N, action sequences to choose from
    history: int = 4  # past steps that the model sees
    horizon: int = 4  # h, planned steps, including the present one
    lambda_: float = 0.6  # weight of longer n-step returns
    discount: float | None = None  # gamma; None: the critic's, or 0.99 under "returns"
    xi: float | None = None  # multiplies the utilities in the softmax; None: 1, or 0 under "none"
    xi_unit: Literal["std", "raw"] = "std"  # of utilities: their standard deviation, or returns
    # Multiplies the standard deviations of the policy; None: 1 under "critic", else 0.5.
    spread: float | None = None
    # The prompt under which rewards and returns are read; None: "rp" under "returns", else "fd".
    readout: Literal["fd", "rp"] | None = None
    # The least member of a critic's ensemble values a step; or its mean less so many standard
    # deviations over the members. For guidance "critic".
    pessimism: float | None = None
    # Rewards and values after a predicted state count as far as the episode is expected to get
    # there. The critic says how probably a state ends it.
    falls: Literal["ignored", "expected"] = "ignored"
    fall_penalty: float = 0.0  # what an expected fall costs, in units of the return
    current_state: Literal["true", "reconstructed"] = "true"  # s_t in rollouts
    convention: Literal["equation3", "released"] = "equation3"  # F7, F10
    pruned: bool = True  # compute only the tokens that are needed; the numbers are the same
    compute_dtype: Literal["", "float32", "bfloat16"] = ""  # precision of matmuls; "": as trained

    def __post_init__(self):
        self._check_choice("guidance", tuple(BY_GUIDANCE))
        for name, value in BY_GUIDANCE[self.guidance].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name in ("candidates", "horizon"):
            value = getattr(self, name)
            _require(value >= 1, f"plan {name} is {value}; it must be at least 1")
        _require(self.history >= 0, f"plan history is {self.history}; it must not be negative")
        for name in ("lambda_", "discount"):
            value = getattr(self, name)
            ok = value is None or 0 <= value <= 1
            _require(ok, f"plan {name} is {value}; it must be in [0, 1]")
        for name in ("xi", "spread"):
            value = getattr(self, name)
            _require(
                0 <= value < math.inf, f"plan {name} is {value}; it must be finite, not negative"
            )
        _require(
            self.guidance != "none" or self.xi == 0,
            f"plan xi is {self.xi}; without guidance there are no utilities, so it must be 0",
        )
        _require(
            not (self.pruned and self.current_state == "reconstructed"),
            "plan current_state 'reconstructed' needs pruned=False: the pruned pass predicts "
            "hidden tokens only, and the present state is visible",
        )
        for name in ("pessimism", "fall_penalty"):
            value = getattr(self, name)
            ok = value is None or 0 <= value < math.inf
            _require(ok, f"plan {name} is {value}; it must be finite, not negative")
        _require(
            self.pessimism is None or self.guidance == "critic",
            f"plan pessimism is {self.pessimism}, which is for guidance 'critic', and the guidance "
            f"is {self.guidance!r}; leave it out",
        )
        _require(
            self.falls == "expected" or self.fall_penalty == 0,
            f"plan fall_penalty is {self.fall_penalty}, and falls are ignored; give "
            "falls='expected'",
        )
        self._check_choice("falls", ("ignored", "expected"))
        self._check_choice("xi_unit", ("std", "raw"))
        self._check_choice("readout", ("fd", "rp"))
        self._check_choice("current_state", ("true", "reconstructed"))
        self._check_choice("convention", ("equation3", "released"))
        self._check_choice("compute_dtype", PRECISIONS)

    @property
    def expects_falls(self) -> bool:
        """Whether utilities depend on the probabilities that states end the episode."""
        return self.falls == "expected" and self.guidance != "none"

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        _require(value in choices, f"plan {name} is {value!r}; choose {_either(choices)}")
