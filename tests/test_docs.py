"""Every code block of the README and the guides runs, page by page and in order.

Python blocks of a page share one namespace, shell blocks one folder. A line above a block may say what it needs:
`<!-- needs NAME -->` a data set under ACTKIT_DATA; `<!-- demo command -->` and `<!-- test command -->` mark the
README's two commands, which `.ci/run` runs as written.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (?P<note>[^>]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S)
RUN = {"python", "sh", "yaml"}
SHOWN = {"text"}  # output and file layouts: nothing to run


def blocks(page):
    text = page.read_text()
    return [(text[: m.start()].count("\n") + 1, m["note"], m["language"], m["code"]) for m in BLOCK.finditer(text)]


def missing_data(note):
    if note and note.startswith("needs "):
        name = note.removeprefix("needs ").strip()
        if not (Path(os.environ.get("ACTKIT_DATA", "/nonexistent")) / name).is_dir():
            return name
    return None


def test_no_block_escapes_the_runner():
    for page in PAGES:
        fences = [line for line in page.read_text().splitlines() if line.startswith("```")]
        assert len(fences) == 2 * len(blocks(page)), f"{page.name}: a code fence without a language, or not closed"
        languages = {language for _, _, language, _ in blocks(page)}
        assert languages <= RUN | SHOWN, f"{page.name}: {languages - RUN - SHOWN} would not be run"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scripts = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{os.environ['PATH']}")
    namespace = {"__name__": "__docs__"}
    ran, left = 0, []
    for line, note, language, code in blocks(page):
        if note in ("demo command", "test command") or language in SHOWN:
            continue
        if name := missing_data(note):
            left.append(name)
            continue
        where = f"{page.name}, line {line}"
        ran += 1
        if language == "python":
            exec(compile(code, where, "exec"), namespace)
        elif language == "sh":
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True)
            assert done.returncode == 0, f"{where}:\n{done.stdout}\n{done.stderr}"
        else:
            title = re.search(r"^# file: (\S+)$", code, re.M)
            assert title, f"{where}: a yaml block names its file in its first line, `# file: name.yaml`"
            Path(title[1]).write_text(code)
    if left and not ran:
        pytest.skip(f"needs the data sets {', '.join(left)} under ACTKIT_DATA")
