"""Unpack zip and tar archives that come from elsewhere: everything is checked before anything is written."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from actkit.compute import format_bytes
from actkit.errors import DataError

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One file of an archive: its place inside, its size, and how the archive knows it."""

    path: PurePosixPath
    size: int
    handle: Any


def unpack(archive: str | Path, folder: str | Path, max_bytes: int = 100 * 10**9) -> list[Path]:
    """Unpack a zip or tar archive into a folder of its own, or not at all.

    Parameters
    ----------
    archive : path
        A zip file, or a tar file (plain, gzip, bz2 or xz).
    folder : path
        Where to; replaced as a whole if it is there already.
    max_bytes : int
        Refuse archives that say they are larger than this when unpacked.

    Returns
    -------
    list of Path
        The files written, sorted.

    Raises
    ------
    DataError
        If the archive is damaged, encrypted, of another kind or too large; or if a member is absolute, climbs out of
        the folder (``..``), is a link, a device or a pipe, occurs twice, or is larger than the archive says. Nothing
        is left behind in that case.
    """
    archive, folder = Path(archive), Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    with _opened(archive) as opened:
        members = list(_members(opened, archive))
        _refuse_clashes(members, archive)
        total = sum(member.size for member in members)
        if total > max_bytes:
            raise DataError(
                f"{archive} would unpack to {format_bytes(total)}, more than the {format_bytes(max_bytes)} allowed"
            )
        free = shutil.disk_usage(_existing(folder)).free
        if total > free:
            raise DataError(f"{archive} unpacks to {format_bytes(total)} and only {format_bytes(free)} are free there")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            for member in members:
                target = partial.joinpath(*member.path.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with _content(opened, member, archive) as source, open(target, "xb") as written:
                    _copy(source, written, member, archive)
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise DataError(f"{archive} cannot be unpacked ({error}); fetch it again") from error
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    partial.mkdir(parents=True, exist_ok=True)  # an archive may be empty
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    """The archive, opened by what it is and not by what it is called."""
    try:
        opened: zipfile.ZipFile | tarfile.TarFile
        if zipfile.is_zipfile(archive):
            opened = zipfile.ZipFile(archive)
        else:
            opened = tarfile.open(archive)  # noqa: SIM115 - closed below, with the zip file's branch
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"{archive} is neither a zip nor a tar archive, or damaged: {error}") from error
    with opened:
        yield opened


def _members(opened: zipfile.ZipFile | tarfile.TarFile, archive: Path) -> Iterator[Member]:
    """The files of an archive, each checked; folders are made as needed and yield nothing."""
    if isinstance(opened, zipfile.ZipFile):
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(_refusal(archive, info.filename, _kind_words(kind)))
            if info.flag_bits & 1:
                raise DataError(f"{archive}: the member {info.filename!r} is encrypted and cannot be unpacked")
            path = _safe(info.filename, archive)
            if not info.is_dir():
                yield Member(path, info.file_size, info)
        return
    try:
        entries = opened.getmembers()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{archive} is damaged or cut short ({error}); fetch it again") from error
    for entry in entries:
        path = _safe(entry.name, archive)
        if entry.isdir():
            continue
        if not entry.isreg():
            words = "a link" if entry.issym() or entry.islnk() else "a device or a pipe"
            raise DataError(_refusal(archive, entry.name, words))
        yield Member(path, entry.size, entry)


def _safe(name: str, archive: Path) -> PurePosixPath:
    """The place of a member, which must lie inside the folder on every operating system."""
    path = PurePosixPath(name)
    drive = bool(path.parts) and ":" in path.parts[0]
    if path.is_absolute() or name.startswith(("/", "\\")) or drive:
        raise DataError(_refusal(archive, name, "an absolute path"))
    if "\\" in name:
        raise DataError(_refusal(archive, name, "a path with backslashes"))
    if ".." in path.parts:
        raise DataError(_refusal(archive, name, "a path that climbs out of its folder"))
    if "\0" in name:
        raise DataError(_refusal(archive, name, "a path with a NUL character"))
    return path


def _refuse_clashes(members: list[Member], archive: Path) -> None:
    """Two members in one place, or a file where another needs a folder, would overwrite each other."""
    places = {str(member.path).casefold() for member in members}
    if len(places) < len(members) or "." in places:
        raise DataError(f"{archive} holds two members in one place and would overwrite its own files; it is refused")
    for member in members:
        if any(str(parent).casefold() in places for parent in member.path.parents):
            raise DataError(_refusal(archive, str(member.path), "a file inside another file"))


def _refusal(archive: Path, name: str, words: str) -> str:
    """Why an archive is refused as a whole."""
    return (
        f"{archive} is refused: its member {name!r} is {words}, through which an archive can write outside its folder. "
        "Nothing was unpacked"
    )


def _kind_words(kind: int) -> str:
    """What a file type of a zip entry is called."""
    return "a link" if kind == stat.S_IFLNK else "a device or a pipe"


@contextmanager
def _content(opened: zipfile.ZipFile | tarfile.TarFile, member: Member, archive: Path) -> Iterator[IO[bytes]]:
    """A member's bytes as a stream."""
    source = opened.open(member.handle) if isinstance(opened, zipfile.ZipFile) else opened.extractfile(member.handle)
    if source is None:
        raise DataError(_refusal(archive, str(member.path), "no plain file"))
    with source:
        yield source


def _copy(source: IO[bytes], written: IO[bytes], member: Member, archive: Path) -> None:
    """Copy a member, and stop if it is larger than the archive said."""
    left = member.size
    while block := source.read(_BLOCK):
        left -= len(block)
        if left < 0:
            raise DataError(
                f"{archive}: the member {str(member.path)!r} is larger than the archive says; it is refused"
            )
        written.write(block)
    if left:
        raise DataError(f"{archive}: the member {str(member.path)!r} is cut short; fetch the archive again")


def _existing(path: Path) -> Path:
    """The nearest folder above that exists, to ask for free space."""
    return next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
