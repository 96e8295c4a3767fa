"""Download files: streamed, resumed where a transfer broke off, checked against size and sha256, put in place at once.

While it comes in, a file is ``NAME.partial`` with a note beside it (``NAME.partial.json``) of the server's mark of its
version. A later run asks for the rest only if that mark still holds; servers that ignore the request, or whose file
has changed, make it start over. A file of the right size and checksum is then renamed into place.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from actkit.compute import format_bytes
from actkit.compute import progress as progress_bar
from actkit.data_specs.schema import FileSpec
from actkit.errors import DataError

if TYPE_CHECKING:
    import requests

_BLOCK = 1 << 16  # at most this much is lost when a connection drops
_TIMEOUT = (15.0, 60.0)  # seconds to connect, and of silence while reading
_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))


@dataclass(frozen=True)
class FileFault:
    """A file of a data set that is missing or not what its spec says."""

    name: str
    path: Path
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def sha256_of(path: str | Path) -> str:
    """Compute the checksum of a file.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    str
        sha256 in hexadecimal.
    """
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            total.update(block)
    return total.hexdigest()


def check_file(name: str, file: FileSpec, folder: str | Path, content: bool = True) -> FileFault | None:
    """Compare a file with its spec.

    Parameters
    ----------
    name : str
        The file's name in the spec.
    file : FileSpec
        What it should be.
    folder : path
        The data set's folder.
    content : bool
        Whether to read it and recompute its checksum; without, only existence and size count.

    Returns
    -------
    FileFault or None
        What is wrong; None if nothing is.
    """
    path = Path(folder) / file.path
    if not path.is_file():
        return FileFault(name, path, "missing")
    size = path.stat().st_size
    if size != file.bytes:
        return FileFault(name, path, f"{size} bytes instead of {file.bytes}")
    if content:
        found = sha256_of(path)
        if found != file.sha256:
            return FileFault(name, path, f"its sha256 is {found[:12]}… instead of {file.sha256[:12]}…")
    return None


def fetch_file(
    file: FileSpec, folder: str | Path, progress: bool | None = None, attempts: int = 5, wait: float = 1.0
) -> Path:
    """Download one file, or leave it alone if it is there and right.

    Parameters
    ----------
    file : FileSpec
        Where it comes from and what it must be.
    folder : path
        The data set's folder, made if needed.
    progress : bool, optional
        Whether to show a progress bar; by default only on a terminal.
    attempts : int
        Tries in a row without a single new byte before giving up; a broken transfer is resumed.
    wait : float
        Seconds before the second try, doubled before each further one.

    Returns
    -------
    Path
        The file, of the right size and checksum.

    Raises
    ------
    DataError
        If there is no address, no network, no such file on the server, no space, another process at it, or a checksum
        that does not match even from scratch. It says what to do by hand.
    """
    target = Path(folder) / file.path
    if check_file("", file, folder) is None:
        return target
    if file.address is None:
        raise DataError(f"{file.path} has no address to download from. By hand: {file.by_hand}. Put it at {target}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {target.parent} ({error.strerror}); fetch into another folder") from error
    partial = target.with_name(target.name + ".partial")
    free = shutil.disk_usage(target.parent).free
    if file.bytes > free:
        raise DataError(f"{file.path} needs {format_bytes(file.bytes)}, only {format_bytes(free)} are free in {folder}")
    with _alone(partial):
        if check_file("", file, folder) is None:  # another process may have been faster
            return target
        for start_over in (False, True):
            resumed = _download(file, partial, progress, attempts, wait, target)
            found = sha256_of(partial)
            if found == file.sha256:
                os.replace(partial, target)
                _note_path(partial).unlink(missing_ok=True)
                return target
            _discard(partial)
            if start_over or not resumed:
                break
    raise DataError(
        f"{file.address} gave a file with the sha256 {found} where the spec says {file.sha256}: it has changed or was "
        f"tampered with on its way, and was thrown away. {_by_hand(file, target)}"
    )


def _download(file: FileSpec, partial: Path, progress: bool | None, attempts: int, wait: float, target: Path) -> bool:
    """Bring the partial file to its full size; returns whether bytes of several transfers are in it."""
    import requests

    failures = 0
    with (
        requests.Session() as session,
        progress_bar(total=file.bytes, desc=file.path, unit="B", enabled=progress) as bar,
    ):
        bar.unit_scale = True
        while True:
            before = _size(partial)
            try:
                return _transfer(session, file, partial, bar, target)
            except _InterruptedError as error:
                after = _size(partial)
                failures = 1 if after > before else failures + 1
                if failures >= attempts:
                    raise DataError(
                        f"{file.address} cannot be downloaded: {error}. {format_bytes(after)} of "
                        f"{format_bytes(file.bytes)} are kept and the next run goes on from there. "
                        f"{_by_hand(file, target)}"
                    ) from error
                time.sleep(error.wait if error.wait is not None else wait * 2 ** (failures - 1))


class _InterruptedError(Exception):
    """A transfer that may work when tried again."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def _transfer(session: requests.Session, file: FileSpec, partial: Path, bar: Any, target: Path) -> bool:
    """One request; returns whether it added to bytes that were there."""
    import requests

    address = file.address or ""
    mark = _read_note(partial, address)
    start = _size(partial) if mark is not None else 0
    if start == file.bytes:
        return True
    headers = {"Accept-Encoding": "identity", "User-Agent": "actkit"}
    if 0 < start < file.bytes and mark is not None:
        headers["Range"] = f"bytes={start}-"
        if mark and not mark.startswith("W/"):  # a weak mark never matches If-Range; the checksum guards instead
            headers["If-Range"] = mark
    try:
        with session.get(address, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == 416:
                _discard(partial)
                raise _InterruptedError("the server has less than was downloaded before", wait=0.0)
            _refuse_status(response, file, target)
            if response.status_code == 206 and not _continues(response, start, mark):
                _discard(partial)
                raise _InterruptedError("the server went on elsewhere or with another version", wait=0.0)
            start = start if response.status_code == 206 else 0
            _write_note(partial, address, response)
            bar.update(start - bar.n)
            _append(response, partial, start, file, bar)
            return start > 0
    except requests.exceptions.SSLError as error:
        raise DataError(f"{address}: the secure connection failed ({error}). {_by_hand(file, target)}") from error
    except requests.exceptions.ConnectionError as error:
        host = urlsplit(address).netloc
        raise _InterruptedError(f"no connection to {host} ({_innermost(error)})") from error
    except requests.exceptions.RequestException as error:
        raise _InterruptedError(f"the transfer broke off ({_innermost(error)})") from error


def _refuse_status(response: requests.Response, file: FileSpec, target: Path) -> None:
    """Raise for anything but content: for good, or to be tried again."""
    status = response.status_code
    if status in (200, 206):
        return
    words = f"the server answered {status} {response.reason}"
    if status in _PASSING:
        asked = response.headers.get("Retry-After", "")
        raise _InterruptedError(words, wait=min(float(asked), 60.0) if asked.isdigit() else None)
    gone = " (there is no such file, or no longer)" if status in (404, 410) else ""
    raise DataError(f"{file.address}: {words}{gone}. {_by_hand(file, target)}")


def _continues(response: requests.Response, start: int, mark: str | None) -> bool:
    """Whether a partial answer begins where the file ends, and is of the same version."""
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return first == str(start) and _mark(response) == mark


def _append(response: requests.Response, partial: Path, start: int, file: FileSpec, bar: Any) -> None:
    """Write the bytes of an answer from `start` on, and see that they are as many as the spec says."""
    have = start
    try:
        with open(partial, "r+b" if start else "wb") as out:
            out.seek(start)
            out.truncate()
            for block in response.iter_content(_BLOCK):
                have += len(block)
                if have > file.bytes:
                    raise DataError(
                        f"{file.address} sends more than the {file.bytes} bytes of its spec: the file has changed. "
                        "Check for a newer version of the spec"
                    )
                out.write(block)
                bar.update(len(block))
            out.flush()
            os.fsync(out.fileno())
    except DataError:
        _discard(partial)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"the disk is full: {format_bytes(have)} of {file.path} are kept; make room and fetch again"
            ) from error
        raise
    if have == file.bytes:
        return
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and have - start == int(announced):
        _discard(partial)
        raise DataError(
            f"{file.address} sends {have} bytes where the spec says {file.bytes}: the file has changed. "
            "Check for a newer version of the spec"
        )
    raise _InterruptedError(f"the transfer ended after {have} of {file.bytes} bytes")


def _mark(response: requests.Response) -> str:
    """The server's mark of the file's version: its ETag, else its date, else nothing."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified") or ""


def _note_path(partial: Path) -> Path:
    """Where the version of a partial file is noted."""
    return partial.with_name(partial.name + ".json")


def _write_note(partial: Path, address: str, response: requests.Response) -> None:
    """Note which version of which address the partial file holds; a compressed answer cannot be resumed."""
    mark = None if response.headers.get("Content-Encoding", "identity") != "identity" else _mark(response)
    _note_path(partial).write_text(json.dumps({"address": address, "mark": mark}), encoding="utf-8")


def _read_note(partial: Path, address: str) -> str | None:
    """The mark under which a partial file may be resumed."""
    try:
        note = json.loads(_note_path(partial).read_text(encoding="utf-8"))
        return note["mark"] if note["address"] == address else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _size(partial: Path) -> int:
    """Bytes that are there."""
    return partial.stat().st_size if partial.exists() else 0


def _discard(partial: Path) -> None:
    """Empty a partial file (its lock stays) and forget its version."""
    if partial.exists():
        os.truncate(partial, 0)
    _note_path(partial).unlink(missing_ok=True)


@contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """Keep a second process from writing the same partial file; the lock goes with the process."""
    try:
        import fcntl
    except ImportError:  # Windows has none; there the checksum alone guards
        yield
        return
    with open(partial.with_name(partial.name + ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another process is downloading {partial}; wait for it to finish") from error
        except OSError:  # some network file systems have no locks
            pass
        yield
        Path(lock.name).unlink(missing_ok=True)


def _by_hand(file: FileSpec, target: Path) -> str:
    """What a person can do instead."""
    return f"By hand: download {file.address} on any machine, put it at {target}, and run `actkit data check`"


def _innermost(error: BaseException) -> str:
    """The message at the bottom of a chain of wrapped errors."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
