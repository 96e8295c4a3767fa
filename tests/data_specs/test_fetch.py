"""Downloads against a real HTTP server on the loopback: resuming, lying servers, broken connections, checksums."""

import hashlib
import socket
from contextlib import contextmanager

import pytest

from actkit.data_specs import fetch as fetching
from actkit.data_specs.fetch import check_file, fetch_file, sha256_of
from actkit.data_specs.schema import FileSpec
from actkit.errors import DataError

CONTENT = bytes(i * 37 % 251 for i in range(700_000))


@contextmanager
def no_litter(folder):
    """Nothing but the file itself lies in the folder afterwards."""
    yield
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["file.bin"]


def spec(server, **changes):
    values = {
        "path": "sub/file.bin",
        "bytes": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "address": server.address,
    }
    return FileSpec(**(values | changes))


def resumed_at(wanted, cut):
    """The start of a Range request that goes on where the connection was cut, less a block that was under way."""
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    assert cut - fetching._BLOCK < start <= cut
    return start


def test_a_file_is_downloaded_once(server, tmp_path):
    with no_litter(tmp_path):
        path = fetch_file(spec(server), tmp_path)
    assert path == tmp_path / "sub" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert fetch_file(spec(server), tmp_path) == path
    assert server.asked == [None]


def test_a_dropped_connection_is_resumed_within_one_call(server, tmp_path):
    server.cut_after = [200_000, 150_000]
    with no_litter(tmp_path):
        fetch_file(spec(server), tmp_path, wait=0.01)
    assert server.asked[0] is None
    first = resumed_at(server.asked[1], 200_000)
    resumed_at(server.asked[2], first + 150_000)
    assert len(server.asked) == 3
    assert server.sent < len(CONTENT) + 2 * fetching._BLOCK


def test_a_download_that_gave_up_goes_on_in_the_next_run(server, tmp_path):
    server.cut_after = [300_000]
    server.statuses = []
    with pytest.raises(
        DataError, match=r"2\d\d kB of 700 kB are kept and the next run goes on.*By hand: download http"
    ):
        fetch_file(spec(server), tmp_path, attempts=1)
    assert not (tmp_path / "sub" / "file.bin").exists()
    with no_litter(tmp_path):
        fetch_file(spec(server), tmp_path)
    resumed_at(server.asked[-1], 300_000)
    assert server.sent < len(CONTENT) + fetching._BLOCK


@pytest.mark.parametrize("etag", ['W/"weak"', ""], ids=["weak", "none"])
def test_a_server_without_a_strong_mark_is_resumed_too(server, tmp_path, etag):
    server.etag = etag
    server.cut_after = [300_000]
    with no_litter(tmp_path):
        fetch_file(spec(server), tmp_path, wait=0.01)
    resumed_at(server.asked[1], 300_000)
    assert len(server.asked) == 2


def test_a_server_that_ignores_ranges_sends_the_whole_file(server, tmp_path):
    server.ranges = False
    server.cut_after = [300_000]
    with no_litter(tmp_path):
        assert fetch_file(spec(server), tmp_path, wait=0.01).read_bytes() == CONTENT
    assert server.sent == 300_000 + len(CONTENT)


def test_a_file_that_changed_meanwhile_starts_over(server, tmp_path):
    server.cut_after = [300_000]
    old = bytes(len(CONTENT))
    server.content = old
    with pytest.raises(DataError, match="kept"):
        fetch_file(spec(server), tmp_path, attempts=1)
    server.content, server.etag = CONTENT, '"v2"'
    with no_litter(tmp_path):
        assert fetch_file(spec(server), tmp_path).read_bytes() == CONTENT


def test_a_changed_file_without_marks_is_caught_by_the_checksum(server, tmp_path):
    server.etag, server.content, server.cut_after = "", bytes(len(CONTENT)), [300_000]
    with pytest.raises(DataError, match="kept"):
        fetch_file(spec(server), tmp_path, attempts=1)
    server.content = CONTENT
    with no_litter(tmp_path):
        assert fetch_file(spec(server), tmp_path).read_bytes() == CONTENT
    resumed_at(server.asked[1], 300_000)
    assert server.asked[2:] == [None]


def test_a_server_that_goes_on_elsewhere_starts_over(server, tmp_path):
    server.cut_after, server.wrong_start = [300_000], True
    with no_litter(tmp_path):
        assert fetch_file(spec(server), tmp_path, wait=0.01).read_bytes() == CONTENT
    resumed_at(server.asked[1], 300_000)
    assert server.asked[2:] == [None]


def test_a_partial_file_that_is_too_long_starts_over(server, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file.bin.partial").write_bytes(CONTENT + b"more")
    with no_litter(tmp_path):
        assert fetch_file(spec(server), tmp_path).read_bytes() == CONTENT


def test_a_partial_file_of_another_address_is_not_continued(server, tmp_path):
    server.cut_after = [300_000]
    other = spec(server, address=server.address + "?other")
    with pytest.raises(DataError, match="kept"):
        fetch_file(other, tmp_path, attempts=1)
    fetch_file(spec(server), tmp_path)
    assert server.asked == [None, None]


def test_a_wrong_checksum_is_thrown_away_and_said(server, tmp_path):
    server.content = bytes(len(CONTENT))
    with pytest.raises(DataError, match=r"gave a file with the sha256 [0-9a-f]{64} where the spec says .*thrown away"):
        fetch_file(spec(server), tmp_path)
    assert not (tmp_path / "sub" / "file.bin").exists()
    assert (tmp_path / "sub" / "file.bin.partial").stat().st_size == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [(CONTENT + b"x", "sends more than the 700000 bytes"), (CONTENT[:-1], "sends 699999 bytes where")],
)
def test_a_file_of_another_size_is_said(server, tmp_path, content, message):
    server.content = content
    with pytest.raises(DataError, match=message):
        fetch_file(spec(server), tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "message"), [(404, r"answered 404 Not Found \(there is no such file.*By hand"), (403, "answered 403")]
)
def test_refusals_are_said_at_once(server, tmp_path, status, message):
    server.statuses = [status] * 9
    with pytest.raises(DataError, match=message):
        fetch_file(spec(server), tmp_path)
    assert len(server.asked) == 1


def test_passing_troubles_are_waited_out(server, tmp_path):
    server.statuses = [503, 429]
    fetch_file(spec(server), tmp_path, wait=0.01)
    assert len(server.asked) == 3
    server.statuses = [503] * 9
    with pytest.raises(DataError, match="answered 503"):
        fetch_file(spec(server, path="other.bin"), tmp_path, wait=0.01, attempts=3)
    assert len(server.asked) == 6


def test_no_network_says_what_to_do_by_hand(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = FileSpec(path="f", bytes=1, sha256="0" * 64, address=f"http://127.0.0.1:{port}/f")
    with pytest.raises(
        DataError, match=r"no connection to 127\.0\.0\.1.*By hand: download .*, put it at .*actkit data check"
    ):
        fetch_file(file, tmp_path, attempts=2, wait=0.01)


def test_files_without_address_say_how_to_get_them(tmp_path):
    file = FileSpec(path="f", bytes=1, sha256="0" * 64, by_hand="ask the authors")
    with pytest.raises(DataError, match=r"no address to download from\. By hand: ask the authors"):
        fetch_file(file, tmp_path)


def test_no_space_is_said_before_the_download(server, tmp_path):
    with pytest.raises(DataError, match=r"needs 1e\+03 TB|needs 1000 TB"):
        fetch_file(spec(server, bytes=10**15), tmp_path)
    assert server.asked == []


def test_two_processes_do_not_write_one_file(server, tmp_path):
    (tmp_path / "sub").mkdir()
    with (
        fetching._alone(tmp_path / "sub" / "file.bin.partial"),
        pytest.raises(DataError, match="another process is downloading"),
    ):
        fetch_file(spec(server), tmp_path)


def test_check_finds_what_is_missing_or_wrong(server, tmp_path):
    file = spec(server)
    path = tmp_path / "sub" / "file.bin"
    assert check_file("main", file, tmp_path).what == "missing"
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1])
    assert check_file("main", file, tmp_path).what == "699999 bytes instead of 700000"
    path.write_bytes(CONTENT[:-1] + b"!")
    assert "its sha256 is" in check_file("main", file, tmp_path).what
    assert check_file("main", file, tmp_path, content=False) is None
    path.write_bytes(CONTENT)
    assert check_file("main", file, tmp_path) is None
    assert sha256_of(path) == file.sha256
