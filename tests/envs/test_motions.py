"""Motions are what they say, seen by the simulator, and tasks measure how they are followed."""

import numpy as np
import pytest

from mtm_jax.envs import make
from mtm_jax.envs.goals import kinematics, motions, tasks
from mtm_jax.errors import UserError

IDS = {"hopper": "Hopper-v5", "walker2d": "Walker2d-v5", "halfcheetah": "HalfCheetah-v5"}


@pytest.fixture(scope="module")
def robots():
    return {name: kinematics.Robot(env_id) for name, env_id in IDS.items()}


@pytest.mark.parametrize("name", IDS)
def test_observations_are_those_of_the_environment(robots, name):
    env = make.make(IDS[name]).unwrapped
    obs, _ = env.reset(seed=0)
    obs = env.step(np.full(env.action_space.shape, 0.1, np.float32))[0]
    found = robots[name].observe(env.data.qpos[None], env.data.qvel[None])
    np.testing.assert_array_equal(found[0], np.float32(obs))
    qpos, qvel = kinematics.split(obs, IDS[name])
    np.testing.assert_array_equal(qpos[1:], env.data.qpos[1:])
    np.testing.assert_array_equal(qvel, env.data.qvel)
    fast = np.where(np.arange(len(obs)) == len(obs) - 1, 10.0, obs)  # may have been clipped
    exact = kinematics.exact(np.stack([obs, fast]), IDS[name])
    assert exact.tolist() == [True, name == "halfcheetah"]


def test_a_wiggle_has_its_frequency_and_amplitude_and_its_foot_stays(robots):
    robot = robots["hopper"]
    qpos = motions.wiggle(robot, 500, frequency=0.5, amplitude=0.1)
    angle = qpos[:, kinematics.PITCH]
    assert np.ptp(angle) == pytest.approx(0.2, rel=1e-3)
    spectrum = np.abs(np.fft.rfft(angle[:-1]))
    assert np.fft.rfftfreq(500, robot.dt)[spectrum.argmax()] == pytest.approx(0.5)
    places = np.array([robot._place(pose, "foot") for pose in qpos[::50]])
    np.testing.assert_allclose(places, np.tile(places[0], (len(places), 1)), atol=1e-9)
    np.testing.assert_allclose(robot.lowest(qpos), robot.lowest(robot.rest[None])[0], atol=1e-9)


def test_velocities_are_those_of_the_poses(robots):
    robot = robots["hopper"]
    qpos = motions.wiggle(robot, 300)
    obs = robot.moving(qpos)
    way = np.cumsum(obs[:, 7]) * robot.dt  # of the pitch
    np.testing.assert_allclose(way - way[0], obs[:, 1] - obs[0, 1], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "move", "joint", "end"),
    [
        ("walker2d", motions.split, "thigh_joint", -1.2),
        ("halfcheetah", motions.flip, "rooty", np.pi),
    ],
)
def test_a_motion_ends_at_its_angle_and_never_leaves_the_ground(robots, name, move, joint, end):
    robot = robots[name]
    qpos = move(robot, 400)
    assert qpos[0] == pytest.approx(robot.rest)
    np.testing.assert_allclose(qpos[-50:, robot.joint(joint)], end)
    np.testing.assert_allclose(robot.lowest(qpos), robot.lowest(robot.rest[None])[0], atol=1e-9)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_a_task_that_is_followed_has_no_error_and_one_that_is_not_fails(name):
    task = tasks.TASKS[name]
    env_id = IDS[task.data.split("-")[0]]
    motion = tasks.reference(task, env_id, task.steps)
    still = np.broadcast_to(motion[:1], motion.shape)
    found = tasks.track(task, np.stack([motion, still], 1), motion)
    assert found.errors[0] == 0 and found.successes.tolist() == [True, False]
    goals = tasks.goals(motion, task.spacing, task.given, "")
    np.testing.assert_array_equal(
        goals.states[0][goals.given[0]], motion[task.spacing][goals.given[0]]
    )


def test_errors_are_means_over_steps_and_success_is_judged_at_the_end():
    task = tasks.TASKS["cheetah-flip"]
    motion, found = np.zeros((101, 17)), np.zeros((101, 2, 17))
    found[1:51, 0, 1], found[51:, 1, 1] = 2.0, 2.0
    tracking = tasks.track(task, found, motion)
    np.testing.assert_allclose(tracking.errors, [1.0, 1.0])
    assert tracking.successes.tolist() == [True, False]


@pytest.mark.parametrize(
    ("make_it", "says"),
    [
        (lambda r: motions.wiggle(r["walker2d"], 9), "wiggle is a motion of hopper, and this"),
        (lambda r: motions.wiggle(r["hopper"], 0), "a motion of 0 steps"),
        (lambda r: motions.wiggle(r["hopper"], 9, frequency=-1.0), "frequency is -1.0; it must be"),
        (lambda r: motions.flip(r["halfcheetah"], 9, angle=0.0), "size of the angle is 0.0"),
        (lambda r: kinematics.Robot("mtm_jax/AdroitPenCompletion-v1"), "motions of pen cannot be"),
        (lambda r: tasks.find("hopper-wigle"), "unknown task.*did you mean hopper-wiggle?"),
    ],
)
def test_what_cannot_be_moved_so_is_refused(robots, make_it, says):
    with pytest.raises(UserError, match=says):
        make_it(robots)
