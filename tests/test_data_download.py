from __future__ import annotations

import datetime
import email.utils
import errno
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.data import download as download_module
from lib.data.download import Patience, download_source, remote_files, require_folder
from lib.errors import BadInput

QUICK = Patience(attempts=4, first_wait=0.001, longest_wait=0.01, connect=2, stall=0.2)
DATA = bytes(range(256)) * 1200  # 300 kB
SHA = hashlib.sha256(DATA).hexdigest()


class Server:
    """A real HTTP server on this machine that misbehaves as told: `plan` holds one dictionary per coming request.

    status, headers, body: sent instead. cut: bytes after which it hangs up (reset: rudely). stall: bytes after which it
    falls silent. length: said instead of the true one. ignore_range. ignore_if_range. chunked.
    """

    def __init__(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                outer.answer(self)

        class Listener(http.server.ThreadingHTTPServer):
            def handle_error(self, *args):
                pass  # clients hang up here all the time

        self.listener = Listener(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.listener.server_port}"
        threading.Thread(target=self.listener.serve_forever, args=(0.01,), daemon=True).start()
        self.reset()

    def reset(self) -> None:
        self.files: dict[str, bytes] = {"/data/x.bin": DATA}
        self.validators: dict[str, str] = {"ETag": '"one"'}
        self.always: dict = {}
        self.plan: list[dict] = []
        self.requests: list[dict] = []
        self.over = threading.Event()

    def answer(self, handler) -> None:
        self.requests.append({"path": handler.path, **{k.lower(): v for k, v in handler.headers.items()}})
        how = self.always | (self.plan.pop(0) if self.plan else {})
        path = handler.path.partition("?")[0]
        body = how.get("body", self.files.get(path, b""))
        status = how.get("status", 200 if path in self.files else 404)
        headers = dict(self.validators)
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        same = handler.headers.get("If-Range") in (None, *self.validators.values()) or how.get("ignore_if_range")
        if status == 200 and wanted and same and not how.get("ignore_range"):
            start = int(wanted[1])
            if start >= len(body):
                status, headers, body = 416, {"Content-Range": f"bytes */{len(body)}"}, b""
            else:
                status = 206
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                body = body[start:]
        handler.send_response(status)
        if how.get("chunked"):
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(how.get("length", len(body)))
        for key, value in (headers | how.get("headers", {})).items():
            handler.send_header(key, value)
        handler.end_headers()
        end = how.get("cut", how.get("stall"))
        if how.get("chunked"):
            for i in range(0, len(body[:end]), 50_000):
                piece = body[:end][i : i + 50_000]
                handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            if end is None:
                handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.wfile.write(body[:end])
        handler.wfile.flush()
        if "stall" in how:
            self.over.wait(20)
        if "reset" in how:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
        handler.close_connection = end is not None or "length" in how


@pytest.fixture(scope="module")
def running_server():
    server = Server()
    yield server
    server.over.set()
    server.listener.shutdown()


@pytest.fixture
def server(running_server, in_tmp, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running_server.reset()
    yield running_server
    running_server.over.set()


def fetch(server: Server, patience: Patience = QUICK, dataset: str = "hearts", **source) -> dict[str, bytes]:
    """Download into results/data/DATASET/raw; the files that are there then."""
    source = source if "urls" in source else {"url": f"{server.root}/data/x.bin", **source}
    raw = Path(f"results/data/{dataset}/raw")
    download_source(source, raw, dataset, f"results/downloads/{dataset}", "config/downloads.lock.json", patience)
    return {p.relative_to(raw).as_posix(): p.read_bytes() for p in raw.rglob("*") if p.is_file()}


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return buffer.getvalue()


CACHE = Path("results/downloads/hearts")
LOCK = Path("config/downloads.lock.json")


def test_a_checked_download(server):
    assert fetch(server, sha256=SHA.upper()) == {"x.bin": DATA}
    assert not LOCK.exists()  # the config holds the checksum
    assert sorted(p.name for p in CACHE.iterdir()) == [".lock", "x.bin", "x.bin.state.json"]
    assert (CACHE / "x.bin").stat().st_ino == Path("results/data/hearts/raw/x.bin").stat().st_ino  # no second copy
    assert fetch(server, sha256=SHA, md5=None) == {"x.bin": DATA}
    assert fetch(server, md5=hashlib.md5(DATA).hexdigest()) == {"x.bin": DATA}
    assert len(server.requests) == 1


def test_several_files_and_archives(server):
    server.files = {"/a.zip": zipped(**{"1.png": b"image"}), "/b.zip": zipped(**{"1.png": b"mask"}), "/t.csv": b"a,b"}
    urls = [
        {"url": f"{server.root}/a.zip", "name": "images/a.zip"},
        {"url": f"{server.root}/b.zip?download=1", "name": "masks/b.zip"},
        {"url": f"{server.root}/t.csv"},
    ]
    assert fetch(server, urls=urls) == {"images/1.png": b"image", "masks/1.png": b"mask", "t.csv": b"a,b"}
    with pytest.raises(
        BadInput, match=r"b.zip: refused: its member '1.png' is there already .* `name: FOLDER/FILE.zip`"
    ):
        fetch(server, urls=[{"url": entry["url"]} for entry in urls])
    # what was there stays whole
    assert Path("results/data/hearts/raw/masks/1.png").read_bytes() == b"mask"
    assert [p.name for p in Path("results/data/hearts").iterdir()] == ["raw"]


@pytest.mark.parametrize("rude", [{}, {"reset": True}, {"chunked": True}])
@pytest.mark.parametrize("checksum", [SHA, None])
def test_a_cut_is_resumed_where_it_happened(server, capsys, rude, checksum):
    server.plan = [{"cut": 100_000, **rude}, {"cut": 50_000, **rude}]
    assert fetch(server, sha256=checksum) == {"x.bin": DATA}
    first, second, third = server.requests
    assert "range" not in first and first["accept-encoding"] == "identity"
    if "reset" not in rude:  # a reset may lose what is on the way
        assert (second["range"], third["range"]) == ("bytes=100000-", "bytes=150000-")
    assert second["if-range"] == third["if-range"] == '"one"'
    log = capsys.readouterr().out
    assert re.search(r"x.bin: the connection failed: .*; next attempt in 0\.0 s, from byte 1?\d+", log)
    assert "x.bin: 100 % of 0.3 MB" in log


def test_a_stall_is_resumed(server, capsys):
    server.plan = [{"stall": 100_000}]
    assert fetch(server, sha256=SHA) == {"x.bin": DATA}
    assert server.requests[1]["range"] == "bytes=100000-"
    assert "x.bin: the server sent nothing for 0.2 s; next attempt in" in capsys.readouterr().out


def test_a_server_that_ignores_range(server, capsys):
    server.always = {"ignore_range": True}
    server.plan = [{"cut": 100_000}, {"cut": 200_000}]
    assert fetch(server) == {"x.bin": DATA}
    assert "x.bin: the server sends it from the start again" in capsys.readouterr().out


def test_a_server_that_ignores_range_and_always_cuts_is_given_up(server):
    server.always = {"ignore_range": True, "cut": 100_000}
    with pytest.raises(ConnectionError, match=r"given up after 4 attempts without a new byte"):
        fetch(server)
    assert len(server.requests) == 5


@pytest.mark.parametrize("rude", [{}, {"ignore_if_range": True}])
@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_a_file_that_changed_between_starts_anew(server, monkeypatch, rude, validator):
    old = {"ETag": '"one"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}[validator]
    new = {"ETag": '"two"', "Last-Modified": "Tue, 02 Jan 2024 00:00:00 GMT"}[validator]
    server.validators = {validator: old}
    server.always = rude
    server.plan = [{"cut": 100_000}, {"status": 500, "body": b""}]

    def change(seconds):
        server.files["/data/x.bin"] = DATA[::-1]
        server.validators = {validator: new}

    monkeypatch.setattr(download_module.time, "sleep", change)
    assert fetch(server) == {"x.bin": DATA[::-1]}
    assert server.requests[2]["if-range"] == old


def test_weak_etags_are_not_trusted(server):
    server.validators = {"ETag": 'W/"one"'}
    server.plan = [{"cut": 100_000}]
    assert fetch(server) == {"x.bin": DATA}
    assert "range" not in server.requests[1]


def test_without_validators_the_checksum_guards_what_is_resumed(server, monkeypatch, capsys):
    server.validators = {}
    server.plan = [{"cut": 100_000}]
    assert fetch(server) == {"x.bin": DATA}
    assert "range" not in server.requests[1]  # nothing could tell whether the bytes belong together

    old, server.files["/data/x.bin"] = DATA[::-1], DATA
    server.plan = [{"body": old, "cut": 100_000}]
    server.requests.clear()
    assert fetch(server, dataset="other", sha256=SHA) == {"x.bin": DATA}
    assert [r.get("range") for r in server.requests] == [None, "bytes=100000-", None]
    assert "wrong sha256 after a resumed download; once more from the start" in capsys.readouterr().out


def test_an_answer_for_another_range_is_not_taken(server, capsys):
    server.plan = [{"cut": 100_000}, {"status": 206, "headers": {"Content-Range": "bytes 90000-307199/307200"}}]
    assert fetch(server) == {"x.bin": DATA}
    assert "the server's file is another one by now, so it starts anew" in capsys.readouterr().out


def test_416_starts_anew(server, capsys):
    server.plan = [{"cut": 200_000}, {"body": b"short", "ignore_if_range": True}]
    assert fetch(server, sha256=SHA) == {"x.bin": DATA}
    assert "the server has nothing from byte 200000 on (HTTP 416), so it starts anew" in capsys.readouterr().out


def test_a_wrong_content_length(server):
    server.always = {"length": len(DATA) + 1000}
    with pytest.raises(
        ConnectionError, match=r"given up after 4 attempts .*the connection failed: .*1000 more expected"
    ):
        fetch(server)
    server.reset()
    server.plan = [{"length": 1000}]  # too short: the rest is never read, and only the checksum can tell
    with pytest.raises(BadInput, match=r"wrong bytes: .* \(1000 bytes"):
        fetch(server, sha256=SHA, dataset="other")


def test_chunked_and_killed_before_the_check(server):
    server.plan = [{"chunked": True}]
    CACHE.mkdir(parents=True)
    with pytest.raises(BadInput, match="wrong bytes"):
        fetch(server, sha256="0" * 64)
    os.replace(CACHE / "x.bin.wrong", CACHE / "x.bin.part")
    assert fetch(server, sha256=SHA) == {"x.bin": DATA}
    assert len(server.requests) == 1


def test_wrong_bytes_are_kept_and_taken_when_the_checksum_is_corrected(server):
    with pytest.raises(BadInput) as error:
        fetch(server, sha256="0" * 64, page="https://hearts.example/about")
    message = str(error.value)
    assert f"dataset 'hearts': {server.root}/data/x.bin: wrong bytes: expected sha256 {'0' * 64}, got {SHA}" in message
    assert "(307200 bytes, beginning with b'\\x00\\x01" in message
    assert "kept as results/downloads/hearts/x.bin.wrong" in message
    assert f"(https://hearts.example/about), write `sha256: {SHA}` at config, datasets: hearts: source" in message
    assert not Path("results/data/hearts/raw").exists()
    assert len(server.requests) == 1
    assert fetch(server, sha256=SHA) == {"x.bin": DATA}
    assert len(server.requests) == 1
    assert not (CACHE / "x.bin.wrong").exists()


def test_a_cached_file_is_checked_again(server, capsys):
    fetch(server, sha256=SHA)
    (CACHE / "x.bin").unlink()
    (CACHE / "x.bin").write_bytes(b"rotten")
    assert fetch(server, sha256=SHA) == {"x.bin": DATA}
    assert len(server.requests) == 2
    assert (
        "x.bin: the file in results/downloads/hearts is another one; it is downloaded anew" in capsys.readouterr().out
    )


def test_another_address_for_the_same_name_is_not_confused(server):
    server.files["/other/x.bin"] = b"other"
    fetch(server)
    assert fetch(server, url=f"{server.root}/other/x.bin") == {"x.bin": b"other"}
    server.plan = [{"cut": 2}, {"status": 404}]
    with pytest.raises(BadInput, match="404"):
        fetch(server, url=f"{server.root}/data/x.bin?v=2")  # leaves 2 bytes behind
    server.requests.clear()
    assert fetch(server, url=f"{server.root}/other/x.bin?v=3") == {"x.bin": b"other"}
    assert "range" not in server.requests[0]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"HTTP 401 Unauthorized: the server does not give this file to everybody. Look at PAGE: .*~/.netrc"),
        (403, r"HTTP 403 Forbidden: .*a login or a licence to accept. Download it by hand, .*`source: {path: FOLDER}`"),
        (404, r"HTTP 404 Not Found: there is no such file. Look at PAGE .* correct config, datasets: hearts: source\."),
        (410, r"HTTP 410 Gone: there is no such file"),
        (400, r"unexpected answer HTTP 400 Bad Request. Look at PAGE\."),
        (204, r"unexpected answer HTTP 204 No Content"),
    ],
)
def test_what_retrying_cannot_mend_is_asked_once(server, status, message):
    server.always = {"status": status, "body": b""}
    page = f"{server.root}/data/"
    with pytest.raises(BadInput, match=message.replace("PAGE", page)) as error:
        fetch(server)
    assert str(error.value).startswith(f"dataset 'hearts': {server.root}/data/x.bin: ")
    assert len(server.requests) == 1
    with pytest.raises(BadInput, match="https://hearts.example" if "PAGE" in message else "."):
        fetch(server, page="https://hearts.example")


def test_servers_that_recover(server, capsys):
    server.plan = [{"status": s, "body": b"sorry"} for s in (500, 503, 502)]
    assert fetch(server) == {"x.bin": DATA}
    log = capsys.readouterr().out
    for reason in ("HTTP 500 Internal Server Error", "HTTP 503 Service Unavailable", "HTTP 502 Bad Gateway"):
        assert f"x.bin: {reason}; next attempt in" in log


def test_a_server_that_does_not_recover(server):
    server.always = {"status": 503, "body": b""}
    server.plan = [{"status": 200, "body": DATA, "cut": 1000}]
    with pytest.raises(ConnectionError) as error:
        fetch(server)
    assert str(error.value).startswith(
        f"dataset 'hearts': {server.root}/data/x.bin: given up after 4 attempts without a new byte; the last: "
        "HTTP 503 Service Unavailable. What has arrived (1000 bytes) is kept in results/downloads/hearts/x.bin.part, "
    )
    assert len(server.requests) == 1 + 4
    server.reset()
    assert fetch(server) == {"x.bin": DATA}
    assert server.requests[0]["range"] == "bytes=1000-"


def test_waits_grow_jitter_and_honour_retry_after(server, monkeypatch):
    waits = []
    monkeypatch.setattr(download_module.time, "sleep", waits.append)
    in_a_minute = email.utils.format_datetime(
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60), True
    )
    server.plan = [
        {"status": 503, "body": b"", "headers": {"Retry-After": after}} for after in ("37", in_a_minute, "soon")
    ]
    server.plan += [{"status": 429, "body": b""}] * 3
    fetch(server, patience=Patience(first_wait=1, longest_wait=20))
    assert waits[0] == 37 and 50 < waits[1] <= 60
    for n, wait in enumerate(waits[2:], 3):
        assert 0.5 * min(2**n, 20) <= wait <= 1.5 * min(2**n, 20)
    server.plan = [{"status": 429, "body": b"", "headers": {"Retry-After": "7200"}}]
    with pytest.raises(
        ConnectionError, match=r"HTTP 429 Too Many Requests: the server asks to come back in 7200 s; run"
    ):
        fetch(server, dataset="other")


def test_redirects(server):
    server.plan = [{"status": 302, "body": b"", "headers": {"Location": "/data/x.bin"}}]
    assert fetch(server, url=f"{server.root}/old/y.bin") == {"y.bin": DATA}
    server.always = {"status": 302, "body": b"", "headers": {"Location": "/data/x.bin"}}
    with pytest.raises(BadInput, match=r"redirected in a circle. Open http://.*/data/ and correct the address"):
        fetch(server)


def test_a_web_page_instead_of_a_file(server):
    server.plan = [{"body": b"<html>", "headers": {"Content-Type": "text/html; charset=utf-8"}}]
    with pytest.raises(BadInput, match=r"answers with a web page, not with x.bin: most often a login or a licence"):
        fetch(server)
    assert not LOCK.exists()
    server.plan = [{"headers": {"Content-Encoding": "gzip"}}]
    with pytest.raises(BadInput, match=r"sent with Content-Encoding gzip, which was not asked for"):
        fetch(server)


def test_no_server_and_no_such_host(server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x.bin"
        with pytest.raises(ConnectionError, match=r"the last: .*Connection refused.* internet \(compute nodes often"):
            fetch(server, url=url)
    with pytest.raises(ConnectionError, match=r"https?://no-such-host\.invalid/x\.bin: given up after 4 attempts"):
        fetch(server, url="http://no-such-host.invalid/x.bin")
    with pytest.raises(BadInput, match=r"config, datasets: hearts: source"):
        fetch(server, url="http://*bad*/x.bin")


def test_a_full_disk_is_named_and_the_rest_kept(server, monkeypatch):
    CACHE.mkdir(parents=True)
    (CACHE / "x.bin.state.json").write_text(json.dumps({"url": f"{server.root}/data/x.bin"}))
    (CACHE / "x.bin.part").symlink_to("/dev/full")
    with pytest.raises(
        OSError, match=r"hearts.*No space left on device in results/downloads/hearts: .* Make room"
    ) as error:
        fetch(server)
    assert error.value.errno == errno.ENOSPC
    (CACHE / "x.bin.part").unlink()
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=len(DATA) - 1))
    with pytest.raises(OSError, match=r"0 of 307200 bytes are there, and kept"):
        fetch(server)
    assert len(server.requests) == 2  # not tried again: waiting makes no room
    monkeypatch.setattr(shutil, "disk_usage", real)
    assert fetch(server) == {"x.bin": DATA}


def test_a_first_download_is_recorded_and_held_to_it(server, capsys):
    url = f"{server.root}/data/x.bin"
    fetch(server, sha256=None)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    assert json.loads(LOCK.read_text()) == {url: {"sha256": SHA, "size": len(DATA), "date": today, "dataset": "hearts"}}
    assert f"x.bin: sha256 {SHA} recorded in config/downloads.lock.json" in capsys.readouterr().out

    server.files["/data/x.bin"] = b"new"
    assert fetch(server) == {"x.bin": DATA}  # the cache is right, nobody asks the server
    shutil.rmtree("results")
    got = hashlib.sha256(b"new").hexdigest()
    for _ in range(2):
        with pytest.raises(BadInput) as error:
            fetch(server)
        assert f"wrong bytes: expected sha256 {SHA}, got {got} (3 bytes, beginning with b'new')" in str(error.value)
        assert "not the file that was first downloaded, as config/downloads.lock.json records" in str(error.value)
        assert "delete the entry of this address in config/downloads.lock.json and run again" in str(error.value)
    LOCK.write_text("{}")
    assert fetch(server) == {"x.bin": b"new"}
    assert json.loads(LOCK.read_text())[url]["sha256"] == got
    LOCK.write_text('{"x": ')
    with pytest.raises(
        BadInput, match=r"config/downloads.lock.json is not valid JSON .*restore it from version control"
    ):
        fetch(server)


def test_jobs_at_once_record_all_and_share_a_download(server):
    names = [f"d{i}" for i in range(8)]
    server.files |= {f"/{name}.bin": name.encode() for name in names}
    jobs = [{"dataset": name, "url": f"{server.root}/{name}.bin"} for name in names] + [{}, {}, {}]
    errors: list[BaseException] = []

    def run(job):
        try:
            fetch(server, **job)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(entry["dataset"] for entry in json.loads(LOCK.read_text()).values()) == [*names, "hearts"]
    assert [r["path"] for r in server.requests].count("/data/x.bin") == 1


def test_two_datasets_that_get_different_bytes_from_one_address(server, monkeypatch):
    """The one that comes second is stopped, although neither found a record when it began."""
    real = download_module._transfer

    def other_job_first(*args):
        result = real(*args)
        entry = {"sha256": "1" * 64, "size": 1, "date": "2026-01-01", "dataset": "twin"}
        LOCK.parent.mkdir()
        LOCK.write_text(json.dumps({f"{server.root}/data/x.bin": entry}))
        return result

    monkeypatch.setattr(download_module, "_transfer", other_job_first)
    with pytest.raises(BadInput, match=r"expected sha256 1111.*\n.*delete the entry of this address"):
        fetch(server)


def test_a_killed_download_goes_on(server):
    server.plan = [{"stall": 200_000}]
    code = (
        "from lib.data.download import download_source as d\n"
        f"d({{'url': '{server.root}/data/x.bin'}}, 'results/data/hearts/raw', 'hearts', '{CACHE}', '{LOCK}')"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts")}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL) as job:
        part = CACHE / "x.bin.part"
        deadline = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size == 200_000) and time.monotonic() < deadline:
            time.sleep(0.01)
        job.send_signal(signal.SIGKILL)
    assert job.returncode == -signal.SIGKILL
    leftover = Path(f"results/data/hearts/.{job.pid}.raw")  # as if it had been killed while it unpacked
    leftover.mkdir(parents=True)
    (leftover / "half").write_bytes(b"")
    assert fetch(server) == {"x.bin": DATA}
    assert server.requests[1]["range"] == "bytes=200000-"
    assert not leftover.exists()


def faults():
    offset = st.integers(0, len(DATA))
    return st.one_of(
        st.fixed_dictionaries({"cut": offset}),
        st.fixed_dictionaries({"cut": offset, "chunked": st.just(True)}),
        st.fixed_dictionaries({"cut": offset, "ignore_range": st.just(True)}),
        st.fixed_dictionaries({"length": st.integers(len(DATA) + 1, 2 * len(DATA))}),
        st.just({"status": 503, "body": b"later"}),
        st.fixed_dictionaries({"body": st.just(DATA[::-1]), "headers": st.just({"ETag": '"two"'}), "cut": offset}),
    )


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.lists(faults(), max_size=6), given_checksum=st.booleans(), ended_runs=st.booleans())
def test_any_sequence_of_faults_ends_in_the_exact_bytes(server, plan, given_checksum, ended_runs):
    server.reset()
    server.plan = list(plan)
    shutil.rmtree("results", ignore_errors=True)
    shutil.rmtree("config", ignore_errors=True)
    patience = Patience(attempts=1 if ended_runs else 30, first_wait=0, longest_wait=0, connect=2, stall=2)
    for _ in range(40):
        try:
            files = fetch(server, patience=patience, sha256=SHA if given_checksum else None)
        except ConnectionError:
            continue
        except BadInput:  # the changed file, complete
            assert given_checksum
            continue
        complete_change = any(how.get("cut") == len(DATA) and "body" in how for how in plan)
        assert files == {"x.bin": DATA} or (not given_checksum and complete_change and files == {"x.bin": DATA[::-1]})
        return
    raise AssertionError("never ended")


def test_progress_reads_well_in_a_log(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 6.0, 8.0, 20.0])
    monkeypatch.setattr(download_module.time, "monotonic", lambda: next(clock))
    progress = download_module.Progress("x.zip", 100_000_000, 1_000_000_000)
    for done in (110_000_000, 220_000_000, 260_000_000):
        progress.report(done)
    progress.report(1_000_000_000, last=True)
    assert capsys.readouterr().out.splitlines() == [
        "x.zip: 22 % of 1000.0 MB, 20.0 MB/s, 1 min left",
        "x.zip: 100 % of 1000.0 MB, 45.0 MB/s",
    ]


def test_archives_of_nothing_and_broken_ones_leave_no_output(server):
    server.files = {"/empty.zip": zipped(), "/broken.zip": zipped(a=b"a" * 1000)[:-30]}
    with pytest.raises(
        BadInput, match=r"hearts': http.*empty.zip: there is no file in it; correct the address at config"
    ):
        fetch(server, url=f"{server.root}/empty.zip")
    with pytest.raises(BadInput, match=r"broken.zip: corrupt or cut short"):
        fetch(server, url=f"{server.root}/broken.zip")
    assert not Path("results/data/hearts/raw").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"url": "ftp://host/x.zip"},
            r"config, datasets: d: source: ftp://host/x.zip: write http://…, https://… or doi:",
        ),
        ({"url": "http://[host/x.zip"}, r"Invalid IPv6 URL; correct the address"),
        ({"url": "doi:10.5281/zenodo.1"}, r"or doi:10.5281/zenodo.NUMBER/FILE.zip"),
        ({"url": "http://host/download?id=3"}, r"does not say what kind of file it is; add `name: FILE.zip`"),
        ({"url": "http://host/get.php?id=3"}, r"add `name: FILE.zip`"),
        ({"url": "http://host/x.rar"}, r"'x.rar' is in a format that cannot be unpacked here. Download it by hand"),
        ({"url": "http://host/x.zip", "name": "../x.zip"}, r"name: '../x.zip' leads out of the folder"),
        ({"url": "http://host/x.zip", "name": "/x.zip"}, r"name: '/x.zip' is an absolute path"),
        (
            {"url": "http://host/x.zip", "sha256": "abc"},
            r"sha256: 'abc' is not 64 hexadecimal digits; put it in quotes, or",
        ),
        ({"url": "http://host/x.zip", "md5": 12}, r"md5: '12' is not 32 hexadecimal digits"),
        ({"urls": [{"url": "http://a/x.zip"}, {"url": "http://b/x.zip"}]}, r"two files are called 'x.zip'; give one"),
    ],
)
def test_a_source_that_cannot_be_right(source, message):
    with pytest.raises(BadInput, match=message):
        remote_files(source, "d")


def test_names_and_pages_of_a_source():
    (plain,) = remote_files({"url": "https://host/a%20b/x%20y.zip?download=1"}, "d")
    assert (plain.name, plain.page, plain.checksum) == ("x y.zip", "https://host/a%20b/", None)
    (doi,) = remote_files({"url": "doi:10.5281/zenodo.42/x.zip", "md5": "A" * 32}, "d")
    assert (doi.name, doi.page, doi.checksum) == ("x.zip", "https://doi.org/10.5281/zenodo.42", ("md5", "a" * 32))
    (both,) = remote_files({"url": "https://host/x.zip", "sha256": "b" * 64, "md5": "a" * 32, "page": "https://p"}, "d")
    assert (both.checksum, both.page) == (("sha256", "b" * 64), "https://p")


def zenodo(server, monkeypatch, checksum: str) -> None:
    """Zenodo's interface on the local server; pooch's own code speaks to it."""
    import pooch.downloaders as pooch

    monkeypatch.setattr(pooch.ZenodoRepository, "base_api_url", f"{server.root}/api/records")
    monkeypatch.setattr(pooch, "doi_to_url", lambda doi, **kwargs: f"https://zenodo.org/records/{doi.split('.')[-1]}")
    file = {"key": "x.bin", "checksum": f"md5:{checksum}", "links": {"self": f"{server.root}/data/x.bin"}}
    server.files["/api/records/42"] = json.dumps({"id": 42, "files": [file]}).encode()


def test_a_doi_and_the_checksum_that_its_archive_publishes(server, monkeypatch):
    zenodo(server, monkeypatch, hashlib.md5(DATA).hexdigest())
    server.plan = [{"status": 502, "body": b"<html>"}]  # no JSON: asked again
    assert fetch(server, url="doi:10.5281/zenodo.42/x.bin") == {"x.bin": DATA}
    assert list(json.loads(LOCK.read_text())) == ["doi:10.5281/zenodo.42/x.bin"]
    with pytest.raises(
        BadInput, match=r"File 'y.bin' not found in data archive .*the page: https://doi.org/10.5281/zenodo.42"
    ):
        fetch(server, url="doi:10.5281/zenodo.42/y.bin")
    LOCK.unlink()
    zenodo(server, monkeypatch, "0" * 32)
    with pytest.raises(BadInput, match=r"expected md5 000.*\nThe md5 is the one that the archive itself publishes"):
        fetch(server, url="doi:10.5281/zenodo.42/x.bin", dataset="other")
    server.files["/api/records/42"] = b'{"id": 42, "status": 403}'
    with pytest.raises(
        ConnectionError, match=r"the DOI's archive lists no files \(overloaded, or a restricted record\)"
    ):
        fetch(server, url="doi:10.5281/zenodo.42/x.bin", dataset="third")


def test_a_folder_that_is_to_be_filled_by_hand(in_tmp):
    source = {
        "path": "data/hearts",
        "manual": "Register, then download training.zip.\n",
        "page": "https://hearts.example",
    }
    with pytest.raises(BadInput) as error:
        require_folder(source, "hearts")
    message = str(error.value)
    assert (
        f"config, datasets: hearts: source: path: the folder 'data/hearts' does not exist (seen from {in_tmp})"
        in message
    )
    assert (
        "\nIt is to be had by hand only: Register, then download training.zip.\nThe page: https://hearts.example\n"
        in message
    )
    assert "Put the unpacked files into 'data/hearts', or write where they are: `source: {path: FOLDER}`." in message
    folder = Path("data/hearts")
    folder.mkdir(parents=True)
    (folder / ".DS_Store").touch()
    with pytest.raises(BadInput, match=r"the folder 'data/hearts' is empty"):
        require_folder(source, "hearts")
    (folder / "a.nii.gz").touch()
    assert require_folder(source, "hearts") == folder
    with pytest.raises(BadInput, match=r"the folder 'data/hearts/a.nii.gz' is a file \(seen from .*\)\.\nPut the"):
        require_folder({"path": "data/hearts/a.nii.gz"}, "hearts")
