"""The schema of data specs: what it accepts, and how it says what is wrong and where."""

import copy

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from actkit.array_files import loader_for
from actkit.data_specs import catalogue
from actkit.data_specs.schema import Spec, parse_spec, read_spec
from actkit.errors import DataError

MINIMAL = """\
name: tiny
title: a tiny data set
description: two pictures
licence: free
citation: nobody (2000)
files:
  main:
    path: main.npz
    bytes: 10
    sha256: "{sha}"
    address: http://localhost/main.npz
stimuli:
  source: array
  file: main
  key: pictures
  ids: "{{:02d}}"
  order: as in the file
  labels:
    kind: {{values: [a, b]}}
variables:
  responses:
    kind: responses
    description: numbers
    dims: [stimulus, neuron]
    units: spikes/s
    source:
      file: main
      key: responses
      transforms:
        - average: repetition
      dims: [stimulus, repetition, neuron]
splits:
  split: {{test: 0.5}}
""".format(sha="0" * 64)


def changed(**changes):
    """The minimal spec with values at dotted paths replaced (or removed, by None)."""
    values = yaml.safe_load(MINIMAL)
    for path, value in changes.items():
        *steps, last = path.split("__")
        here = values
        for step in steps:
            here = here[step]
        if value is None:
            del here[last]
        else:
            here[last] = value
    return yaml.safe_dump(values, sort_keys=False)


def test_the_minimal_spec_is_accepted():
    spec = parse_spec(MINIMAL)
    assert spec.citation == ["nobody (2000)"]
    assert spec.variables["responses"].source.key == ["responses"]
    assert spec.variables["responses"].source.transforms[0].word == "average"
    assert spec.variables["responses"].source.transforms[0].average == ["repetition"]


@pytest.mark.parametrize("name", catalogue.names())
def test_every_shipped_spec_is_valid_and_named_after_its_file(name):
    assert catalogue.spec(name).name == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"licence": None, "licenze": "free"},
            r"licence: this key is needed.*unknown key 'licenze'; nearest: 'licence'",
        ),
        ({"files__main__sha": "x"}, r"files\.main\.sha: unknown key 'sha'; nearest: 'sha256'"),
        ({"files__main__sha256": "abc"}, r"files\.main\.sha256: 'abc'.*match pattern"),
        ({"files__main__bytes": "ten"}, r"files\.main\.bytes: 'ten'"),
        ({"files__main__address": None}, r"give an address, or say under by_hand"),
        ({"files__main__address": "ftp://x/y"}, r"files\.main\.address"),
        ({"files__main__path": "../main.npz"}, r"files\.main\.path: '\.\./main\.npz': a path inside"),
        ({"files__main__path": "/etc/passwd"}, r"a path inside the data set's folder"),
        ({"files__main__path": "C:/x"}, r"a path inside the data set's folder"),
        ({"variables__responses__kind": "response"}, r"'response' is not allowed; nearest: 'responses'"),
        (
            {"variables__responses__dims": ["stimuli", "neuron"]},
            r"dims\.0: 'stimuli' is not allowed; nearest: 'stimulus'",
        ),
        ({"variables__responses__dims": ["neuron"]}, r"responses run along stimulus"),
        (
            {"variables__responses__source__file": "mian"},
            r"names 'mian', which is not among the files; nearest: 'main'",
        ),
        (
            {"variables__responses__source__transforms": [{"avrage": "x"}]},
            r"transforms\.0\.avrage: unknown key 'avrage'; nearest: 'average'",
        ),
        ({"variables__responses__source__transforms": [{"scale": 2, "average": "time"}]}, r"exactly one word of"),
        ({"variables__responses__source__drawn": "x"}, r"either a file or the name of a drawn variable"),
        ({"variables__responses__kind": "rdm"}, r"an RDM variable has the dims"),
        ({"stimuli__file": None}, r"stimuli of source 'array' need the key 'file'"),
        ({"stimuli__ids": "same"}, r"the same for every row"),
        ({"stimuli__ids": "{:q}"}, r"no format for a row number"),
        ({"stimuli__labels": {"kind": {"of": "x"}}}, r"of and map belong together"),
        ({"name": "Tiny set"}, r"name: 'Tiny set'"),
        ({"splits__split__test": 1.5}, r"splits\.split\.test: 1\.5"),
        ({"variables": {"a b": yaml.safe_load(MINIMAL)["variables"]["responses"]}}, r"letters, digits and underscores"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(changes, message):
    with pytest.raises(DataError, match=message) as caught:
        parse_spec(changed(**changes), "tiny.yaml")
    assert str(caught.value).startswith("tiny.yaml: line ")


def test_the_line_is_the_line_of_the_key():
    text = MINIMAL.replace("    units: spikes/s\n", "    unit: spikes/s\n")
    line = text.splitlines().index("    unit: spikes/s") + 1
    with pytest.raises(
        DataError, match=rf"line {line}, variables\.responses\.unit: unknown key 'unit'; nearest: 'units'"
    ):
        parse_spec(text)


def test_repeated_keys_are_refused():
    with pytest.raises(DataError, match=r"line 3: the key 'title' occurs twice"):
        parse_spec("name: x\ntitle: a\ntitle: b\n")
    with pytest.raises(DataError, match=r"'files\.main\.bytes' occurs twice"):
        parse_spec(MINIMAL.replace("    bytes: 10\n", "    bytes: 10\n    bytes: 11\n"))


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "just words", "a: [1, 2", "!!python/object/apply:os.getcwd []", "\t"]
)
def test_what_is_no_spec_is_a_data_error(text):
    with pytest.raises(DataError):
        parse_spec(text)


def test_unreadable_files_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_spec(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_spec(tmp_path / "bytes.yaml")


def test_loaders_go_by_suffix_unless_named():
    assert loader_for("a/b.H5", None) == "hdf5"
    assert loader_for("a.dat", "csv") == "csv"
    with pytest.raises(DataError, match="no loader is known"):
        loader_for("a.dat", None)


WORDS = st.text("abcdefgh_", min_size=1, max_size=8)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=8))
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)), max_leaves=6
)


def _paths(value, path=()):
    """Every place in a nested value."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _paths(inner, (*path, i))


def complaint(values):
    """What is said against a spec; None if nothing, and any error but a DataError is a failure."""
    try:
        parse_spec(yaml.safe_dump(values))
    except DataError as error:
        return str(error)
    return None


PLACES = [path for path in _paths(yaml.safe_load(MINIMAL)) if path]


@given(st.sampled_from(PLACES), ANYTHING)
@settings(max_examples=80, deadline=None)
def test_any_value_in_any_place_is_accepted_or_a_data_error(place, value):
    values = yaml.safe_load(MINIMAL)
    here = values
    for step in place[:-1]:
        here = here[step]
    here[place[-1]] = value
    message = complaint(values)
    assert message is None or "line" in message


@given(st.sampled_from([path for path in PLACES if isinstance(path[-1], str)]), WORDS)
@settings(max_examples=40, deadline=None)
def test_an_unknown_key_beside_any_known_one_is_refused(place, word):
    values = yaml.safe_load(MINIMAL)
    here = values
    for step in place[:-1]:
        here = here[step]
    free = place[:-1] in (("files",), ("variables",), ("splits",), ("stimuli", "labels"))  # names are free there
    if word in here or free or word in Spec.model_fields:
        return
    here[word] = copy.deepcopy(here[place[-1]])
    message = complaint(values)
    if word not in ("key", "file"):  # which are optional keys of the same type in some places
        assert f"unknown key '{word}'" in message


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_a_spec_survives_being_written_and_read(data):
    spec = catalogue.spec(data.draw(st.sampled_from(catalogue.names())))
    written = yaml.safe_dump(
        spec.model_dump(exclude_defaults=True), allow_unicode=True, width=data.draw(st.integers(20, 200))
    )
    assert parse_spec(written) == spec
