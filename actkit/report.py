"""The report: one HTML file with figures, tables and provenance that asks nothing of the network."""

from __future__ import annotations

import base64
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actkit import plotting
from actkit.errors import InputError
from actkit.results import atomic_write

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

# Beyond this an SVG (of many points or thumbnails) is slower to open than a picture of it.
_HEAVY_SVG = 1_500_000
_ROWS_SHOWN = 30
_COLUMNS_SHOWN = 8
# Cells of more characters are sentences: they wrap, and their table is shown whole.
_CELL_SHOWN = 40
_PIXELS_PER_INCH = 84
# Below this many pixels per inch, labels of the house style are too small to read; narrow screens scroll instead.
_READABLE_PIXELS_PER_INCH = 66
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "xarray", "zarr", "matplotlib")


@dataclass
class _Figure:
    """One figure, ready for the page."""

    number: int
    uri: str
    caption: str
    alt: str
    width: int
    height: int
    least: int
    narrow: str = ""


@dataclass
class _Table:
    """One table, ready for the page."""

    number: int
    file: str
    csv: str
    caption: str
    note: str
    columns: list[dict[str, Any]]
    rows: list[list[str]]
    uri: str


@dataclass
class _Section:
    """One section, ready for the page."""

    title: str
    anchor: str
    blocks: list[tuple[str, Any]]
    figures: list[_Figure] = field(default_factory=list)
    tables: list[_Table] = field(default_factory=list)


class Report:
    """Collect sections, then write them as one self-contained HTML file.

    Parameters
    ----------
    title : str
        Headline of the report.
    text : str
        Lead: what was asked and what was found. Blank lines separate paragraphs; lines that begin with ``- `` make a
        list. No markup: everything is escaped.

    Examples
    --------
    >>> import pandas, tempfile
    >>> report = Report("Pilot", "One network, 92 images.")
    >>> scores = pandas.DataFrame({"layer": ["conv1"], "score": [0.3]})
    >>> report.add_section("Scores", tables=[(scores, "scores", "RSA of every layer.")])
    >>> report.write(tempfile.mkdtemp() + "/report.html").name
    'report.html'
    """

    def __init__(self, title: str, text: str = "") -> None:
        self.title = str(title)
        self.text = str(text)
        self._sections: list[_Section] = []
        self._provenance: list[dict[str, Any]] = []
        self._figures = 0
        self._tables: list[_Table] = []

    def add_section(
        self,
        title: str,
        text: str = "",
        figures: Sequence[tuple[Figure, str, str] | tuple[Figure, str, str, Figure | None]] = (),
        tables: Sequence[tuple[pd.DataFrame, str, str]] = (),
    ) -> None:
        """Add a section.

        Parameters
        ----------
        title : str
            Headline, also in the table of contents.
        text : str
            Paragraphs and lists, as for the lead.
        figures : sequence of (Figure, caption, alt) or (Figure, caption, alt, narrow Figure)
            Numbered through the report. The caption stands below the figure; alt describes it to readers who cannot
            see it; a narrow figure takes its place on phones (see :func:`actkit.plotting.plot_narrow`).
        tables : sequence of (DataFrame, name, caption)
            Shown up to 30 rows, and whole as a CSV that the page carries and that is written beside the report.

        Raises
        ------
        InputError
            If a caption or an alt text is empty, or a table's name is taken.
        """
        section = _Section(str(title), self._anchor(str(title)), _blocks(text))
        for figure, caption, alt, *narrow in figures:
            if not str(caption).strip() or not str(alt).strip():
                lacking = "alt text" if str(caption).strip() else "caption"
                raise InputError(
                    f"a figure of the section {title!r} has no {lacking}, so some readers would not know what it "
                    "shows; actkit.plotting.caption() and alt_text() write them"
                )
            self._figures += 1
            section.figures.append(_embed(figure, str(caption), str(alt), self._figures, *narrow))
        for frame, name, caption in tables:
            table = _tabulate(frame, str(name), str(caption), len(self._tables) + 1)
            if any(table.file == other.file for other in self._tables):
                raise InputError(
                    f"there is a table {name!r} already; its CSV would be overwritten, choose another name"
                )
            self._tables.append(table)
            section.tables.append(table)
        self._sections.append(section)

    def add_result(
        self, result: xr.Dataset, title: str, text: str = "", table: str | None = None, **options: Any
    ) -> None:
        """Add a section for one result: its figure with caption and alt text, its table, and its provenance.

        Parameters
        ----------
        result : xarray.Dataset
            What an analysis returned.
        title : str
            Headline of the section.
        text : str
            Paragraphs above the figure.
        table : str, optional
            Name of the CSV; left out, there is none.
        **options
            For :func:`actkit.plot`.
        """
        from actkit.results import to_table

        figure = plotting.plot(result, **options)
        words = plotting.caption(result, **options), plotting.alt_text(result, **options)
        narrow = plotting.plot_narrow(result, **options)
        # One row for each layer or model: what varies within (subjects, stimuli) stays in the result's own file.
        short = result.drop_dims([dim for dim in ("subject", "stimulus") if dim in result.dims])
        tables = [(to_table(short), table, f"The numbers behind {title}.")] if table and short.sizes else []
        self.add_section(title, text, [(figure, *words, narrow)], tables)
        self.add_provenance(title, result_provenance(result))

    def add_provenance(self, title: str, facts: Mapping[str, Any]) -> None:
        """Add a group of facts to the section on how the results were made.

        Parameters
        ----------
        title : str
            What the facts are about: a network, a data set, an analysis, the software.
        facts : mapping
            Name to value: weights hash, preprocessing, seed, command. Nested mappings are written as
            ``outer: inner``; None is left out.
        """
        rows = [(name, value) for name, value in _flatten(facts) if value is not None]
        self._provenance.append({"title": str(title), "facts": [(name, _word(value)) for name, value in rows]})

    def write(self, path: str | Path) -> Path:
        """Write the report, and its tables beside it.

        Parameters
        ----------
        path : path
            The HTML file. Tables go to ``tables/<name>.csv`` in the same folder.

        Returns
        -------
        Path
            The HTML file.
        """
        path = Path(path)
        html = self.html()
        for table in self._tables:
            atomic_write(path.parent / "tables" / table.file, table.csv)
        return atomic_write(path, html)

    def html(self) -> str:
        """Render the report.

        Returns
        -------
        str
            A whole HTML document without references to other files or addresses.
        """
        import jinja2
        from markupsafe import Markup, escape

        folder = files("actkit") / "templates"
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False)

        def render_block(block: tuple[str, Any]) -> Markup:
            kind, content = block
            if kind == "list":
                items = Markup("").join(Markup("<li>{}</li>").format(item) for item in content)
                return Markup("<ul>{}</ul>\n").format(items)
            return Markup("<p>{}</p>\n").format(escape(content))

        template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
        return template.render(
            title=self.title,
            lead=_blocks(self.text),
            sections=self._sections,
            provenance=self._provenance,
            # The style sheet is the project's own file, so it may hold quotes and brackets.
            css=Markup((folder / "report.css").read_text(encoding="utf-8")),  # noqa: S704
            version=_version("actkit"),
            render_block=render_block,
        )

    def _anchor(self, title: str) -> str:
        """A unique id for a section."""
        stem = "s-" + (re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section")
        taken = {section.anchor for section in self._sections}
        number, anchor = 1, stem
        while anchor in taken:
            number += 1
            anchor = f"{stem}-{number}"
        return anchor


def result_provenance(result: xr.Dataset) -> dict[str, Any]:
    """Read a result's provenance from its attributes.

    Parameters
    ----------
    result : xarray.Dataset
        What an analysis returned.

    Returns
    -------
    dict
        Analysis, every option, the fingerprint of every input, version.
    """
    attrs = result.attrs
    facts: dict[str, Any] = {"analysis": attrs.get("analysis")}
    for key, prefix in (("options", "option"), ("inputs", "sha256 of")):
        facts.update({f"{prefix} {name}": value for name, value in json.loads(attrs.get(key, "{}")).items()})
    facts["actkit version"] = attrs.get("actkit_version")
    return facts


def software_provenance(command: str | None = None) -> dict[str, Any]:
    """Name the versions and the machine that results were made with.

    Parameters
    ----------
    command : str, optional
        The command that repeats the work.

    Returns
    -------
    dict
        Command, versions of Python, actkit and the libraries that compute, operating system, processor.
    """
    facts: dict[str, Any] = {"command": command, "Python": platform.python_version(), "actkit": _version("actkit")}
    facts.update({name: _version(name) for name in _LIBRARIES})
    facts["system"] = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return facts


def _version(name: str) -> str | None:
    """Version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _blocks(text: str) -> list[tuple[str, Any]]:
    """Cut plain text into paragraphs and lists."""
    blocks: list[tuple[str, Any]] = []
    for part in re.split(r"\n\s*\n", str(text).strip()):
        words: list[str] = []
        for line in part.splitlines():
            if line.lstrip().startswith("- "):
                if words:
                    blocks.append(("text", " ".join(words)))
                    words = []
                if not blocks or blocks[-1][0] != "list":
                    blocks.append(("list", []))
                blocks[-1][1].append(line.lstrip()[2:].strip())
            elif line.strip() and blocks and blocks[-1][0] == "list" and not words and line.startswith("  "):
                blocks[-1][1][-1] += " " + line.strip()
            elif line.strip():
                words.append(line.strip())
        if words:
            blocks.append(("text", " ".join(words)))
    return blocks


def _embed(figure: Figure, caption: str, alt: str, number: int, narrow: Figure | None = None) -> _Figure:
    """Make a figure, and its narrow form where there is one, ready for the page."""
    width, height = figure.get_size_inches()
    return _Figure(
        number,
        _uri(figure),
        caption,
        alt,
        round(width * _PIXELS_PER_INCH),
        round(height * _PIXELS_PER_INCH),
        0 if narrow is not None else round(width * _READABLE_PIXELS_PER_INCH),
        "" if narrow is None else _uri(narrow),
    )


def _uri(figure: Figure) -> str:
    """Turn a figure into a data URI: SVG, or PNG where the SVG would be heavy."""
    content, kind = plotting.svg_bytes(figure), "image/svg+xml"
    if len(content) > _HEAVY_SVG:
        content, kind = plotting.png_bytes(figure), "image/png"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _tabulate(frame: pd.DataFrame, name: str, caption: str, number: int) -> _Table:
    """Turn a table into rows of text and a CSV."""
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise InputError(
            f"table {name!r} is a {type(frame).__name__}; give a pandas DataFrame (actkit.to_table makes one)"
        )
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name.removesuffix(".csv")).strip("._") or f"table_{number}"
    csv = frame.to_csv(index=False)
    # A wide table is easier to read without columns that say the same in every row; the CSV keeps them.
    same = [c for c in frame.columns if len(frame) > 1 and frame[c].nunique(dropna=False) == 1]
    shown = (
        frame.drop(columns=same) if len(frame.columns) > _COLUMNS_SHOWN and len(same) < len(frame.columns) else frame
    )
    rows = [[_word(value, cell=True) for value in row] for row in shown.head(_ROWS_SHOWN).itertuples(index=False)]
    columns = [
        {
            "name": str(column),
            "number": pd.api.types.is_numeric_dtype(shown[column]),
            "words": any(len(row[i]) > _CELL_SHOWN for row in rows),
        }
        for i, column in enumerate(shown.columns)
    ]
    notes = [f"The first {_ROWS_SHOWN} of {len(frame):,} rows; the CSV has all."] if len(frame) > _ROWS_SHOWN else []
    if shown is not frame:
        notes.append("In every row: " + ", ".join(f"{c} {_word(frame[c].iloc[0], cell=True)}" for c in same) + ".")
    note = " ".join(notes)
    uri = "data:text/csv;charset=utf-8;base64," + base64.b64encode(csv.encode()).decode()
    return _Table(number, f"{stem}.csv", csv, caption, note, columns, rows, uri)


def _word(value: Any, cell: bool = False) -> str:
    """Write a value: four digits in tables, all of them in provenance."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return "–"
        return f"{value:.4g}".replace("-", "−") if cell else repr(float(value))
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(_word(item, cell) for item in value) or "none"
    return str(value)


def _flatten(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Write nested mappings as ``outer: inner``."""
    rows: list[tuple[str, Any]] = []
    for name, value in facts.items():
        label = f"{prefix}{name}"
        if isinstance(value, Mapping):
            rows += _flatten(value, f"{label}: ")
        else:
            rows.append((label, value))
    return rows
