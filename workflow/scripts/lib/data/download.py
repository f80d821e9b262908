"""A dataset's `source` to a folder of files: downloads that survive cuts, checked to the byte, unpacked.

What is downloaded stays in a cache beside the outputs (Snakemake deletes a failed job's outputs), as
    FILE.part         what has arrived, when it is not all
    FILE.state.json   where it comes from, and by what the server's file is known again (ETag, date, size)
    FILE              complete, its checksum right
    FILE.wrong        complete, its checksum wrong; taken when a corrected checksum matches it
No library here resumes: pooch resolves DOIs, requests brings redirects, proxies, certificates and ~/.netrc.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import os
import random
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import filelock
import requests
import urllib3

from lib.data.archive import is_archive, is_unsupported, safe_path, unpack
from lib.errors import BadInput
from lib.files import atomic, read_json, write_json

CHUNK = 1 << 20
PROGRESS_SECONDS = 5
LONGEST_RETRY_AFTER = 600  # seconds that a server may ask to wait
HEX = {"sha256": 64, "md5": 32}
NO_FILE_NAMES = (".php", ".asp", ".aspx", ".jsp", ".cgi")  # programs, whose name says nothing of what they send
BY_BROWSER = "Download it by hand, unpack it, and give the folder as `source: {path: FOLDER}`."
LOCK = "config/downloads.lock.json"


@dataclass(frozen=True)
class Patience:
    """Seconds, and attempts in a row that bring no new byte."""

    attempts: int = 8
    first_wait: float = 1.0
    longest_wait: float = 120.0
    connect: float = 30.0
    stall: float = 60.0  # without a byte


@dataclass(frozen=True)
class Remote:
    """One file of a source: `url` is http(s) or doi:PREFIX/SUFFIX/FILE, `name` its path in the dataset's folder."""

    dataset: str
    url: str
    name: str
    checksum: tuple[str, str] | None  # algorithm, hexadecimal digits
    page: str

    @property
    def where(self) -> str:
        return f"dataset '{self.dataset}': {self.url}"

    @property
    def key(self) -> str:
        return f"config, datasets: {self.dataset}: source"


class Interrupted(Exception):
    """An attempt ended by what another attempt may mend."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


def remote_files(source: dict, dataset: str) -> list[Remote]:
    """The files of `{url, sha256|md5, name}` or `{urls: [{url, …}, …]}`; reads nothing.

    `page` beside them is named in errors. Raises BadInput on an address, name or checksum that cannot be right.
    """
    remotes: list[Remote] = []
    for entry in source.get("urls") or [source]:
        url = entry["url"]
        key = f"config, datasets: {dataset}: source: {url}"
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise BadInput(f"{key}: {error}; correct the address") from None
        if not (parts.scheme in ("http", "https") and parts.netloc) and not re.match(r"doi:10\.[^/]+/.+/.+", url):
            raise BadInput(f"{key}: write http://…, https://… or doi:10.5281/zenodo.NUMBER/FILE.zip")
        name = entry.get("name") or unquote(parts.path).rsplit("/", 1)[-1]
        try:
            name = safe_path(name)
        except ValueError as error:
            raise BadInput(f"{key}: name: {name!r} {error}; write the file's path in the dataset's folder") from None
        if "." not in name.strip(".") or name.lower().endswith(NO_FILE_NAMES):
            raise BadInput(f"{key}: the address does not say what kind of file it is; add `name: FILE.zip`")
        if is_unsupported(name):
            raise BadInput(f"{key}: '{name}' is in a format that cannot be unpacked here. {BY_BROWSER}")
        if any(name == other.name for other in remotes):
            raise BadInput(f"{key}: two files are called '{name}'; give one of them another `name:`")
        given = [(kind, str(entry[kind]).lower()) for kind in HEX if entry.get(kind) is not None]
        for kind, digits in given:
            if not re.fullmatch(rf"[0-9a-f]{{{HEX[kind]}}}", digits):
                raise BadInput(
                    f"{key}: {kind}: {digits!r} is not {HEX[kind]} hexadecimal digits; put it in quotes, or write null"
                )
        page = entry.get("page") or source.get("page") or _page(url)
        remotes.append(Remote(dataset, url, name, given[0] if given else None, page))
    return remotes


def require_folder(source: dict, dataset: str) -> Path:
    """The folder of `{path}`; raises BadInput, with the source's `manual` text and `page`, where it holds nothing."""
    folder = Path(source["path"]).expanduser()
    if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        return folder
    state = "is empty" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
    manual = f"\nIt is to be had by hand only: {source['manual'].strip()}" if source.get("manual") else ""
    page = f"\nThe page: {source['page']}" if source.get("page") else ""
    raise BadInput(
        f"config, datasets: {dataset}: source: path: the folder '{folder}' {state} (seen from {Path.cwd()})."
        f"{manual}{page}\nPut the unpacked files into '{folder}', or write where they are: `source: {{path: FOLDER}}`."
    )


def download_source(
    source: dict,
    folder: str | Path,
    dataset: str,
    cache: str | Path,
    lock: str | Path = LOCK,
    patience: Patience = Patience(),
) -> None:
    """Download what `source` names (see `remote_files`) into `cache`, check it, and unpack it into `folder`.

    An archive is unpacked where its `name` lies, other files are placed as they are; `folder` appears complete or
    not at all. A file whose checksum the source does not give is recorded in `lock` and held to it ever after.
    A job that was killed goes on where it ended. Prints progress. Raises BadInput for what another attempt cannot
    mend (not found, refused, wrong bytes), OSError for accidents (no connection, disk full).
    """
    remotes = remote_files(source, dataset)
    cache, folder, lock = Path(cache), Path(folder), Path(lock)
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / ".lock"):
        paths = [_fetch(remote, cache, lock, patience) for remote in remotes]
        for leftover in folder.parent.glob(".*"):  # of a job killed while it unpacked; no other job is here now
            if re.fullmatch(rf"\.\d+\.{re.escape(folder.name)}", leftover.name):
                shutil.rmtree(leftover)
        with atomic(folder) as temporary:
            temporary.mkdir()
            for remote, path in zip(remotes, paths, strict=True):
                target = temporary / remote.name
                if is_archive(path):
                    print(f"unpack {remote.name}", flush=True)
                    unpack(path, target.parent)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _place(path, target)
            if not any(path.is_file() for path in temporary.rglob("*")):
                raise BadInput(f"{remotes[0].where}: there is no file in it; correct the address at {remotes[0].key}")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that the system releases if this process dies."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"another job downloads here; waiting for it ({path})", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _place(path: Path, target: Path) -> None:
    try:
        os.link(path, target)  # no second copy on disk
    except OSError:
        shutil.copyfile(path, target)


def _fetch(remote: Remote, cache: Path, lock: Path, patience: Patience) -> Path:
    """The complete, checked file in the cache; downloaded if it is not there."""
    path = cache / remote.name
    part, wrong = (path.with_name(path.name + suffix) for suffix in (".part", ".wrong"))
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = _entries(lock).get(remote.url)
    expected = remote.checksum or (("sha256", entry["sha256"]) if entry else None)
    if path.exists() and (_matches(path, expected) if expected else _state(path).get("url") == remote.url):
        print(f"{remote.name}: already downloaded" + (f", {expected[0]} right" if expected else ""), flush=True)
        found = path
    else:
        if path.exists():
            print(f"{remote.name}: the file in {cache} is another one; it is downloaded anew", flush=True)
            os.replace(path, wrong)
        if expected and wrong.exists() and _matches(wrong, expected):
            print(f"{remote.name}: {wrong} matches the checksum now", flush=True)
            found = wrong
        else:
            found = part
            resumed, published = _transfer(remote, path, part, bool(expected), patience)
            expected = expected or published
            if expected and resumed and not _matches(part, expected):
                print(
                    f"{remote.name}: wrong {expected[0]} after a resumed download; once more from the start", flush=True
                )
                part.unlink()
                _transfer(remote, path, part, True, patience)
            if expected and not _matches(part, expected):
                os.replace(part, wrong)
                raise BadInput(_mismatch(remote, wrong, expected, lock, published))
    if not (remote.checksum or entry):
        _record(found, remote, lock, cache.parent / ".lock")
    os.replace(found, path)
    wrong.unlink(missing_ok=True)
    return path


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _matches(path: Path, checksum: tuple[str, str]) -> bool:
    return _digest(path, checksum[0]) == checksum[1]


def _mismatch(
    remote: Remote, wrong: Path, expected: tuple[str, str], lock: Path, published: tuple[str, str] | None
) -> str:
    algorithm, digits = expected
    got = _digest(wrong, algorithm)
    with wrong.open("rb") as file:
        start = file.read(16)
    text = (
        f"{remote.where}: wrong bytes: expected {algorithm} {digits}, got {got} ({wrong.stat().st_size} bytes, "
        f"beginning with {start!r}); kept as {wrong}.\n"
    )
    if remote.checksum:
        return text + (
            f"If the publisher has a new file and you want it ({remote.page}), write `{algorithm}: {got}` at "
            f"{remote.key}, and it is taken; else run again, and if it stays so tell the publisher."
        )
    if expected == published:
        return text + f"The {algorithm} is the one that the archive itself publishes ({remote.page}); run again."
    return text + (
        f"It is not the file that was first downloaded, as {lock} records. If the publisher has a new one and you "
        f"want it ({remote.page}), delete the entry of this address in {lock} and run again."
    )


# The record of what was downloaded without a checksum


def _entries(lock: Path) -> dict:
    try:
        return read_json(lock) if lock.exists() else {}
    except ValueError as error:
        raise BadInput(f"{lock} is not valid JSON ({error.__cause__}); restore it from version control.") from error


def _record(path: Path, remote: Remote, lock: Path, guard: Path) -> None:
    """Record a first download, safe for jobs at once; raises BadInput where another job was first with other bytes."""
    digits = _digest(path, "sha256")
    with _alone(guard):
        entries = _entries(lock)
        if remote.url not in entries:
            entries[remote.url] = {
                "sha256": digits,
                "size": path.stat().st_size,
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "dataset": remote.dataset,
            }
            write_json(lock, dict(sorted(entries.items())))
            print(f"{remote.name}: sha256 {digits} recorded in {lock}", flush=True)
        elif entries[remote.url]["sha256"] != digits:
            raise BadInput(_mismatch(remote, path, ("sha256", entries[remote.url]["sha256"]), lock, None))


# The transfer


def _state(path: Path) -> dict:
    """What is known of the file that `path` or its .part comes from; empty where nothing is."""
    try:
        return json.loads(path.with_name(path.name + ".state.json").read_text())
    except (OSError, ValueError):
        return {}


def _transfer(
    remote: Remote, path: Path, part: Path, verifiable: bool, patience: Patience
) -> tuple[bool, tuple[str, str] | None]:
    """Bring all bytes into `part`. Returns whether they came in pieces, and the checksum that a DOI's archive gives.

    Only attempts that bring no new byte are counted: 100 GB over a line that is cut every minute end well.
    """
    if _state(path).get("url") != remote.url:
        part.unlink(missing_ok=True)
    failures, farthest, resolved = 0, _size(part), None
    while True:
        try:
            resolved = resolved or _resolve(remote, patience)
            url, published = resolved
            return _attempt(remote, url, path, part, verifiable or bool(published), patience), published
        except Interrupted as error:
            here = _size(part)
            failures = 0 if here > farthest else failures + 1
            farthest = max(farthest, here)
            if failures >= patience.attempts:
                raise ConnectionError(
                    f"{remote.where}: given up after {failures} attempts without a new byte; the last: {error}. "
                    f"What has arrived ({here} bytes) is kept in {part}, and the next run goes on there. "
                    "If this machine cannot reach the internet (compute nodes often cannot), download where one can."
                ) from error
            wait = min(patience.longest_wait, patience.first_wait * 2**failures) * random.uniform(0.5, 1.5)
            wait = max(wait, error.wait or 0)
            print(f"{remote.name}: {error}; next attempt in {wait:.1f} s, from byte {here}", flush=True)
            time.sleep(wait)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def _reasons(remote: Remote, patience: Patience) -> Iterator[None]:
    """Turn what the network does into BadInput or Interrupted, in words."""
    try:
        yield
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise BadInput(f"{remote.where}: {error}; correct the address at {remote.key}") from error
    except requests.TooManyRedirects as error:
        raise BadInput(f"{remote.where}: redirected in a circle. Open {remote.page} and correct the address") from error
    except (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:
        raise Interrupted(f"the server sent nothing for {patience.stall:g} s") from error
    except requests.ConnectTimeout as error:
        raise Interrupted(f"no connection within {patience.connect:g} s") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        cause = error.args[0] if error.args else error
        cause = getattr(cause, "reason", cause)
        if "CERTIFICATE_VERIFY_FAILED" in str(cause):
            raise BadInput(
                f"{remote.where}: the server's certificate is not trusted: {cause}. If your institution's proxy stands "
                "between, set REQUESTS_CA_BUNDLE to the file of its certificate"
            ) from error
        raise Interrupted(f"the connection failed: {cause}") from error


def _resolve(remote: Remote, patience: Patience) -> tuple[str, tuple[str, str] | None]:
    """The address behind a DOI, and the checksum that its archive publishes; other addresses as they are."""
    if not remote.url.startswith("doi:"):
        return remote.url, None
    from pooch.downloaders import doi_to_repository
    from pooch.utils import parse_url

    parts = parse_url(remote.url)
    file = parts["path"].lstrip("/")
    known = SimpleNamespace(registry={})
    with _reasons(remote, patience):
        try:
            repository = doi_to_repository(parts["netloc"], timeout=(patience.connect, patience.stall))
            url = repository.download_url(file)
            repository.populate_registry(known)
        except requests.HTTPError as error:
            _refuse(error.response, remote)
            raise
        except requests.JSONDecodeError as error:
            raise Interrupted("the DOI's archive sends something else than JSON") from error
        except requests.RequestException:
            raise
        except ValueError as error:
            raise BadInput(f"{remote.where}: {error} Correct it at {remote.key}; the page: {remote.page}") from error
        except (KeyError, IndexError, TypeError) as error:
            raise Interrupted("the DOI's archive lists no files (overloaded, or a restricted record)") from error
    algorithm, _, digits = known.registry.get(file, "").rpartition(":")
    return url, ((algorithm, digits) if algorithm in HEX else None)


def _attempt(remote: Remote, url: str, path: Path, part: Path, verifiable: bool, patience: Patience) -> bool:
    """One connection: from where `part` ends to the last byte. Returns whether it went on with an earlier one's bytes.

    Raises Interrupted where another attempt may do better, BadInput where not, OSError where the disk is at fault.
    """
    state, size = _state(path), _size(part)
    if size and size == state.get("total"):
        return True  # only the check was missing
    validator = state.get("etag") or state.get("last_modified")
    headers = {"Accept-Encoding": "identity", "User-Agent": f"segcross ({requests.utils.default_user_agent()})"}
    # Where neither server nor checksum can tell whether it is the same file, bytes are not mixed.
    if size and (validator or verifiable):
        headers["Range"] = f"bytes={size}-"
        if validator:
            headers["If-Range"] = validator
    with (
        _reasons(remote, patience),
        requests.get(url, headers=headers, stream=True, timeout=(patience.connect, patience.stall)) as response,
    ):
        if response.status_code == 416 and "Range" in headers:
            part.unlink()
            raise Interrupted(f"the server has nothing from byte {size} on (HTTP 416), so it starts anew")
        _refuse(response, remote)
        going_on = response.status_code == 206
        now = _known_by(response)
        if going_on and (
            "Range" not in headers
            or _range_start(response) != size
            or any(now[key] and state.get(key) and now[key] != state[key] for key in now)
        ):
            part.unlink(missing_ok=True)
            raise Interrupted("the server's file is another one by now, so it starts anew")
        if size and not going_on:
            print(f"{remote.name}: the server sends it from the start again", flush=True)
        done = size if going_on else 0
        try:
            missing, free = (now["total"] or done) - done, shutil.disk_usage(part.parent).free
            if missing > free:
                raise OSError(errno.ENOSPC, "")
            with part.open("ab" if going_on else "wb") as file:
                if not going_on:  # after the old bytes are gone, so that a kill between cannot mix old and new
                    write_json(path.with_name(path.name + ".state.json"), {"url": remote.url, **now})
                progress = Progress(remote.name, done, now["total"])
                while chunk := response.raw.read1(CHUNK, decode_content=False):
                    file.write(chunk)
                    file.flush()
                    done += len(chunk)
                    progress.report(done)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(
                    error.errno,
                    f"{remote.where}: {os.strerror(error.errno)} in {part.parent}: {done} of "
                    f"{now['total'] or 'unknown many'} bytes are there, and kept. Make room and run again: it goes on.",
                ) from error
            raise
        if now["total"] is None:
            write_json(path.with_name(path.name + ".state.json"), {"url": remote.url, **now, "total": done})
        elif now["total"] != done:
            raise Interrupted(f"the server said {now['total']} bytes and sent {done}")
        progress.report(done, last=True)
        return going_on


def _refuse(response: requests.Response, remote: Remote) -> None:
    """Raise BadInput or Interrupted unless the answer carries the file."""
    status = f"HTTP {response.status_code} {response.reason}".strip()
    code = response.status_code
    if code in (401, 403):
        raise BadInput(
            f"{remote.where}: {status}: the server does not give this file to everybody. Look at {remote.page}: there "
            f"may be a login or a licence to accept. {BY_BROWSER} (A server's name and password can be in ~/.netrc.)"
        )
    if code in (404, 410):
        raise BadInput(
            f"{remote.where}: {status}: there is no such file. Look at {remote.page} for where it went, and "
            f"correct {remote.key}."
        )
    if code in (408, 425, 429) or code >= 500:
        wait = _retry_after(response.headers.get("Retry-After"))
        if wait is not None and wait > LONGEST_RETRY_AFTER:
            raise ConnectionError(
                f"{remote.where}: {status}: the server asks to come back in {wait:.0f} s; run again then."
            )
        raise Interrupted(status, wait)
    if code not in (200, 206):
        raise BadInput(f"{remote.where}: unexpected answer {status}. Look at {remote.page}.")
    kind = response.headers.get("Content-Type", "").lower()
    if kind.startswith("text/html") and not remote.name.endswith((".html", ".htm")):
        raise BadInput(
            f"{remote.where}: the server answers with a web page, not with {remote.name}: most often a login or "
            f"a licence to accept. Look at {remote.page}. {BY_BROWSER}"
        )
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("", "identity") and not remote.name.lower().endswith("gz"):  # .gz itself is often called so
        raise BadInput(f"{remote.where}: sent with Content-Encoding {encoding}, which was not asked for. {BY_BROWSER}")


def _known_by(response: requests.Response) -> dict:
    """By what the server's file is known again: a strong ETag, the date of its last change, its size."""
    headers = response.headers
    etag = headers.get("ETag", "")
    if response.status_code == 206:
        total = headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = headers.get("Content-Length", "")
    return {
        "etag": etag if etag.startswith('"') else None,
        "last_modified": headers.get("Last-Modified"),
        "total": int(total) if total.isdecimal() else None,
    }


def _range_start(response: requests.Response) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number or a date."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())


def _page(url: str) -> str:
    """Where a person finds out more: the DOI's page, or the folder of the file."""
    if url.startswith("doi:"):
        return f"https://doi.org/{PurePosixPath(url[4:]).parent}"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rpartition('/')[0]}/"


class Progress:
    """A line every few seconds, readable in a log file."""

    def __init__(self, name: str, start: int, total: int | None):
        self.name, self.start, self.total = name, start, total
        self.began = self.printed = time.monotonic()

    def report(self, done: int, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self.printed < PROGRESS_SECONDS:
            return
        self.printed = now
        rate = (done - self.start) / max(now - self.began, 1e-3)
        share = (
            f"{100 * done / self.total:.0f} % of {self.total / 1e6:.1f} MB" if self.total else f"{done / 1e6:.1f} MB"
        )
        left = f", {(self.total - done) / rate / 60:.0f} min left" if self.total and rate and not last else ""
        print(f"{self.name}: {share}, {rate / 1e6:.1f} MB/s{left}", flush=True)
