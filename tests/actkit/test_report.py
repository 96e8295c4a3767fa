import base64
import json
import os
import re
import select
import shutil
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from actkit import plotting
from actkit.errors import InputError
from actkit.report import Report, result_provenance, software_provenance

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to open the report in")


def small_figure(words="hello", points=20):
    with plotting.style():
        figure = plotting.new_figure(6, 3)
        axes = figure.add_axes((0.1, 0.15, 0.85, 0.75))
        axes.plot(np.linspace(0, 1, points), np.sin(np.arange(points)), "o-")
        axes.set_title(words)
    return figure


def sample_report():
    report = Report("Fish & <chips>", "First paragraph\nstill first.\n\n- one\n- two\n\nLast.")
    table = pd.DataFrame({"layer": [f"l{i}" for i in range(40)], "score": np.linspace(-0.5, 0.5, 40)})
    report.add_section(
        "Layers",
        "What was found.",
        [(small_figure(), "The caption <b>is</b> plain.", 'A "line" chart.')],
        [(table, "scores", "All layers.")],
    )
    report.add_section("Layers", figures=[(small_figure("second"), "Another.", "Another chart.")])
    report.add_provenance("Network", {"weights sha256": "ab" * 32, "preprocessing": {"size": 224, "mean": [0.5, 0.5]}})
    report.add_provenance("Software", software_provenance("actkit run study.yaml"))
    return report


class Browser:
    """Headless Chromium over its debugging pipe: no port, no driver, and every request is reported."""

    def __init__(self, folder):
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        # The browser expects its pipe on the descriptors 3 and 4. The shell's copies could overlap these, hence the
        # detour over high numbers.
        script = f'exec 8<&{to_browser} 9>&{from_browser}; exec 3<&8 4>&9 8<&- 9>&-; exec "$@"'
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            f"--user-data-dir={folder}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", CHROMIUM, *flags],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._number = 0
        self.events = []
        target = next(t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self(f"{domain}.enable")

    _session = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def __call__(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _read(self, seconds=60):
        deadline = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def size(self, width, height=900, mobile=False):
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def open(self, path):
        self.events.clear()
        self("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, script):
        return self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)["result"].get("value")

    def requests(self):
        self.value("new Promise(done => setTimeout(done, 200))")
        sent = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]


def test_the_file_is_self_contained(tmp_path):
    html = sample_report().write(tmp_path / "report.html").read_text()
    without_data = re.sub(r'"data:[^"]*"', '""', html)
    assert not re.search(r"https?://|//[a-z]|<script|@import|url\(|<iframe|<object", without_data)
    assert all(uri.startswith("data:") for uri in re.findall(r'(?:src|href)="([^"#][^"]*)"', html))
    assert html.count("<img ") == 2


def test_text_is_escaped_and_laid_out():
    html = sample_report().html()
    assert "Fish &amp; &lt;chips&gt;" in html
    assert "<p>First paragraph still first.</p>" in html
    assert "<ul><li>one</li><li>two</li></ul>" in html
    assert "&lt;b&gt;is&lt;/b&gt; plain." in html
    assert "&lt;p&gt;" not in html
    assert 'alt="A &#34;line&#34; chart."' in html


def test_figures_are_svg_and_heavy_ones_png():
    report = Report("r")
    report.add_section("light", figures=[(small_figure(), "c", "a")])
    rng = np.random.default_rng(0)
    heavy = small_figure()
    heavy.axes[0].plot(*rng.normal(size=(2, 20_000)), "x")
    report.add_section("heavy", figures=[(heavy, "c", "a")])
    found = re.findall(r'src="data:(image/[a-z+]+);base64,([^"]*)"', report.html())
    assert [kind for kind, _ in found] == ["image/svg+xml", "image/png"]
    assert base64.b64decode(found[0][1]).lstrip().startswith(b"<?xml")
    assert base64.b64decode(found[1][1]).startswith(b"\x89PNG")


def test_tables_are_shown_cut_and_kept_whole(tmp_path):
    html = sample_report().write(tmp_path / "out" / "report.html").read_text()
    assert "The first 30 of 40 rows" in html
    assert html.count("<tr>") == 31
    beside = pd.read_csv(tmp_path / "out" / "tables" / "scores.csv")
    carried = base64.b64decode(re.search(r'href="data:text/csv;charset=utf-8;base64,([^"]*)"', html)[1]).decode()
    assert carried == (tmp_path / "out" / "tables" / "scores.csv").read_text()
    assert len(beside) == 40
    assert beside["score"].iloc[0] == -0.5
    assert "−0.5" in html


def test_contents_link_to_distinct_sections_and_provenance_is_flat():
    html = sample_report().html()
    links = re.findall(r'<a href="#([^"]+)">', html)
    assert links == ["s-layers", "s-layers-2", "provenance"]
    assert all(f'id="{link}"' in html for link in links)
    assert "<dt>preprocessing: mean</dt><dd>0.5, 0.5</dd>" in html
    assert "ab" * 32 in html
    assert "<dd>actkit run study.yaml</dd>" in html


def test_a_result_becomes_a_section_with_its_options():
    result = xr.Dataset(
        {
            "accuracy": ("layer", [0.4, 0.9]),
            "interval_low": ("layer", [0.3, 0.8]),
            "interval_high": ("layer", [0.5, 1.0]),
            "p_value": ("layer", [np.nan, np.nan]),
            "chance": 0.5,
            "correct": (("layer", "stimulus"), np.ones((2, 3))),
        },
        coords={"layer": ["a", "b"], "stimulus": ["x", "y", "z"]},
        attrs={
            "analysis": "decoding",
            "options": '{"seed": 7}',
            "inputs": '{"source": "00ff"}',
            "actkit_version": "9",
            "label": "animal",
            "network": "net",
            "n_held_out": 3,
            "classes": '{"0": 2, "1": 1}',
        },
    )
    report = Report("r")
    report.add_result(result, "Decoding animals", table="decoding_animal")
    html = report.html()
    assert "<dt>option seed</dt><dd>7</dd>" in html
    assert "<dt>sha256 of source</dt><dd>00ff</dd>" in html
    assert html.count("<tr>") == 3  # a head and two layers, not a row for each stimulus
    assert "2 classes" in html
    assert result_provenance(result)["analysis"] == "decoding"


def test_refusals_say_what_is_missing():
    report = Report("r")
    with pytest.raises(InputError, match="no alt text"):
        report.add_section("s", figures=[(small_figure(), "caption", " ")])
    with pytest.raises(InputError, match="no caption"):
        report.add_section("s", figures=[(small_figure(), "", "alt")])
    frame = pd.DataFrame({"a": [1]})
    report.add_section("s", tables=[(frame, "t", "c")])
    with pytest.raises(InputError, match="'t' already"):
        report.add_section("s", tables=[(frame, "t", "c")])
    with pytest.raises(InputError, match="is a dict"):
        report.add_section("s", tables=[({"a": 1}, "u", "c")])


def test_the_same_report_has_the_same_bytes():
    assert sample_report().html() == sample_report().html()


@needs_chromium
def test_a_browser_shows_every_figure_and_fetches_nothing(tmp_path):
    path = sample_report().write(tmp_path / "report.html")
    with Browser(tmp_path / "profile") as browser:
        browser.size(390, 844, mobile=True)
        browser.open(path)
        images = "Array.from(document.images)"
        assert browser.value(f"{images}.length") == 2
        assert browser.value(f"{images}.every(i => i.complete && i.naturalWidth > 100)") is True
        assert browser.requests() == [path.as_uri()]
        refused = [e for e in browser.events if e.get("method") == "Log.entryAdded"]
        assert refused == []
        # On a phone the page itself never scrolls sideways: figures and tables scroll within themselves.
        assert browser.value("document.documentElement.scrollWidth") <= 390
        assert browser.value(f"Math.min(...{images}.map(i => i.getBoundingClientRect().width))") >= 380
        browser("Emulation.setEmulatedMedia", media="print")
        assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"

        # The check can fail: a page with a missing picture and a foreign address is caught.
        bad = tmp_path / "bad.html"
        bad.write_text(f'<img src="gone.png"><img src="{(tmp_path / "also-gone.png").as_uri()}">')
        browser.open(bad)
        assert browser.value(f"{images}.every(i => i.naturalWidth > 0)") is False
        assert len(browser.requests()) == 3
