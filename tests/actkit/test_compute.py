import pytest
from hypothesis import given
from hypothesis import strategies as st

from actkit import compute
from actkit.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GB", 2 * 10**9), ("512 MiB", 512 * 2**20), (1024, 1024), ("1.5k", 1500), ("3 tb", 3 * 10**12), ("7", 7)],
)
def test_sizes_are_read(text, expected):
    assert compute.parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "two GB", "-3MB", "0", "5 bananas"])
def test_a_bad_size_is_refused(text):
    with pytest.raises(InputError, match="size"):
        compute.parse_bytes(text)


@given(st.integers(1, 10**14))
def test_a_printed_size_reads_back_to_three_digits(n):
    assert compute.parse_bytes(compute.format_bytes(n)) == pytest.approx(n, rel=0.01)


@given(st.integers(0, 500), st.integers(1, 60))
def test_spans_cover_the_range_once(n, step):
    blocks = list(compute.spans(n, step))
    assert [i for start, stop in blocks for i in range(start, stop)] == list(range(n))
    assert all(stop - start <= step for start, stop in blocks)


def test_an_unknown_device_is_refused():
    assert compute.choose_device("cpu") == "cpu"
    with pytest.raises(InputError, match="device 'warp' cannot be used here"):
        compute.choose_device("warp")


def test_the_progress_bar_is_silent_unless_asked(capsys):
    assert sum(compute.progress(range(4))) == 6
    assert capsys.readouterr().err == ""
    assert sum(compute.progress(range(4), desc="adding", enabled=True)) == 6
    assert "adding" in capsys.readouterr().err
