"""Compiled programs are kept where they serve, and nowhere else."""

import os

import jax
import pytest

from experiments.runtime import cli, compilation


@pytest.fixture(autouse=True)
def jax_config():
    """Give jax's settings back as they were."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    names += ("jax_threefry_gpu_kernel_lowering",)
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_threefry_gpu_kernel_lowering", False)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def home(empty_home, monkeypatch):
    """A user who has chosen nothing."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    return empty_home


def run(main=lambda config: None):
    cli.run(main, description="A dummy.", argv=["--config=configs/mask_figure.py"])


def test_programs_keep_what_they_compile_in_the_cache_folder(home, clean_logging):
    run()
    folder = home / "cache" / "compiled" / compilation.machine_digest()
    assert folder.is_dir() and jax.config.jax_compilation_cache_dir == str(folder)


def test_tests_leave_the_user_s_cache_alone(empty_home, clean_logging):
    run()
    assert jax.config.jax_compilation_cache_dir is None
    assert not (empty_home / "cache").exists()


def test_what_the_user_chose_stays(home, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    assert compilation.keep() is None
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    jax.config.update("jax_compilation_cache_dir", str(home / "mine"))
    assert compilation.keep() is None
    assert jax.config.jax_compilation_cache_dir == str(home / "mine")


@pytest.mark.parametrize("chosen", [False, True])
def test_gpus_draw_by_a_kernel_unless_the_user_chose(home, monkeypatch, clean_logging, chosen):
    if chosen:
        monkeypatch.setenv("JAX_THREEFRY_GPU_KERNEL_LOWERING", "0")
    run()
    draw = jax.jit(lambda key: jax.random.bits(key, (8,))).trace(jax.random.key(0))
    kernels = draw.lower(lowering_platforms=("cuda",)).as_text().count("threefry2x32_ffi")
    assert (kernels == 0) == chosen


def test_a_folder_that_cannot_be_made_is_no_failure(home, clean_logging):
    (home / "cache").write_text("a file")
    reached = []
    run(lambda config: reached.append(True))
    assert reached and jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_cannot_be_written_is_not_used(home, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert compilation.keep() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_others_can_write_is_not_used(home):
    folder = compilation.keep()
    assert folder.stat().st_mode & 0o777 == 0o700
    jax.config.update("jax_compilation_cache_dir", None)
    folder.chmod(0o770)
    assert compilation.keep() is None


def test_another_processor_has_another_folder(monkeypatch):
    ours = compilation.machine_digest()
    assert ours == compilation.machine_digest()
    monkeypatch.setattr(compilation, "processor", lambda: ("flags=sse2 avx512f",))
    assert compilation.machine_digest() != ours
    monkeypatch.setattr(compilation.jaxlib, "__version__", "0.0.0")
    assert compilation.machine_digest() not in (ours, "")


def test_what_nobody_needed_for_long_is_removed(home):
    folder = home / "cache" / "compiled" / compilation.machine_digest()
    folder.mkdir(parents=True)
    for name in ("old", "new"):
        (folder / name).write_text("")
    os.utime(folder / "old", (0, 0))
    assert compilation.keep() == folder
    assert [file.name for file in folder.iterdir()] == ["new"]


def test_the_stopwatch_counts_compiling_and_stops():
    with compilation.stopwatch() as watch:
        jax.jit(lambda x: x * 3.14159)(1.0)
    seconds = watch.seconds
    assert seconds > 0
    jax.jit(lambda x: x * 2.71828)(1.0)
    assert watch.seconds == seconds
