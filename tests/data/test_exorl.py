import io
import logging
import pathlib
import pickle
import stat
import sys
import tracemalloc
import types
import zipfile

import numpy as np
import pytest

from mtm_jax.data import archives
from mtm_jax.data.exorl import reader as exorl
from mtm_jax.envs import make
from mtm_jax.errors import UserError

NAME = "walker_walk-proto"


def make_episode(number, steps, **changes):
    """One episode as ExORL stores it; row t of each array holds 100 * number + t."""
    rows = 100.0 * number + np.arange(steps + 1)
    episode = {
        "observation": np.tile(rows[:, None], (1, 24)).astype(np.float32),
        "action": np.tile((rows[:, None] % 100) / 100.0, (1, 6)).astype(np.float32),
        "reward": np.full((steps + 1, 1), 7.0, np.float32),
        "discount": np.ones((steps + 1, 1), np.float32),
        "physics": np.tile(rows[:, None], (1, 18)),
    }
    return {key: value for key, value in (episode | changes).items() if value is not None}


def packed(number, steps, **changes):
    file = io.BytesIO()
    np.savez_compressed(file, **make_episode(number, steps, **changes))
    return file.getvalue()


def save(folder, number, steps, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"episode_{number:06d}_{steps}.npz"
    path.write_bytes(packed(number, steps, **changes))
    return path


def save_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    """Rewards in place of the simulator's: the state's first number, plus 0.5 for walk."""
    calls = []

    def rewards(task, physics):
        calls.append((task, len(physics)))
        return (physics[:, 0] + {"walk": 0.5, "run": 0.25}[task]).astype(np.float32)

    fake = types.SimpleNamespace(rewards=rewards)
    monkeypatch.setitem(sys.modules, "mtm_jax.envs.walker_tasks", fake)
    return calls


def test_the_reset_row_is_the_first_observation_and_not_a_step(tmp_path):
    save(tmp_path, 0, 4)
    read = exorl.read(tmp_path, NAME)
    assert read.observations[:, 0].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(read.actions[:, 5], [0.01, 0.02, 0.03, 0.04])
    assert read.rewards.tolist() == [1.5, 2.5, 3.5, 4.5]
    assert read.final_observations[:, 0].tolist() == [4]
    assert (read.info.name, read.info.env_id) == (NAME, "mtm_jax/WalkerWalk-v0")
    assert read.info.source == str(tmp_path)


def test_episodes_of_nested_folders_come_in_the_order_of_their_numbers(tmp_path):
    for number, steps in ((10, 2), (2, 3), (100000, 1)):
        save(tmp_path / "proto" / "buffer", number, steps)
    (tmp_path / "proto" / "video").mkdir()
    (tmp_path / "proto" / "video" / "0.mp4").write_text("a film")
    read = exorl.read(tmp_path, NAME)
    assert read.lengths.tolist() == [3, 2, 1]
    assert read.observations[read.starts, 0].tolist() == [200, 1000, 10000000]


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_a_discount_of_0_is_terminal(tmp_path, shape):
    discount = np.ones(5)
    discount[-1] = 0
    save(tmp_path, 0, 4, discount=discount.reshape(shape))
    assert exorl.read(tmp_path, NAME).terminals.tolist() == [False, False, False, True]


def test_the_task_in_the_name_decides_the_rewards(tmp_path, tasks):
    save(tmp_path / "walker_run", 0, 3)
    assert exorl.read(tmp_path / "walker_run").rewards.tolist() == [1.25, 2.25, 3.25]
    assert tasks == [("run", 3)]
    info = exorl.read(tmp_path, "walker_walk").info
    assert exorl.read(tmp_path, info, "ignored").info == info
    with pytest.raises(UserError, match="of walker_stand, walker_walk, walker_run, like"):
        exorl.read(tmp_path, "hopper-medium")


def test_rewards_of_several_blocks_stay_in_order(tmp_path, monkeypatch, tasks):
    monkeypatch.setattr(exorl, "_BLOCK", 2)
    for number in range(5):
        save(tmp_path, number, number + 1)
    read = exorl.read(tmp_path, NAME)
    assert len(tasks) == 3
    np.testing.assert_array_equal(read.rewards, read.observations[:, 0] + 1.5)


def test_reward_free_data_need_no_physics_and_say_that_rewards_are_missing(tmp_path, tasks):
    save(tmp_path, 0, 3, physics=None)
    with pytest.raises(UserError, match=r"lacks physics; .* can do without them"):
        exorl.read(tmp_path, NAME)
    read = exorl.read(tmp_path, NAME, rewards=False)
    assert {m: has.tolist() for m, has in read.available.items()} == {
        "rewards": [False],
        "returns": [False],
    }
    assert not read.rewards.any()
    assert not tasks


def test_without_the_simulator_relabelling_is_refused(tmp_path, monkeypatch):
    save(tmp_path, 0, 3)

    def absent(name):
        raise ModuleNotFoundError("no", name="dm_control")

    monkeypatch.setattr(exorl.importlib, "import_module", absent)
    with pytest.raises(UserError, match=r"walker_walk needs dm_control.*mtm_jax\[walker\]"):
        exorl.read(tmp_path, NAME)


@pytest.mark.parametrize(("limit", "lengths"), [(1, [4]), (4, [4]), (5, [4, 3]), (99, [4, 3, 2])])
def test_a_limit_reads_the_first_whole_episodes_only(tmp_path, limit, lengths):
    for number, steps in enumerate((4, 3, 2)):
        save(tmp_path, number, steps)
    if lengths != [4, 3, 2]:
        (tmp_path / "episode_000002_2.npz").write_text("never opened")
    assert exorl.read(tmp_path, NAME, limit_steps=limit).lengths.tolist() == lengths
    with pytest.raises(UserError, match="limit_steps is 0"):
        exorl.read(tmp_path, NAME, limit_steps=0)


def test_cut_and_one_step_episodes_are_kept_and_said(tmp_path, caplog):
    save(tmp_path, 0, 1)
    save(tmp_path, 1, 3, discount=np.array([1.0, 1, 1, 0]))
    with caplog.at_level(logging.INFO, "mtm_jax"):
        read = exorl.read(tmp_path, NAME)
    assert read.lengths.tolist() == [1, 3]
    assert "1 of 2 episodes are cut before the limit of 1000 steps" in caplog.text


def test_numbers_of_any_type_become_float32_and_actions_are_clipped(tmp_path, caplog):
    action = np.zeros((4, 6), np.float64)
    action[1, 0] = 1.5
    save(tmp_path, 0, 3, observation=np.ones((4, 24)), action=action)
    with caplog.at_level(logging.WARNING, "mtm_jax"):
        read = exorl.read(tmp_path, NAME)
    assert read.observations.dtype == read.actions.dtype == read.rewards.dtype == np.float32
    assert read.actions[0, 0] == 1.0
    assert "clipped 1 of 18 action values" in caplog.text
    assert "0.5 outside" in caplog.text


def nan_in(key):
    array = make_episode(0, 3)[key].copy()
    array[2] = np.nan
    return {key: array}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"observation": None}, "episode_000000_3.npz lacks observation; remove it"),
        ({"action": np.zeros((3, 6))}, r"action has shape \[3, 6\], expected \[4, 6\] for 3 steps"),
        ({"physics": np.zeros((4, 17))}, r"physics has shape \[4, 17\], expected \[4, 18\]"),
        ({"observation": np.zeros((4, 17))}, r"observation has shape \[4, 17\], expected \[4, 24"),
        (nan_in("observation"), "observation holds NaN or infinite"),
        (nan_in("discount"), "discount holds NaN or infinite"),
        (nan_in("physics"), "physics holds NaN or infinite"),
        ({"action": np.full((4, 6), "x")}, "action has type <U1, expected numbers"),
        ({"observation": np.full((4, 24), 1e300)}, "float32-exceeding"),
        ({"discount": np.array([1, 0, 1, 1])}, "terminals is set at 1 steps inside"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(tmp_path, changes, words):
    save(tmp_path, 0, 3, **changes)
    with pytest.raises(UserError, match=words):
        exorl.read(tmp_path, NAME)


class Marker:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("archived", [False, True])
def test_a_pickle_in_an_episode_is_refused_and_never_executed(tmp_path, archived):
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Marker(marker)))  # it would have been made
    marker.unlink()
    content = packed(0, 3, action=np.array([Marker(marker)], object))
    save_zip(tmp_path / "proto.zip", {"episode_0_3.npz": content})
    (tmp_path / "proto").mkdir()
    (tmp_path / "proto" / "episode_0_3.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read as npz \(Object arrays cannot be loaded"):
        exorl.read(tmp_path / ("proto.zip" if archived else "proto"), NAME)
    assert not marker.exists()


@pytest.mark.parametrize("keep", [10, 400, -30])
def test_a_truncated_episode_is_named(tmp_path, keep):
    path = save(tmp_path, 3, 3)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"episode_000003_3.npz cannot be read as npz.*damaged"):
        exorl.read(tmp_path, NAME)


def test_a_single_array_under_an_episode_name_is_refused(tmp_path):
    with open(tmp_path / "episode_0_3.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="it is a single array"):
        exorl.read(tmp_path, NAME)


def test_no_damaged_byte_of_an_episode_escapes_as_another_error(tmp_path):
    file = io.BytesIO()
    np.savez(file, **make_episode(0, 1))
    content, rng = file.getvalue(), np.random.default_rng(0)
    path = tmp_path / "episode_0_1.npz"
    for position in rng.integers(len(content), size=50):
        path.write_bytes(content[:position] + rng.bytes(1) + content[position + 1 :])
        try:
            exorl.read(tmp_path, NAME)
        except UserError as error:
            assert "episode_0_1.npz" in str(error) or "terminals" in str(error)


def test_names_that_do_not_tell_number_and_steps_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no episodes"):
        exorl.read(tmp_path, NAME)
    (tmp_path / "other.npz").write_text("x")
    with pytest.raises(UserError, match="other.npz is not called episode_<number>_<steps>.npz"):
        exorl.read(tmp_path, NAME)


def test_two_episodes_of_one_number_are_refused(tmp_path):
    save(tmp_path / "proto", 5, 3)
    save(tmp_path / "rnd", 5, 3)
    with pytest.raises(UserError, match="episode 5 is in both .* name the folder of one"):
        exorl.read(tmp_path, NAME)


@pytest.mark.parametrize("steps", [0, 1001, 999999999])
def test_an_impossible_length_in_a_name_is_refused_before_memory_is_taken(tmp_path, steps):
    (tmp_path / f"episode_0_{steps}.npz").write_text("x")
    with pytest.raises(UserError, match=f"has {steps} steps by its name, expected 1 to 1000"):
        exorl.read(tmp_path, NAME)


def test_a_name_that_promises_other_steps_is_refused(tmp_path):
    save(tmp_path, 0, 3).rename(tmp_path / "episode_0_4.npz")
    with pytest.raises(UserError, match=r"\[4, 24\], expected \[5, 24\] for 4 steps"):
        exorl.read(tmp_path, NAME)


def test_an_episode_that_unpacks_to_too_much_is_refused(tmp_path):
    save(tmp_path, 0, 3, observation=np.zeros((1000, 24)))
    with pytest.raises(UserError, match="unpacks to .* bytes, more than the 16384"):
        exorl.read(tmp_path, NAME)


def test_an_archive_is_read_in_place_like_its_folder(tmp_path):
    members = {
        "proto/video/0.mp4": b"a film",
        "proto/buffer/episode_000010_2.npz": packed(10, 2),
        "proto/buffer/episode_000002_3.npz": packed(2, 3),
        "__MACOSX/proto/buffer/._episode_000002_3.npz": b"of a Mac",
    }
    read = exorl.read(save_zip(tmp_path / "proto.zip", members), NAME)
    assert read.lengths.tolist() == [3, 2]
    assert read.observations[read.starts, 0].tolist() == [200, 1000]
    assert [path.name for path in tmp_path.iterdir()] == ["proto.zip"]


@pytest.mark.parametrize(
    "name",
    ["../episode_0_3.npz", "a/../../b.txt", "/tmp/x.npz", "C:/x.npz", "a\\..\\..\\x", "\\x"],
)
def test_an_archive_with_a_path_that_escapes_is_refused(tmp_path, name):
    path = save_zip(tmp_path / "p.zip", {"episode_0_3.npz": packed(0, 3), name: b"x"})
    with pytest.raises(UserError, match="is a link or points outside") as error:
        exorl.read(path, NAME)
    assert repr(name) in str(error.value)


def test_an_archive_with_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("proto/link.npz")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = save_zip(tmp_path / "p.zip", {"episode_0_3.npz": packed(0, 3)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/hostname")
    with pytest.raises(UserError, match=r"member 'proto/link.npz' is a link"):
        exorl.read(path, NAME)


def test_an_archive_that_would_unpack_to_too_much_is_refused(tmp_path, monkeypatch):
    bomb = save_zip(tmp_path / "bomb.zip", {"episode_0_3.npz": bytes(10**6)})
    with pytest.raises(UserError, match=r"refused: it would unpack to 1000000 bytes.*100 times"):
        exorl.read(bomb, NAME)
    path = save_zip(tmp_path / "p.zip", {"episode_0_3.npz": packed(0, 3)})
    monkeypatch.setattr(archives, "MAX_BYTES", 100)
    with pytest.raises(UserError, match="bytes, more than 100 or"):
        exorl.read(path, NAME)


def test_damaged_foreign_and_missing_archives_are_refused(tmp_path):
    path = save_zip(tmp_path / "p.zip", {"episode_0_3.npz": packed(0, 3)})
    content = bytearray(path.read_bytes())
    content[200:210] = bytes(10)
    (tmp_path / "damaged.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"member episode_0_3.npz of archive .* cannot be read"):
        exorl.read(tmp_path / "damaged.zip", NAME)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="archive .*p.zip cannot be read .* fetch it again"):
        exorl.read(path, NAME)
    with pytest.raises(UserError, match="there is no file .*absent.zip"):
        exorl.read(tmp_path / "absent.zip", NAME)


def test_a_progress_bar_does_not_change_the_data(tmp_path):
    save(tmp_path, 0, 3)
    np.testing.assert_array_equal(
        exorl.read(tmp_path, NAME, progress=True).rewards, exorl.read(tmp_path, NAME).rewards
    )


def test_files_are_read_one_after_another_into_the_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(exorl, "_BLOCK", 4)
    for number in range(40):
        save(tmp_path, number, 200)
    tracemalloc.start()
    exorl.read(tmp_path, NAME)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 2 * (24 + 6 + 1) * 4 * 40 * 200


def test_relabelled_rewards_are_those_of_the_environment(tmp_path, monkeypatch):
    pytest.importorskip("dm_control")
    monkeypatch.undo()  # the simulator's own rewards
    env = make.make("mtm_jax/WalkerWalk-v0")
    observations, physics, rewards = [env.reset(seed=0)[0]], [env.unwrapped.physics_state()], []
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 6))
    for action in actions[1:]:
        observation, reward, *_ = env.step(action)
        observations.append(observation)
        physics.append(env.unwrapped.physics_state())
        rewards.append(reward)
    changes = {"observation": observations, "action": actions, "physics": physics}
    save(tmp_path, 0, 5, **{key: np.array(value) for key, value in changes.items()})
    np.testing.assert_allclose(exorl.read(tmp_path, NAME).rewards, rewards, atol=1e-6)
