import errno
import functools
import hashlib
import logging
import os
import pathlib
import subprocess
import sys
import threading
import time

import file_server
import pytest
from file_server import PATIENCE, answer, cut, page, redirect, status

from mtm_jax.data.download import fetch as download
from mtm_jax.data.download import part as download_part
from mtm_jax.errors import UserError

CONTENT = bytes(range(250)) * 4


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with file_server.serving(CONTENT) as made:
        yield made


@pytest.fixture
def final(tmp_path):
    return tmp_path / "folder" / "data.bin"


def is_content(path, sha256):
    if path.read_bytes() != CONTENT:
        raise UserError("it is not the content")


def fetch(server, final, check=is_content, **changed):
    urls = changed.pop("urls", [f"{server.url}/data.bin"])
    settings = {"timeout": PATIENCE, "progress": False, "pause": lambda seconds: None} | changed
    return download.fetch(urls, final, check=check, **settings)


def left(final):
    """What lies in the folder besides the file."""
    return sorted(p.name for p in final.parent.iterdir() if p != final)


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_file_is_downloaded_and_nothing_else_is_left(server, final):
    assert fetch(server, final) == hashlib.sha256(CONTENT).hexdigest()
    assert final.read_bytes() == CONTENT
    assert left(final) == []
    assert len(server.seen) == 1


def test_a_cut_answer_is_continued_where_it_ended(server, final):
    server.orders, waits = [cut(100), cut(300)], []
    fetch(server, final, pause=waits.append)
    assert final.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100-", "bytes=400-"]
    assert {headers["If-Range"] for _, headers in server.seen[1:]} == {'"one"'}
    assert waits == [1.0, 2.0]


def test_a_server_without_ranges_starts_again(server, final):
    server.orders = [cut(100), functools.partial(answer, ranges=False)]
    fetch(server, final)
    assert server.ranges == [None, "bytes=100-"]
    assert final.read_bytes() == CONTENT


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_changes_in_between_is_fetched_anew(server, final, heeds_if_range):
    def changed(handler):
        server.content, server.etag = CONTENT, '"two"'
        answer(handler, if_range=heeds_if_range)

    server.content = b"old" + CONTENT[3:]
    server.orders = [cut(100), changed]
    fetch(server, final)
    assert final.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100-", None][: 2 if heeds_if_range else 3]


@pytest.mark.parametrize(
    ("etag", "modified", "condition"),
    [
        ("", "Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ('W/"weak"', "", None),
        ('W/"weak"', "Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ("", "", None),
    ],
)
def test_what_the_server_tells_of_a_version_guards_the_rest(
    server, final, etag, modified, condition
):
    server.etag, server.modified, server.orders = etag, modified, [cut(100)]
    fetch(server, final)
    assert server.ranges == [None, "bytes=100-"]
    assert server.seen[1][1]["If-Range"] == condition
    assert final.read_bytes() == CONTENT


def test_without_any_mark_another_size_is_another_version(server, final):
    def grown(handler):
        server.content = CONTENT
        answer(handler)

    server.content, server.etag = b"old" + CONTENT[3:-1], ""
    server.orders = [cut(100), grown]
    fetch(server, final)
    assert server.ranges == [None, "bytes=100-", None]
    assert final.read_bytes() == CONTENT


def test_pieces_that_do_not_fit_together_are_fetched_in_one_piece(server, final):
    def changed(handler):
        server.content = CONTENT
        answer(handler)

    server.content, server.etag = b"old" + CONTENT[3:], ""
    server.orders = [cut(100), changed]
    fetch(server, final)
    assert server.ranges == [None, "bytes=100-", None]
    assert final.read_bytes() == CONTENT


def test_a_stalled_connection_is_given_up_and_continued(server, final):
    def stall(handler):
        answer(handler, limit=100, stall=handler.headers["Range"] is None)

    server.orders = [stall] * 50
    fetch(server, final, timeout=0.5, attempts=50)
    assert server.ranges[0] is None and server.ranges[-1] == "bytes=900-"
    assert final.read_bytes() == CONTENT


def test_a_stall_is_named_in_the_error(server, final):
    server.orders = [functools.partial(answer, limit=100, stall=True)]
    with pytest.raises(UserError, match=r"data.bin \(no data for 0.3 s\)"):
        fetch(server, final, timeout=0.3, attempts=1)


@pytest.mark.parametrize("code", [403, 404, 503])
def test_a_server_that_refuses_gives_way_to_the_next(server, final, code):
    server.orders = [status(code)]
    fetch(server, final, urls=[f"{server.url}/first", f"{server.url}/second"])
    assert [path for path, _ in server.seen] == ["/first", "/second"]
    assert final.read_bytes() == CONTENT


def test_the_part_of_one_server_is_not_continued_by_another(server, final):
    server.orders = [cut(100), cut(100), cut(100)]
    fetch(server, final, urls=[f"{server.url}/first", f"{server.url}/second"], attempts=2)
    assert [path for path, _ in server.seen] == ["/first", "/first", "/second", "/second"]
    assert server.ranges == [None, "bytes=100-", None, "bytes=100-"]
    assert final.read_bytes() == CONTENT


def test_where_nothing_answers_every_reason_and_the_way_out_are_named(server, final):
    server.orders = [status(403), status(500)]
    urls = [f"{server.url}/a", f"{server.url}/b", "http://127.0.0.1:9/c", "file:///etc/hostname"]
    with pytest.raises(UserError) as error:
        fetch(server, final, urls=urls, variable="DATA_DIR")
    text = str(error.value)
    assert f"{server.url}/a (HTTP 403 Forbidden), {server.url}/b (HTTP 500 " in text
    assert "http://127.0.0.1:9/c (" in text and "refused" in text
    assert "unknown url type: file" in text
    assert f"place the file here: {final}, or set DATA_DIR to the folder that has it" in text
    assert left(final) == [] and not final.exists()


def test_a_server_that_never_completes_is_given_up(server, final):
    server.orders = [functools.partial(answer, length=1100)] * 2 + [cut(0)] * 5
    with pytest.raises(UserError, match="the connection ended after 0 of 1000 bytes"):
        fetch(server, final, attempts=4)
    assert len(server.seen) == 4
    assert not final.exists()


def test_a_length_that_is_too_short_does_not_pass_the_check(server, final):
    server.orders = [functools.partial(answer, length=900)]
    with pytest.raises(UserError, match="it is not the content"):
        fetch(server, final)
    assert left(final) == [] and not final.exists()


def test_headway_earns_new_attempts(server, final, monkeypatch):
    monkeypatch.setattr(download, "_HEADWAY", 100)
    server.orders = [cut(100)] * 9
    fetch(server, final, attempts=2)
    assert len(server.seen) == 10
    assert final.read_bytes() == CONTENT


def test_garbage_is_refused_and_forgotten(server, final):
    server.orders = [page("application/octet-stream")]
    with pytest.raises(UserError, match="it is not the content"):
        fetch(server, final)
    assert left(final) == [] and not final.exists()
    fetch(server, final)
    assert server.ranges == [None, None]
    assert final.read_bytes() == CONTENT


def test_a_web_page_does_not_cost_what_has_arrived(server, final):
    server.orders = [cut(100), page("text/html; charset=utf-8")]
    with pytest.raises(UserError, match="it answered with a web page"):
        fetch(server, final)
    assert not final.exists()
    fetch(server, final)
    assert server.ranges == [None, "bytes=100-", "bytes=100-"]
    assert final.read_bytes() == CONTENT


def test_an_answer_without_content_does_not_cost_what_has_arrived(server, final):
    server.orders = [cut(100), status(204)]
    with pytest.raises(UserError, match=r"\(HTTP 204\)"):
        fetch(server, final)
    fetch(server, final)
    assert server.ranges[2] == "bytes=100-"
    assert final.read_bytes() == CONTENT


def test_a_lost_connection_is_sought_again_only_where_there_is_a_part(server, final):
    unreachable = redirect("http://127.0.0.1:9/")
    server.orders = [unreachable]
    with pytest.raises(UserError, match="refused"):
        fetch(server, final)
    assert len(server.seen) == 1
    server.orders = [cut(100), unreachable]
    fetch(server, final)
    assert server.ranges[1:] == [None, "bytes=100-", "bytes=100-"]
    assert final.read_bytes() == CONTENT


def interrupt(*args):
    raise KeyboardInterrupt


def test_an_interrupted_download_continues_the_next_time(server, final):
    server.orders = [cut(100)]
    with pytest.raises(KeyboardInterrupt):
        fetch(server, final, pause=interrupt)
    assert not final.exists()
    fetch(server, final)
    assert server.ranges == [None, "bytes=100-"]
    assert final.read_bytes() == CONTENT


def test_a_complete_part_is_published_without_another_download(server, final):
    with pytest.raises(KeyboardInterrupt):
        fetch(server, final, check=interrupt)
    server.content = b"x" + CONTENT[1:]  # of the same version, to see that it is not fetched
    fetch(server, final)
    assert server.ranges == [None, "bytes=1000-"]
    assert final.read_bytes() == CONTENT


def test_a_part_of_a_file_of_unknown_length_is_continued(server, final):
    server.orders = [functools.partial(answer, limit=100, length=None)]
    with pytest.raises(KeyboardInterrupt):
        fetch(server, final, check=interrupt)
    fetch(server, final)
    assert server.ranges == [None, "bytes=100-"]
    assert final.read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_fetched_anew(server, final):
    server.orders = [cut(100)]
    with pytest.raises(KeyboardInterrupt):
        fetch(server, final, pause=interrupt)
    (final.parent / "data.bin.part").write_bytes(bytes(2000))
    fetch(server, final)
    assert server.ranges == [None, "bytes=2000-", None]
    assert final.read_bytes() == CONTENT


def test_a_part_of_unknown_version_is_fetched_anew(server, final):
    server.orders = [cut(100)]
    with pytest.raises(KeyboardInterrupt):
        fetch(server, final, pause=interrupt)
    (final.parent / "data.bin.part.lock").write_text("{damaged")
    fetch(server, final)
    assert server.ranges == [None, None]
    assert final.read_bytes() == CONTENT


DOWNLOAD = """
import pathlib, sys
from mtm_jax.data.download import fetch as download
final = pathlib.Path(sys.argv[2])
download.fetch([sys.argv[1]], final, check=lambda *_: None, progress=False)
"""


def start_process(server, final, root):
    """Start a download in a process of its own, and return once its server holds it up."""
    server.orders = [functools.partial(answer, limit=300, stall=True)]
    command = [sys.executable, "-c", DOWNLOAD, f"{server.url}/data.bin", str(final)]
    process = subprocess.Popen(command, cwd=root)
    part = pathlib.Path(f"{final}.part")
    try:
        wait_until(lambda: part.exists() and part.stat().st_size == 300)
    except AssertionError:
        process.kill()
        raise
    return process


def test_a_killed_download_leaves_nothing_and_is_continued(server, final, root):
    process = start_process(server, final, root)
    process.kill()
    process.wait(PATIENCE)
    assert not final.exists()
    fetch(server, final)
    assert server.ranges == [None, "bytes=300-"]
    assert final.read_bytes() == CONTENT
    assert left(final) == []


def test_of_two_processes_one_downloads_and_the_other_waits(server, final, root, caplog):
    process = start_process(server, final, root)
    results = []
    other = threading.Thread(target=lambda: results.append(fetch(server, final)), daemon=True)
    with caplog.at_level(logging.INFO, "mtm_jax"):
        other.start()
        wait_until(lambda: "another process holds" in caplog.text)
    server.released.set()
    other.join(PATIENCE)
    assert process.wait(PATIENCE) == 0
    assert results == [hashlib.sha256(CONTENT).hexdigest()]
    assert final.read_bytes() == CONTENT
    assert len(server.seen) == 1
    assert left(final) == []


def test_a_lock_whose_file_was_removed_by_its_last_owner_is_taken_anew(tmp_path):
    path, inside, most = tmp_path / "lock", [], []

    def enter():
        for _ in range(50):
            with download_part.locked(path):
                inside.append(None)
                most.append(len(inside))
                time.sleep(0)
                inside.pop()

    threads = [threading.Thread(target=enter, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(most) == 200 and max(most) == 1
    assert not path.exists()


def test_a_redirect_is_followed_with_its_range(server, final):
    to_data = redirect(f"{server.url}/elsewhere")
    server.orders = [to_data, cut(100), to_data]
    fetch(server, final)
    assert [path for path, _ in server.seen] == ["/data.bin", "/elsewhere"] * 2
    assert server.ranges == [None, None, "bytes=100-", "bytes=100-"]
    assert final.read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_leads_to_no_other_scheme(server, final, target, monkeypatch):
    monkeypatch.setenv("ftp_proxy", server.url)
    server.orders = [redirect(target)]
    with pytest.raises(UserError, match="not allowed|unknown url type"):
        fetch(server, final, check=lambda *_: None)
    assert len(server.seen) == 1 and not final.exists()


def test_a_file_of_unknown_length_is_read_to_its_end(server, final):
    server.orders = [functools.partial(answer, length=None)]
    fetch(server, final, progress=True)
    assert final.read_bytes() == CONTENT


def test_a_full_disk_is_one_sentence_and_keeps_the_part(server, final, monkeypatch):
    append = download_part.Part.append

    def fill(part, data):
        append(part, data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download_part.Part, "append", fill)
    with pytest.raises(UserError, match=r"cannot write .*data.bin \(No space left.* set MTM_JAX"):
        fetch(server, final)
    monkeypatch.setattr(download_part.Part, "append", append)
    fetch(server, final)
    assert server.ranges == [None, "bytes=100-"]


def test_a_folder_that_cannot_be_made_is_one_sentence(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .* set MTM_JAX_DATA to a folder"):
        fetch(server, tmp_path / "file" / "data.bin")
    assert server.seen == []


def test_progress_counts_megabytes(server, final, capsys):
    server.content = bytes(2_500_000)
    fetch(server, final, check=lambda *_: None, progress=True)
    assert "MB/s" in (out := capsys.readouterr().out) and "data.bin 3/3, " in out
