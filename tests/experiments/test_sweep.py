"""A sweep runs the command lines that a user would type, and says how each ended."""

import importlib.machinery
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest

from experiments import sweep
from experiments.runtime import cli
from mtm_jax.errors import UserError

# Ends like a program that has saved: 143 after SIGTERM. It says when it is ready.
PATIENT = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""


def config_of(*overrides):
    return cli.parse([f"--config.{key}" for key in overrides], "configs/sweep.py")


@pytest.fixture
def submitit(monkeypatch):
    """A stand-in for the library, which is optional."""
    module = types.ModuleType("submitit")
    module.__spec__ = importlib.machinery.ModuleSpec("submitit", None)
    module.helpers = types.SimpleNamespace(DelayedSubmission=lambda function: function)
    monkeypatch.setitem(sys.modules, "submitit", module)
    return module


class Executor:
    """Runs each job at once; it is over when it has been asked for often enough."""

    def __init__(self, codes, polls=2):
        self.codes, self.polls, self.most, self.cancelled = list(codes), polls, 0, []
        self.running, self.commands = 0, []

    def submit_array(self, functions):
        self.running += len(functions)
        self.most = max(self.most, self.running)
        self.commands += [f.command for f in functions]
        return [FakeJob(self, self.codes.pop(0)) for _ in functions]


class FakeJob:
    def __init__(self, executor, code):
        self.executor, self.code, self.polls = executor, code, executor.polls
        self.job_id = str(len(executor.codes))
        self.paths = types.SimpleNamespace(stdout=pathlib.Path(f"log_{self.job_id}.out"))

    def done(self):
        self.polls -= 1
        self.executor.running -= self.polls == 0
        return self.polls <= 0

    def exception(self):
        return None if self.code is not None else RuntimeError("the machine is gone")

    def result(self):
        return self.code

    def cancel(self, check):
        self.executor.cancelled.append(self.job_id)


@pytest.fixture
def fake(monkeypatch, submitit):
    """Runs a sweep of four jobs on a stand-in for the cluster; returns exit code and executor."""
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0.0)

    def start(codes, *overrides):
        executor = Executor(codes)
        monkeypatch.setattr(sweep, "make_executor", lambda config: executor)
        names = "names=('hopper-medium','walker2d-medium')"
        try:
            sweep.main(config_of(names, "seeds=(0,1)", *overrides))
        except SystemExit as end:
            return end.code, executor
        return 0, executor

    return start


def test_every_job_is_what_a_user_would_type():
    config = config_of("names=('hopper-medium','walker2d-medium,preset=base')", "seeds=(0,3)")
    config.overrides = ("steps=2000", "out=runs/x/{name}-{seed}")
    tasks = sweep.make_tasks(config)
    assert [t.label for t in tasks][:2] == [
        "pretrain hopper-medium seed 0",
        "pretrain hopper-medium seed 3",
    ]
    assert tasks[3].command == [
        *(sys.executable, "-m", "experiments.pretrain"),
        "--config=configs/pretrain.py:walker2d-medium,preset=base",
        *("--config.seed=3", "--config.steps=2000"),
        "--config.out=runs/x/walker2d-medium,preset=base-3",
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=nothing"], "there is no program experiments.nothing"),
        (["experiment=../pretrain"], "there is no program"),
        (["overrides=('modle.width=3',)"], "unknown key --config.modle.width; did you mean"),
        (["names=('ant-medium',)"], "unknown environment 'ant'"),
        (["seeds=(1,1)"], "two jobs of this sweep would write into the same folder"),
        (["seeds=(0,1)", "overrides=('out=here',)"], "out=FOLDER/{name}-{seed}"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_runs(overrides, message):
    with pytest.raises(UserError, match=message):
        sweep.make_tasks(config_of(*overrides))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("executor=cloud", "executor is 'cloud'"),
        ("parallel=0", "parallel is 0"),
        ("gpus=-1", "gpus is -1"),
        ("hours=0.0", "hours is 0.0"),
        ("overrides=(1,)", "overrides are .1,.; write them as"),
    ],
)
def test_settings_out_of_range_are_refused(submitit, override, message):
    with pytest.raises(UserError, match=message):
        sweep.check(config_of(override))


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(sweep.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'mtm_jax\[cluster\]'"):
        sweep.check(config_of())


def test_a_sweep_in_which_all_goes_well_ends_well(fake, capsys):
    code, executor = fake([0] * 4, "executor=local", "parallel=3")
    assert code == 0
    assert executor.most == 3
    assert len(executor.commands) == 4
    assert capsys.readouterr().out.count("finished") == 8  # said when it ends, and in the table


def test_slurm_counts_jobs_by_itself(fake):
    assert fake([0] * 4, "executor=slurm", "parallel=1")[1].most == 4


def test_a_failed_job_is_named_with_its_log(fake, capsys):
    assert fake([0, 2, 143, None], "executor=local")[0] == 1
    said = capsys.readouterr().out
    assert "pretrain hopper-medium seed 1: failed; its log is log_2.out" in said
    assert "pretrain walker2d-medium seed 0: stopped; the same sweep continues it" in said
    assert "pretrain walker2d-medium seed 1: failed; its log is log_0.out" in said


@pytest.mark.parametrize(("cancel", "cancelled"), [(True, ["0"]), (False, [])])
def test_an_interrupted_sweep_cancels_what_runs_here(monkeypatch, cancel, cancelled):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep.time, "sleep", interrupt)
    executor = Executor([0])
    with pytest.raises(KeyboardInterrupt):
        sweep.run([sweep.Task("a", ["true"])], executor, 1, cancel)
    assert executor.cancelled == cancelled


# A process of its own, as submitit's is: without jax, whose threads and forks do not go together.
RUN_A_JOB = """
import signal, sys, types
submitit = types.ModuleType("submitit")
submitit.helpers = types.SimpleNamespace(DelayedSubmission=lambda job: job)
sys.modules["submitit"] = submitit
from experiments.runtime import sweep_job
job = sweep_job.Job(sys.argv[1:])
signal.signal(signal.SIGUSR2, lambda *_: print("queued", job.checkpoint().command == job.command))
print("ended", job())
"""


def start_job(root, *command):
    argv = [sys.executable, "-c", RUN_A_JOB, sys.executable, "-S", "-c", *command]
    return subprocess.Popen(
        argv, cwd=root, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_job_runs_its_command(root):
    assert start_job(root, "raise SystemExit(3)").communicate(timeout=60)[0] == "ended 3\n"


def test_a_job_whose_time_is_up_lets_its_command_save_and_is_queued_again(root, tmp_path):
    ready = tmp_path / "ready"
    process = start_job(root, PATIENT, str(ready))
    while not ready.exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGUSR2)  # the scheduler warns every process of a job
    assert process.communicate(timeout=60)[0] == "queued True\nended 143\n"


def test_the_library_takes_what_is_given(tmp_path):
    """With submitit installed: parameters that its executors know."""
    submitit = pytest.importorskip("submitit")
    executor = sweep.make_executor(config_of("executor=local", f"folder={tmp_path}"))
    assert isinstance(executor, submitit.LocalExecutor)
