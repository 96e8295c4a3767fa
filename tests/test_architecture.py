"""What no linter sees: that the lists in pyproject.toml keep up with the files."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_core_module_is_held_by_the_import_contract():
    (contract,) = [c for c in PROJECT["tool"]["importlinter"]["contracts"] if "core" in c["name"]]
    modules = {f"actkit.{file.stem}" for file in (ROOT / "actkit").glob("*.py")} - {"actkit.__init__"}
    assert set(contract["source_modules"]) == modules


def test_packages_are_flat_so_that_none_is_left_out_of_the_wheel():
    for room in ("actkit", "extractors", "analyses", "data_specs"):
        inside = {file.parent for file in (ROOT / room).rglob("*.py")}
        assert inside == {ROOT / room}


def test_every_analysis_and_extractor_with_an_entry_point_exists():
    rooms = {"actkit.extractors": "extractors", "actkit.analyses": "analyses", "actkit.data_specs": "data_specs"}
    for points in PROJECT["project"]["entry-points"].values():
        for target in points.values():
            package, _, module = target.partition(":")[0].rpartition(".")
            assert (ROOT / rooms[package] / f"{module}.py").is_file(), target
