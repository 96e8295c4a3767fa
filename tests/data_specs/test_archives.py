"""Archives from elsewhere: what is safe is unpacked whole, what is not leaves nothing behind."""

import io
import stat
import tarfile
import zipfile

import pytest

from actkit.data_specs.archives import unpack
from actkit.errors import DataError


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as out:
        for name, data, mode in members:
            info = zipfile.ZipInfo("x")
            info.filename = name  # unchanged: ZipInfo would tidy separators
            info.external_attr = mode << 16
            out.writestr(info, data)
    return path


def make_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as out:
        for name, data, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))
            else:
                info.linkname = data.decode()
                out.addfile(info)
    return path


FILE = stat.S_IFREG | 0o644


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_a_safe_archive_is_unpacked_and_replaces_what_was_there(tmp_path, kind):
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        make_zip(archive, [("d/", b"", stat.S_IFDIR | 0o755), ("d/a.txt", b"one", FILE), ("b.txt", b"", 0)])
    else:
        members = [("d", b"", tarfile.DIRTYPE), ("d/a.txt", b"one", tarfile.REGTYPE), ("./b.txt", b"", tarfile.REGTYPE)]
        make_tar(archive, members, {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[kind])
    target = tmp_path / "out"
    target.mkdir()
    (target / "stale").write_text("old")
    files = unpack(archive, target)
    assert [path.relative_to(target).as_posix() for path in files] == ["b.txt", "d/a.txt"]
    assert (target / "d" / "a.txt").read_bytes() == b"one"
    assert not (target / "stale").exists()


UNSAFE_NAMES = [
    "../evil.txt",
    "d/../../evil.txt",
    "/tmp/evil.txt",
    "C:/evil.txt",
    "C:\\evil.txt",
    "..\\evil.txt",
    "\\\\host\\evil",
]


@pytest.mark.parametrize("name", UNSAFE_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_leave_the_folder_are_refused(tmp_path, name, kind):
    if kind == "zip":
        archive = make_zip(tmp_path / "a.zip", [("fine.txt", b"x", FILE), (name, b"x", FILE)])
    else:
        archive = make_tar(tmp_path / "a.tgz", [("fine.txt", b"x", tarfile.REGTYPE), (name, b"x", tarfile.REGTYPE)])
    refuse(archive, tmp_path, r"write outside its folder\. Nothing was unpacked")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_zip_members_that_are_no_files_are_refused(tmp_path, kind):
    refuse(
        make_zip(tmp_path / "a.zip", [("x", b"/etc/passwd", kind | 0o777)]), tmp_path, "is a (link|device or a pipe)"
    )


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_tar_members_that_are_no_files_are_refused(tmp_path, kind):
    refuse(make_tar(tmp_path / "a.tgz", [("x", b"/etc/passwd", kind)]), tmp_path, "is a (link|device or a pipe)")


def test_members_in_one_place_are_refused(tmp_path):
    refuse(
        make_tar(tmp_path / "a.tgz", [(n, b"x", tarfile.REGTYPE) for n in ("A.txt", "a.TXT")]), tmp_path, "one place"
    )
    refuse(
        make_tar(tmp_path / "b.tgz", [(n, b"x", tarfile.REGTYPE) for n in ("a", "a/b")]),
        tmp_path,
        "inside another file",
    )


def test_sizes_are_held_to(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("x", b"12345", FILE)])
    with pytest.raises(DataError, match=r"would unpack to 5 B, more than the 4 B allowed"):
        unpack(archive, tmp_path / "out", max_bytes=4)
    refuse(archive, tmp_path, "allowed", max_bytes=4)


def test_damaged_and_other_files_are_named(tmp_path):
    archive = make_tar(tmp_path / "a.tgz", [("x", bytes(range(256)) * 400, tarfile.REGTYPE)])
    (tmp_path / "cut.tgz").write_bytes(archive.read_bytes()[:-40])
    refuse(tmp_path / "cut.tgz", tmp_path, r"cut\.tgz")
    (tmp_path / "text.zip").write_bytes(b"words")
    refuse(tmp_path / "text.zip", tmp_path, "neither a zip nor a tar")
    whole = make_zip(tmp_path / "crc.zip", [("x.txt", b"content of the file", FILE)]).read_bytes()
    (tmp_path / "crc.zip").write_bytes(whole.replace(b"content of", b"CONTENT of", 1))
    refuse(tmp_path / "crc.zip", tmp_path, r"crc\.zip cannot be unpacked")


def refuse(archive, tmp_path, message, **options):
    """The archive is refused, and nothing new lies anywhere."""
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=message):
        unpack(archive, tmp_path / "deep" / "out", **options)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
