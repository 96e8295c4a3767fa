"""What `import actkit` promises: it is light, and every public name is there."""

import subprocess
import sys
from importlib.resources import files

import pytest

import actkit


def run_python(code, tmp_path):
    """Run code in a fresh interpreter, away from the repository root (whose folders would shadow the package)."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_actkit_loads_nothing_heavy(tmp_path):
    heavy = ("torch", "xarray", "pandas", "numpy", "matplotlib", "zarr", "pydantic", "sklearn")
    loaded = run_python(f"import sys, actkit; print([m for m in {heavy!r} if m in sys.modules])", tmp_path)
    assert loaded.strip() == "[]"


def test_asking_for_help_loads_nothing_heavy(tmp_path):
    heavy = ("torch", "xarray", "pandas", "matplotlib", "zarr", "sklearn", "scipy")
    code = (
        "import sys\nfrom actkit.cli import main\nsys.argv = ['actkit', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('LOADED', [m for m in {heavy!r} if m in sys.modules])"
    )
    assert run_python(code, tmp_path).splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("name", actkit.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(actkit, name)
    assert value.__doc__
    assert len(value.__doc__) > 40


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'rmd'"):
        _ = actkit.rmd


def test_dir_lists_the_public_face():
    assert {"rdm", "rsa", "extract", "open_store"} <= set(dir(actkit))


def test_the_source_folder_without_its_rooms_names_the_cure(tmp_path):
    """`python -c` in the repository root imports the folder actkit/, which has no rooms in it."""
    source = tmp_path / "actkit"
    source.mkdir()
    for name in ("__init__.py", "plugins.py", "errors.py"):
        (source / name).write_bytes(files("actkit").joinpath(name).read_bytes())
    # An editable install puts a finder on sys.meta_path that knows the rooms; an ordinary installation has none.
    code = "import sys\nsys.meta_path = [f for f in sys.meta_path if 'ditable' not in repr(f)]\n"
    code += "import actkit\ntry:\n    actkit.rdm\nexcept Exception as error:\n    print(type(error).__name__, error)"
    said = run_python(code, tmp_path)
    assert said.startswith("PluginError")
    assert "Run from another folder" in said
