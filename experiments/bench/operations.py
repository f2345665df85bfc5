"""Multiply-adds of the matmuls in a decision, a training step or an update of a critic.

Counted are the matmuls of one environment, without padding; elementwise work, softmax and
normalisation are not counted. XLA's own count is of no use here: it counts the body of a loop once,
however often it runs, and candidates are computed in chunks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtm_jax.config import CriticConfig, ModelConfig, PlanConfig


def policy(model: ModelConfig) -> int:
    """Count a decision of rcbc: a full pass that predicts the modes of the actions."""
    spec = next(m for m in model.modalities if m.name == "actions")
    spread = model.window * model.width * spec.features if spec.head == "tanh_normal" else 0
    return full_pass(model, ("actions",)) - spread


def goal_decision(model: ModelConfig) -> int:
    """Count a decision of m3pc_goal: a full pass that predicts states, and a policy's."""
    return full_pass(model, ("states",)) + policy(model)


def training_step(model: ModelConfig, batch_size: int) -> int:
    """Count a training step: the backward pass costs twice as much as the forward pass.

    The first matmuls need no gradient with respect to their inputs, which are the raw tokens.
    """
    every = {m.name: model.window for m in model.modalities}
    passes = 3 * full_pass(model, tuple(every)) - _embedding(model, every)
    return batch_size * passes


def decision(model: ModelConfig, plan: PlanConfig, critic: CriticConfig | None = None) -> int:
    """Count a planned decision with a full window.

    Args:
        model: the model.
        plan: options of the plan; `pruned` chooses the way to compute it.
        critic: the critic that values the candidates, under guidance "critic".
    """
    world = _pruned_world if plan.pruned else _plain_world
    features = {m.name: m.features for m in model.modalities}
    choice = plan.candidates * features["actions"]
    if plan.guidance == "critic":
        inputs = features["states"] + features["actions"]
        widths = (inputs, *critic.hidden, 1)
        rows = critic.members * plan.candidates * plan.horizon
        choice += rows * sum(a * b for a, b in zip(widths[:-1], widths[1:], strict=True))
    return world(model, plan) + choice


def critic_update(critic: CriticConfig, obs_dim: int, action_dim: int) -> int:
    """Count an IQL update without the policy: Q and V are evaluated once, and each is trained once.

    Training costs three times the forward pass, less the gradient with respect to the inputs.
    """

    def network(inputs: int) -> int:
        widths = (inputs, *critic.hidden, 1)
        passed = sum(a * b for a, b in zip(widths[:-1], widths[1:], strict=True))
        return 4 * passed - inputs * widths[1]

    return critic.batch_size * (critic.members * network(obs_dim + action_dim) + network(obs_dim))


def full_pass(
    model: ModelConfig, read: Sequence[str], candidates: int = 1, own: Sequence[str] = ()
) -> int:
    """Count `Model.apply` on a window of each of N candidates.

    Args:
        model: the model.
        read: modalities whose predictions are used.
        candidates: N.
        own: modalities that differ between candidates; the others are embedded once.
    """
    width, slots = model.width, {m.name: model.window for m in model.modalities}
    tokens = sum(model.window * m.tokens_per_step for m in model.modalities)
    layers = model.encoder_layers + model.decoder_layers
    each = layers * _layer(model, tokens, tokens) + tokens * width**2
    each += _heads(model, {name: slots[name] for name in read})
    shared = {name: n for name, n in slots.items() if name not in own}
    differing = {name: n for name, n in slots.items() if name in own}
    return candidates * (each + _embedding(model, differing)) + _embedding(model, shared)


def query(
    model: ModelConfig,
    shared: Mapping[str, int],
    own: Mapping[str, int],
    asked: Mapping[str, int],
    candidates: int = 1,
) -> int:
    """Count `Model.query`.

    Args:
        model: the model.
        shared: modality -> number of visible tokens that all candidates share.
        own: modality -> number of visible tokens of each candidate itself.
        asked: modality -> number of hidden tokens to predict.
        candidates: N.
    """
    heads = _heads(model, asked)
    seen, questions = sum(shared.values()) + sum(own.values()), sum(asked.values())
    return (
        _embedding(model, shared)
        + candidates * (_embedding(model, own) + heads)
        + _encode(model, sum(shared.values()), sum(own.values()), candidates)
        + _read(model, seen, questions, candidates)
    )


def _pruned_world(model: ModelConfig, plan: PlanConfig) -> int:
    n, h = plan.candidates, plan.horizon
    past = {"states": min(plan.history + 1, model.window)}
    past |= {"actions": past["states"] - 1} if plan.history else {}
    total = query(model, past | {"returns": model.window}, {}, {"actions": h})
    later, own = {"states": h - 1}, {"actions": h}
    outcomes = {"rewards": h - 1} | ({"returns": h} if plan.guidance == "returns" else {})
    if plan.readout == "rp" and h > 1:
        total += query(model, past, own, later, n)
        own |= later
    elif plan.guidance == "critic":
        outcomes |= later
    return total + (query(model, past, own, outcomes, n) if any(outcomes.values()) else 0)


def _plain_world(model: ModelConfig, plan: PlanConfig) -> int:
    n, scored = plan.candidates, _scored(plan)
    proposals = full_pass(model, ("actions",))
    if plan.readout == "fd":
        return proposals + full_pass(model, scored, n, ("actions",))
    states = full_pass(model, ("states",), n, ("actions",))
    later = tuple(name for name in scored if name != "states")
    return proposals + states + full_pass(model, later, n, ("states", "actions"))


def _scored(plan: PlanConfig) -> tuple[str, ...]:
    """List the predictions that utilities are computed from."""
    return ("rewards", "returns") if plan.guidance == "returns" else ("rewards", "states")


def _embedding(model: ModelConfig, tokens: Mapping[str, int]) -> int:
    """Count the embedding of tokens (modality -> number; steps of categorical modalities)."""
    inputs = {m.name: m.features * m.tokens_per_step for m in model.modalities}
    return sum(n * inputs[name] * model.width for name, n in tokens.items())


def _heads(model: ModelConfig, tokens: Mapping[str, int]) -> int:
    """Count the output heads of modality -> number of steps."""
    specs, width = {m.name: m for m in model.modalities}, model.width

    def one(name: str) -> int:
        spec = specs[name]
        if spec.head == "tanh_normal":  # location and spread
            return 2 * width * spec.features
        return spec.tokens_per_step * (width**2 + width * spec.features)

    return sum(n * one(name) for name, n in tokens.items())


def _layer(model: ModelConfig, tokens: int, keys: int) -> int:
    """Count a transformer layer on `tokens` tokens that attend to `keys` keys."""
    return 3 * tokens * model.width**2 + _update(model, tokens, keys)


def _update(model: ModelConfig, tokens: int, keys: int) -> int:
    """Count a transformer layer after the projection of queries, keys and values."""
    attention = 2 * tokens * keys * model.width
    return attention + tokens * (1 + 2 * model.ffn_multiplier) * model.width**2


def _encode(model: ModelConfig, shared: int, own: int, candidates: int) -> int:
    """Count the encoder; its first layer projects the tokens that candidates share only once."""
    tokens = shared + own
    first = 3 * (shared + candidates * own) * model.width**2
    later = (model.encoder_layers - 1) * _layer(model, tokens, tokens)
    return first + candidates * (_update(model, tokens, tokens) + later)


def _read(model: ModelConfig, seen: int, asked: int, candidates: int) -> int:
    """Count the decoder; its last layer updates only the tokens that are asked for."""
    width, masks = model.width, model.window * len(model.modalities)
    entry = (candidates * seen + masks) * width**2
    earlier = (model.decoder_layers - 1) * _layer(model, masks + seen, masks + seen)
    distinct = 1 if model.decoder_layers == 1 else candidates  # of the mask tokens
    keys = distinct * 3 * masks * width**2 + candidates * 2 * seen * width**2
    # Logits between mask tokens are the same for all candidates and computed once.
    saved = (candidates - distinct) * asked * masks * width
    return entry + candidates * (earlier + _update(model, asked, masks + seen)) + keys - saved
