"""The peer in PyTorch computes what our programs compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import distributions, masks, tokens
from mtm_jax.agents import torch_import
from mtm_jax.config import (
    LossConfig,
    MaskConfig,
    ModelConfig,
    OptimConfig,
    PlanConfig,
    PretrainConfig,
)
from mtm_jax.models import trajectory_model as model
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import options, pruned_world
from mtm_jax.training import objective
from mtm_jax.types import ModalitySpec

torch = pytest.importorskip("torch")
from experiments.bench.pytorch import model as torch_model  # noqa: E402
from experiments.bench.pytorch import planner as torch_planner  # noqa: E402
from experiments.bench.pytorch import training as torch_training  # noqa: E402

SPECS = (
    *(ModalitySpec("states", 5), ModalitySpec("returns", 1)),
    *(ModalitySpec("actions", 2, head="tanh_normal"), ModalitySpec("rewards", 1)),
)
NAMES = [m.name for m in SPECS]
CONFIG = ModelConfig(SPECS, window=8, width=16, heads=4, dropout=0.0)
STATS = {m.name: tokens.identity_stats(m.features) for m in SPECS}


@pytest.fixture(scope="module")
def peer():
    """The peer with parameters none of which is zero."""
    torch.set_num_threads(1)  # threads that wait for each other starve beside other processes
    torch.manual_seed(0)
    peer = torch_model.Peer(CONFIG)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return peer


@pytest.fixture(scope="module")
def params(peer):
    arrays = {name: x.numpy() for name, x in peer.state_dict().items()}
    config, params = torch_import.from_torch_state_dict(arrays)
    assert config.modalities == SPECS and config.width == CONFIG.width
    return params


@pytest.fixture(scope="module")
def windows():
    rng = np.random.default_rng(0)
    drawn = {m.name: rng.normal(size=(3, 8, m.features)).astype(np.float32) for m in SPECS}
    return drawn | {"actions": np.tanh(drawn["actions"])}


def draw_mask():
    drawn = masks.draw(jax.random.key(3), MaskConfig(), 8, NAMES)
    return {m: np.asarray(x) for m, x in drawn.items()}


def as_torch(arrays):
    return {m: torch.tensor(np.asarray(x)) for m, x in arrays.items()}


def test_outputs_equal_ours_with_the_same_parameters(peer, params, windows):
    visible = draw_mask()
    with torch.no_grad():
        theirs = peer(as_torch(windows), torch_model.indices(visible, NAMES))
    everywhere = {m: jnp.broadcast_to(x, (3, 8)) for m, x in visible.items()}
    ours = model.make_model(CONFIG).apply(params, windows, everywhere)
    for name in NAMES:
        for a, b in zip(jax.tree.leaves(ours[name]), jax.tree.leaves(theirs[name]), strict=True):
            np.testing.assert_allclose(a, b.numpy(), atol=2e-5)


def test_losses_equal_ours_where_nothing_is_drawn(peer, params, windows):
    settings = PretrainConfig(CONFIG, loss=LossConfig(entropy_samples=2))
    visible = draw_mask()
    seen = torch_model.indices(visible, NAMES)
    with torch.no_grad():
        outputs = peer(as_torch(windows), seen)
        zero = torch.zeros(())
        total, _ = torch_training.loss(settings.loss, outputs, as_torch(windows), seen, zero)
    shown = {m: jnp.broadcast_to(x, (3, 8)) for m, x in visible.items()}
    everything = {m: jnp.ones((3, 8), bool) for m in NAMES}
    batch = objective.whole_batch(windows, shown, everything)
    network = model.make_model(CONFIG)
    ours = network.apply(params, windows, shown)
    batch = objective.add_noise(jax.random.key(0), settings, network, batch)
    expected, _ = objective.loss(settings, network, ours, batch, jnp.zeros(()))
    assert float(total) == pytest.approx(float(expected), rel=1e-5)


def test_the_entropy_estimate_is_ours_on_average():
    config = LossConfig(entropy_samples=20_000)
    loc, log_std = torch.tensor([[[0.3, -0.5]]]), torch.tensor([[[-1.0, 0.2]]])
    hidden, actions = torch.ones(1), torch.zeros(1, 1, 2)
    dist = torch_model.TanhNormal(loc, log_std)
    _, entropy, _ = torch_training.action_losses(config, dist, actions, hidden)
    ours = distributions.TanhNormal(jnp.array([0.3, -0.5]), jnp.array([-1.0, 0.2]))
    noise = jax.random.normal(jax.random.key(0), (20_000, 2))
    assert float(entropy) == pytest.approx(
        float(distributions.entropy(ours, noise).sum()), abs=0.05
    )


def test_predictions_and_utilities_of_candidates_equal_ours(peer, params):
    plan = PlanConfig(candidates=6, history=3, horizon=4, readout="fd")
    context = context_lib.begin(jnp.linspace(-1.0, 1.0, 5), 2, 8).replace(slot=jnp.int32(3))
    actions = jnp.tanh(jax.random.normal(jax.random.key(0), (6, 4, 2)))
    world = pruned_world.pruned_world(model.make_model(CONFIG), params, STATS, plan, 4)
    expected = world.rollout(context, actions)
    values = as_torch(context_lib.window_values(context, jnp.float32(1.0)))
    shown = torch_planner.prompt(CONFIG, "fd", 3, 7)
    with torch.no_grad():
        taken = torch.tensor(np.asarray(actions))
        rewards, returns = torch_planner.roll_out(peer, values, taken, shown, 3)
        scores = torch_planner.utilities(plan, rewards, returns, 0, 100)
        chosen = torch_planner.choose(plan, scores, taken)
    np.testing.assert_allclose(rewards.numpy(), expected.rewards, atol=2e-5)
    np.testing.assert_allclose(returns.numpy(), expected.return_tokens, atol=2e-5)
    steps = options.make_steps(plan, 100, critic_fn=None, explore=False)
    valued = steps.value_fn(None, expected, actions, context.t)
    ours = steps.score_fn(expected.rewards, valued, jnp.int32(4))
    np.testing.assert_allclose(scores.numpy(), ours, rtol=1e-4, atol=1e-3)
    weights = jax.nn.softmax((ours - ours.mean()) / ours.std())
    np.testing.assert_allclose(chosen.numpy(), weights @ actions[:, 0], atol=1e-3)


def test_proposals_follow_the_policy_of_the_same_parameters(peer, params):
    plan = PlanConfig(candidates=4000, history=3, horizon=4, spread=1.0)
    context = context_lib.begin(jnp.linspace(-1.0, 1.0, 5), 2, 8).replace(slot=jnp.int32(3))
    world = pruned_world.pruned_world(model.make_model(CONFIG), params, STATS, plan, 4)
    dist = world.policy(context, jnp.float32(1.0))
    values = as_torch(context_lib.window_values(context, jnp.float32(1.0)))
    shown = torch_planner.prompt(CONFIG, "rcbc", 3, 7)
    with torch.no_grad():
        drawn = torch_planner.propose(peer, plan, values, shown, 3)
    latent = np.arctanh(np.clip(drawn.numpy(), -1 + 1e-6, 1 - 1e-6))
    error = np.exp(np.asarray(dist.log_std)).max() * 5 / np.sqrt(4000)
    np.testing.assert_allclose(latent.mean(0), dist.loc, atol=error)


def test_masks_of_a_call_show_as_much_as_the_distribution_does():
    every = torch_training.typical_masks(MaskConfig(), 8, NAMES, 256)
    few = torch_training.typical_masks(MaskConfig(), 8, NAMES, 8)
    mean = np.mean([len(x) for x in every])
    assert np.mean([len(x) for x in few]) == pytest.approx(mean, rel=0.05)
    keys = jax.random.split(jax.random.key(1), 500)
    drawn = jax.vmap(lambda key: masks.draw(key, MaskConfig(), 8, NAMES))(keys)
    assert sum(float(x.sum(-1).mean()) for x in drawn.values()) == pytest.approx(mean, rel=0.1)


def test_steps_learn():
    rng = np.random.default_rng(0)
    optim = OptimConfig(learning_rate=1e-2, warmup_steps=0, total_steps=10)
    settings = PretrainConfig(CONFIG, optim=optim, batch_size=4)
    values = {m.name: np.tanh(rng.normal(size=(20, m.features))) for m in SPECS}
    values = {m: x.astype(np.float32) for m, x in values.items()}
    call = torch_training.training(settings, values, np.arange(5), 4)
    losses = [call() for _ in range(15)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.5
