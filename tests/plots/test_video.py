"""A video shows the robot where the simulator and the model say that it is."""

import imageio.v3 as imageio
import mujoco
import numpy as np
import pytest

from mtm_jax.agents import imagination
from mtm_jax.envs import make
from mtm_jax.errors import UserError
from mtm_jax.plots import robots, video

HORIZON = 3


def fall(env_id, steps=8):
    """Record a robot without power, with plans that imagine what happens."""
    env = make.make(env_id).unwrapped
    obs, _ = env.reset(seed=1)
    observations, qpos = [obs], [env.data.qpos.copy()]
    for _ in range(steps):
        observations.append(env.step(np.zeros(env.action_space.shape, np.float32))[0])
        qpos.append(env.data.qpos.copy())
    observations, qpos = np.stack(observations), np.stack(qpos)
    starts = np.arange(0, steps - HORIZON + 1, 1)
    index = starts[:, None] + np.arange(HORIZON)
    zeros = np.zeros(index.shape)
    recording = imagination.Recording(
        env_id=env_id,
        observations=observations[:steps],
        rewards=np.ones(steps),
        qpos=qpos[:steps],
        starts=starts,
        imagined_states=observations[index],
        imagined_rewards=zeros,
        imagined_values=zeros,
        real_states=observations[index],
        real_rewards=zeros,
        real_qpos=qpos[index],
        lengths=np.full(len(starts), HORIZON),
        scale=np.ones(observations.shape[1]),
    )
    return recording, env


@pytest.fixture(scope="module")
def hopper():
    return fall("Hopper-v5")


def test_capsules_of_the_hopper_stand_where_its_model_says(hopper):
    _, env = hopper
    robot = robots.Robot(env.model)
    axes = robot.axes(env.init_qpos)
    ends = np.sort(axes[..., 1], axis=1)
    # Torso, thigh and leg on top of each other; the foot lies at 0.1 and reaches 0.39 m.
    np.testing.assert_allclose(ends, [[1.05, 1.45], [0.6, 1.05], [0.1, 0.6], [0.1, 0.1]], atol=1e-9)
    np.testing.assert_allclose(axes[:3, :, 0], 0.0, atol=1e-9)
    assert np.ptp(axes[3, :, 0]) == pytest.approx(0.39)
    np.testing.assert_allclose(robot.radii, [0.05, 0.05, 0.04, 0.06])


def test_the_robot_goes_and_turns_with_its_root(hopper):
    _, env = hopper
    robot = robots.Robot(env.model)
    still, qpos = robot.axes(env.init_qpos), env.init_qpos.copy()
    qpos[0] += 2.0
    np.testing.assert_allclose(robot.axes(qpos) - still, np.tile([2.0, 0.0], (4, 2, 1)), atol=1e-9)
    qpos[2] = np.pi / 2  # the torso falls forward, to positive x
    torso = robot.axes(qpos)[0]
    np.testing.assert_allclose(np.sort(torso[:, 0]), [1.8, 2.2], atol=1e-9)
    np.testing.assert_allclose(torso[:, 1], 1.25, atol=1e-9)


def test_only_limbs_that_the_model_paints_alike_share_a_colour():
    sides = {}
    for env_id in ("Hopper-v5", "Walker2d-v5"):
        sides[env_id] = robots.Robot(make.make(env_id).unwrapped.model).other.tolist()
    assert sides == {"Hopper-v5": [False] * 4, "Walker2d-v5": [False] * 4 + [True] * 3}


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Walker2d-v5", "HalfCheetah-v5"])
def test_positions_are_rebuilt_from_observations(env_id):
    recording, env = fall(env_id)
    rebuilt = video.imagined_qpos(recording, env.dt)
    np.testing.assert_allclose(rebuilt[..., 1:], recording.real_qpos[..., 1:], atol=1e-12)
    # The integral of sampled velocities is nearly the way; the first state is exact.
    np.testing.assert_array_equal(rebuilt[:, 0], recording.real_qpos[:, 0])
    way = np.abs(recording.real_qpos[..., 0] - recording.qpos[recording.starts, :1]).max()
    assert np.abs(rebuilt - recording.real_qpos).max() < 0.2 * way


def test_the_way_is_the_integral_of_the_velocity(hopper):
    recording, _ = hopper
    states = recording.imagined_states.copy()
    states[..., 5] = [1.0, 2.0, 4.0]
    x = video.imagined_qpos(recording._replace(imagined_states=states), dt=0.1)[..., 0]
    expected = recording.qpos[recording.starts, :1] + [0.0, 0.15, 0.45]
    np.testing.assert_allclose(x, expected)


def test_the_video_has_a_frame_per_plan_and_moves(hopper, tmp_path):
    recording, _ = hopper
    path = video.draw(recording, tmp_path / "videos" / "imagination.gif")
    frames = imageio.imread(path)
    assert frames.shape == (6, 264, 512, 3)
    assert (np.abs(np.diff(frames.astype(int), axis=0)).max((1, 2, 3)) > 50).all()
    few = video.draw(recording, tmp_path / "few.gif", frames=2)
    np.testing.assert_array_equal(imageio.imread(few).shape, (2, 264, 512, 3))


def test_the_right_panel_shows_what_was_imagined(hopper):
    recording, env = hopper
    states = recording.imagined_states.copy()
    states[..., 0] += 0.2  # imagined too high
    robot = robots.Robot(env.model)
    pictures = [
        video._Stage(robot, r, env.dt).draw(2).astype(int)
        for r in (recording, recording._replace(imagined_states=states))
    ]
    changed = np.abs(pictures[0] - pictures[1]).max(-1) > 50
    assert changed[:, 256:].sum() > 500 and not changed[:, :250].any()


def test_an_episode_shorter_than_a_plan_has_one_frame(hopper, tmp_path):
    recording, _ = hopper
    first = {
        f: value[:2] for f, value in recording._asdict().items() if f not in ("env_id", "scale")
    }
    path = video.draw(recording._replace(**first), tmp_path / "a.gif")
    assert imageio.imread(path).shape[-3:] == (264, 512, 3)


def test_a_robot_without_capsules_is_refused():
    box = "<mujoco><worldbody><geom type='box' size='1 1 1'/></worldbody></mujoco>"
    with pytest.raises(UserError, match="no capsules to draw"):
        robots.Robot(mujoco.MjModel.from_xml_string(box))


def test_videos_that_cannot_be_written_are_refused(hopper, tmp_path):
    with pytest.raises(UserError, match=r"does not end in \.gif"):
        video.draw(hopper[0], tmp_path / "a.mp4")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no video can be written"):
        video.draw(hopper[0], tmp_path / "file" / "a.gif", frames=1)
