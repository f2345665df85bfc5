"""Downloads Minari data sets with the library's storages; what fails the checks is not kept.

Not with `minari.download_dataset`: that one also fetches whatever other data sets the downloaded
metadata name, and chooses its folder by an environment variable of the whole process.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import shutil
import threading
from collections.abc import Iterator, Mapping

from minari.storage import remotes

from mtm_jax.data.download import part as download_part
from mtm_jax.data.minari import files as minari_files
from mtm_jax.data.minari import metadata as minari_metadata
from mtm_jax.errors import UserError
from mtm_jax.io import cache
from mtm_jax.io import progress as progress_bar
from mtm_jax.types import DataInfo

_POLL_SECONDS = 0.5
_MEGABYTE = 10**6


def default_root() -> pathlib.Path:
    """Return the folder of our own downloads and of the data collected on this machine."""
    return cache.folder() / "minari"


def fetch(
    dataset_id: str,
    root: str | os.PathLike | None = None,
    progress: bool = True,
    about: DataInfo | str | None = None,
) -> pathlib.Path:
    """Download a data set, unless it is in `root`; it is there whole and checked, or not at all.

    The remote is Minari's own, or the one that MINARI_REMOTE says. Its metadata come first: an
    environment or a format that would be refused costs no download. What has arrived stays beside
    the final folder where a download breaks or is killed, and the next call continues it. Processes
    that want the same data set wait for each other.

    Args:
        dataset_id: like "mujoco/hopper/medium-v0".
        root: the folder of data sets; by default `default_root()`.
        progress: whether to draw a progress bar.
        about: see `minari.read`.

    Returns:
        The folder of the data set.

    Raises:
        UserError: the id is unknown, the remote does not answer or cannot be asked without an
            extra, the data are refused, or nothing can be written.
    """
    minari_metadata.check_id(dataset_id)
    final = (default_root() if root is None else pathlib.Path(root)) / dataset_id
    with cache.staging(final):
        pass  # to learn early, and in one sentence, if nothing can be written there
    with download_part.locked(final.with_name(f".{final.name}.lock")):
        if not minari_metadata.is_data_set(final):
            _publish(dataset_id, final, progress, about)
    return final


def _publish(
    dataset_id: str, final: pathlib.Path, progress: bool, about: DataInfo | str | None
) -> None:
    with _one_sentence(dataset_id, final):
        storage = remotes.get_cloud_storage()
        metadata = storage.get_dataset_metadata(dataset_id)
    _accept(dataset_id, metadata, about)
    origin = {"dataset_id": dataset_id, "remote": os.environ.get("MINARI_REMOTE", "")}
    with cache.partial(final, origin) as kept:
        with _one_sentence(dataset_id, final), _shown(kept, dataset_id, metadata, progress):
            kept.mkdir(exist_ok=True)
            storage.download_dataset(dataset_id, kept)
        folder = kept / dataset_id
        _check(dataset_id, kept, about)
        if not cache.publish(folder, final) and not minari_metadata.is_data_set(final):
            raise UserError(f"folder {final} is in the way and holds no data set; remove it")


def _accept(dataset_id: str, metadata: object, about: DataInfo | str | None) -> None:
    if not isinstance(metadata, Mapping):
        raise UserError(f"Minari data set {dataset_id!r} has no metadata; choose another")
    what = f"Minari data set {dataset_id!r}"
    minari_metadata.check_format(what, metadata)
    notes: list[str] = []  # they are said when the data are read
    info = minari_metadata.describe(what, metadata, about, dataset_id, "minari", notes)
    if info is not None and info is not about and info.env_id:
        minari_metadata.rescaled_from(what, metadata, info, notes)


def _check(dataset_id: str, kept: pathlib.Path, about: DataInfo | str | None) -> None:
    """Read what has arrived; what is complete and refused goes, to be downloaded anew."""
    folder = kept / dataset_id
    if not (minari_metadata.data_folder(folder) / minari_metadata.FILE).is_file():
        raise UserError(
            f"the download of Minari data set {dataset_id!r} is not complete; check the network "
            "and try again, which continues it"
        )
    try:
        minari_files.load(folder, about, dataset_id, "minari")
    except UserError as error:
        shutil.rmtree(kept, ignore_errors=True)
        reason = str(error).replace(str(folder), dataset_id)
        raise UserError(f"what was downloaded is not kept: {reason}") from error


@contextlib.contextmanager
def _one_sentence(dataset_id: str, final: pathlib.Path) -> Iterator[None]:
    """Name the way out of whatever a remote's library raises; their errors have no common type."""
    way_out = (
        f"download it elsewhere with `minari download {dataset_id}` and place its folder here: "
        f"{final}"
    )
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"Minari data set {dataset_id!r} is not on this machine, and a package to download it "
            f"is missing ({_first_sentence(error)}); run `pip install 'mtm_jax[minari]'`, "
            f"or {way_out}"
        ) from error
    except Exception as error:
        raise UserError(
            f"Minari data set {dataset_id!r} could not be downloaded ({type(error).__name__}: "
            f"{_first_sentence(error)}); check the id and the network and try again, or {way_out}"
        ) from error


def _first_sentence(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0].split(". ")[0]


@contextlib.contextmanager
def _shown(
    folder: pathlib.Path, dataset_id: str, metadata: Mapping, progress: bool
) -> Iterator[None]:
    """Show how much has arrived in `folder`; the libraries show nothing outside terminals."""
    size = metadata.get("dataset_size")  # megabytes
    if not isinstance(size, int | float) or not 0 < size < math.inf:
        progress = False
    with _without_other_bars():
        if not progress:
            yield
            return
        total = math.ceil(size)
        with progress_bar.progress(total, dataset_id, _megabytes(folder), unit="MB") as bar:
            done = threading.Event()
            watch = threading.Thread(target=_watch, args=(folder, bar, total, done), daemon=True)
            watch.start()
            try:
                yield
                bar.update(total)
            finally:
                done.set()
                watch.join()


def _watch(folder: pathlib.Path, bar: progress_bar.Bar, total: int, done: threading.Event) -> None:
    while not done.wait(_POLL_SECONDS):
        bar.update(min(_megabytes(folder), total - 1))  # the size in the metadata is rounded


def _megabytes(folder: pathlib.Path) -> int:
    size = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # unfinished files are renamed
                size += os.stat(os.path.join(path, name)).st_size
    return size // _MEGABYTE


@contextlib.contextmanager
def _without_other_bars() -> Iterator[None]:
    """Silence the bars of Hugging Face's library, which would be drawn over ours."""
    try:
        from huggingface_hub import utils
    except ImportError:  # the remote is another one
        yield
        return
    before = utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            utils.enable_progress_bars()
