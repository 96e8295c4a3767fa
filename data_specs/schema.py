"""What a data set looks like: the schema of the YAML specs, and messages that name file, line and key.

A spec says what there is (variables with their dims and units of measure, stimuli, splits), where it lies (files with
address, size and sha256) and under which terms. It is declarative: it names loaders and transforms from a fixed
vocabulary and never code.
"""

from __future__ import annotations

import types
import typing
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from actkit.array_files import Loader
from actkit.errors import DataError, nearest

DIMS = (
    "stimulus", "unit", "channel", "y", "x", "neuron", "repetition", "subject",
    "time", "rdm", "pair", "layer", "model", "task", "draw", "condition", "position",
)  # fmt: skip
"""The names that dimensions have in actkit."""

Dim = Literal[
    "stimulus", "unit", "channel", "y", "x", "neuron", "repetition", "subject",
    "time", "rdm", "pair", "layer", "model", "task", "draw", "condition", "position",
]  # fmt: skip
RDM_DIMS = ("layer", "subject", "model", "rdm")


def _as_list(value: Any) -> Any:
    """One item stands for a list of one."""
    return value if isinstance(value, list) or value is None else [value]


def _inside(value: str) -> str:
    """Refuse paths that leave the data set's folder."""
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts or "\\" in value or ":" in path.parts[0]:
        raise ValueError("a path inside the data set's folder is needed, with / between folders")
    return value


InsidePath = Annotated[str, BeforeValidator(lambda value: _inside(value) if isinstance(value, str) else value)]


class Part(BaseModel):
    """Base of every part of a spec: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileSpec(Part):
    """One file: where it comes from and what it must be, byte for byte."""

    path: InsidePath = Field(description="where it lies in the data set's folder")
    bytes: int = Field(ge=0, description="its size")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="its checksum in hexadecimal")
    address: str | None = Field(None, pattern="^https?://", description="where it is downloaded from")
    by_hand: str | None = Field(None, description="how to get it where there is no address")
    unpack: InsidePath | None = Field(None, description="folder that a zip or tar file is unpacked into by fetch")

    @model_validator(mode="after")
    def _obtainable(self) -> FileSpec:
        if self.address is None and self.by_hand is None:
            raise ValueError("give an address, or say under by_hand how to get the file")
        return self


class CoordinateSpec(Part):
    """Names or values along a dimension, written out, numbered or read from a file."""

    dim: Dim = Field(description="the dimension that they run along")
    values: list[str | int | float | bool] | None = Field(None, description="the values, written out")
    key: str | None = Field(None, description="where the file holds them")
    file: str | None = Field(None, description="the file, by default that of the variable")
    loader: Loader | None = Field(None, description="by default from the file's suffix")
    pattern: str | None = Field(None, description="regular expression; its first group is kept of each text")
    format: str | None = Field(None, description="numbers from 0 in this format, such as '{:02d}'")
    map: dict[str, str] | None = Field(None, description="what the file's values stand for")

    @model_validator(mode="after")
    def _one_origin(self) -> CoordinateSpec:
        if sum(origin is not None for origin in (self.values, self.key, self.format)) != 1:
            raise ValueError("give either values or a key or a format, one of them and only one")
        _refuse_constant(self.format, "format")
        return self


class Transform(Part):
    """One step on the values read; the vocabulary is fixed, one word a step, applied in the order listed."""

    select: dict[Dim, list[int | str]] | None = Field(None, description="keep these names or positions, in this order")
    drop: dict[Dim, list[str]] | None = Field(None, description="leave these names out")
    rename: dict[Dim, dict[str, str]] | None = Field(None, description="new names for old ones")
    average: Annotated[list[Dim], BeforeValidator(_as_list)] | None = Field(
        None, description="mean over these dims, missing values left out"
    )
    stack: dict[Dim, list[Dim]] | None = Field(None, description="run several dims one inside the other as one")
    transpose: list[Dim] | None = Field(None, description="the dims in another order")
    expand: dict[Dim, str] | None = Field(None, description="a new last dim with one entry of this name")
    one_minus: Literal[True] | None = Field(None, description="1 - value, as from correlation to dissimilarity")
    scale: float | None = Field(None, description="factor on every value")

    @model_validator(mode="after")
    def _one_word(self) -> Transform:
        if len(self.model_fields_set) != 1:
            words = ", ".join(type(self).model_fields)
            raise ValueError(f"a transform has exactly one word of: {words}; list several steps one after the other")
        return self

    @property
    def word(self) -> str:
        """The transform's name."""
        return next(iter(self.model_fields_set))


class SourceSpec(Part):
    """Where values are read."""

    file: str | None = Field(None, description="name of the file among the spec's files")
    loader: Loader | None = Field(None, description="by default from the file's suffix")
    key: Annotated[list[str], BeforeValidator(_as_list)] | None = Field(
        None, description="path inside the file (struct.field, group/dataset, column); several are put side by side"
    )
    dims: list[Dim] | None = Field(None, description="dims as they are in the file, by default those of the variable")
    index: dict[Dim, str] | None = Field(None, description="tidy tables: the column that numbers each dim")
    number: Dim | None = Field(
        None, description="tidy tables: rows alike in all of index are numbered along this dim, in their order"
    )
    pattern: dict[Dim, str] = Field(
        {}, description="tidy tables: regular expression whose first group is kept of a dim's names"
    )
    columns: dict[Dim, dict[str, str]] = Field(
        {}, description="tidy tables: for a dim, coordinates and the columns that hold them"
    )
    stimulus_key: str | None = Field(None, description="where the file holds the ids of its stimulus rows")
    region: dict[str, list[str]] | None = Field(None, description="netCDF: keep rows whose coordinate has these values")
    read: dict[str, Any] | None = Field(
        None, description="the file is a recording of neurons: options of actkit.recordings_files.read_recording"
    )
    transforms: list[Transform] = Field([], description="steps on the values, in order")
    drawn: str | None = Field(None, description="name of a variable that comes with drawn stimuli")

    @model_validator(mode="after")
    def _one_origin(self) -> SourceSpec:
        if (self.file is None) == (self.drawn is None):
            raise ValueError("give either a file or the name of a drawn variable")
        beside = [name for name in ("loader", "key", "dims", "index", "stimulus_key", "region") if getattr(self, name)]
        if self.read is not None and beside:
            raise ValueError(f"read says all of how a recording is read, so {beside[0]} goes inside it or is left out")
        return self


class VariableSpec(Part):
    """One variable of a data set: what was measured, along which dims, in which units of measure."""

    kind: Literal["rdm", "responses", "choices", "labels", "features"] = Field(description="what it is")
    description: str = Field(description="a sentence")
    dims: list[Dim] = Field(min_length=1, description="dims of the variable as users get it")
    units: str = Field("1", description="units of measure")
    measure: str | None = Field(None, description="the dissimilarity of an RDM")
    source: SourceSpec
    coords: dict[str, CoordinateSpec] = Field({}, description="names along dims, and further coordinates")
    names: list[str] | None = Field(None, description="names along the first dim, written out")
    rows: str | None = Field(
        None, description="label whose values the rows are, where one row stands for all stimuli of a value"
    )
    citation: str | None = Field(None, description="paper to cite for this variable")
    note: str | None = Field(None, description="what a user must know")
    attrs: dict[str, str | int | float] = Field({}, description="further attributes")

    @model_validator(mode="after")
    def _fits_kind(self) -> VariableSpec:
        repeated = {dim for dim in self.dims if self.dims.count(dim) > 1}
        if self.kind == "rdm":
            if len(self.dims) != 2 or self.dims[0] not in RDM_DIMS or self.dims[1] != "pair":
                raise ValueError(f"an RDM variable has the dims [one of {', '.join(RDM_DIMS)}; pair], not {self.dims}")
            if self.measure is None:
                raise ValueError("an RDM variable names its measure of dissimilarity")
        elif repeated:
            raise ValueError(f"the dim {sorted(repeated)[0]!r} occurs twice; only RDMs in a file may do that")
        elif self.kind in ("responses", "features", "labels") and "stimulus" not in self.dims:
            raise ValueError(f"{self.kind} run along stimulus, but the dims are {self.dims}")
        return self


class LabelSpec(Part):
    """One label column of the stimuli."""

    key: str | None = Field(None, description="where the stimuli's file holds it")
    file: str | None = Field(None, description="another file that holds it")
    loader: Loader | None = Field(None, description="by default from the file's suffix")
    values: list[str | int | float | bool] | None = Field(None, description="the values, written out")
    each: int = Field(1, ge=1, description="how many stimuli in a row each of the values stands for")
    pattern: str | None = Field(None, description="regular expression whose first group of each id is the label")
    of: str | None = Field(None, description="an earlier label that it is derived from")
    map: dict[str, str | int | float | bool] | None = Field(None, description="values of that label to values of this")
    flag: bool = Field(False, description="0 and 1 become false and true")
    number: bool = Field(False, description="texts of digits become numbers")

    @model_validator(mode="after")
    def _one_origin(self) -> LabelSpec:
        if sum(origin is not None for origin in (self.key, self.values, self.of, self.pattern)) != 1:
            raise ValueError("give exactly one of key, values, of and pattern")
        if self.each > 1 and self.values is None:
            raise ValueError("each says how many stimuli each of the values stands for, so it goes with values")
        if (self.of is None) != (self.map is None):
            raise ValueError("of and map belong together")
        return self


def _refuse_constant(text: str | None, key: str) -> None:
    """A format for row numbers must take a number and tell one row from another."""
    if text is None:
        return
    try:
        distinct = text.format(1) != text.format(2)
    except (ValueError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(f"{key} is no format for a row number, such as '{{:02d}}': {error}") from None
    if not distinct:
        raise ValueError(f"{key} is the same for every row; write a format such as '{{:02d}}'")


class IdxSpec(Part):
    """IDX files (the format of MNIST) that hold the images and the labels of each part of a data set."""

    images: dict[str, InsidePath] = Field(min_length=1, description="file of images of each part, without .gz")
    labels: dict[str, InsidePath] = Field(min_length=1, description="file of labels of each part, without .gz")
    label: str = Field("digit", description="label column that the classes become")
    transposed: bool = Field(False, description="images lie in the files with rows and columns exchanged")
    classes: list[str] | None = Field(None, description="names of the classes, by number; none: the numbers")
    first_class: int = Field(0, ge=0, description="number of the first class")
    leave_out: list[str] = Field([], description="classes to leave out")

    @model_validator(mode="after")
    def _fits(self) -> IdxSpec:
        if list(self.images) != list(self.labels):
            raise ValueError(f"images are of the parts {list(self.images)} and labels of {list(self.labels)}")
        if unknown := sorted(set(self.leave_out) - set(self.classes or [])):
            raise ValueError(f"leave_out names {unknown[0]!r}, which is not among the classes")
        return self


class StimuliSpec(Part):
    """The stimuli: where they are, their ids, their order, their labels."""

    source: Literal["folder", "zip", "array", "table", "drawn", "package", "conditions", "idx"] = Field(
        description="what kind of source; conditions have ids and labels and no pictures"
    )
    file: str | None = Field(None, description="name of the file among the spec's files")
    folder: InsidePath | None = Field(None, description="a folder of pictures (source folder), or a table's root")
    pattern: str = Field("**/*", description="which files of a folder or zip")
    loader: Loader | None = Field(None, description="loader of an array source")
    key: str | None = Field(None, description="where the file holds the array")
    function: str | None = Field(None, description="what draws or provides the stimuli (sources drawn and package)")
    extra: str | None = Field(None, description="the extra of actkit that a package source needs")
    path_column: str | None = Field(None, description="column of file names (source table)")
    id_column: str | None = Field(None, description="column of ids (source table)")
    ids: str | list[str] | None = Field(None, description="ids of array rows: a list, or a format such as '{:02d}'")
    folder_label: str | None = Field(None, description="label that the sub-folders become")
    idx: IdxSpec | None = Field(None, description="files of images and labels (source idx)")
    by_hand: str | None = Field(
        None, description="where to get a folder of pictures or IDX files, and how to arrange it"
    )
    order: str = Field(description="a sentence that states the row order")
    labels: dict[str, LabelSpec] = Field({}, description="label columns, in this order")

    @model_validator(mode="after")
    def _complete(self) -> StimuliSpec:
        places = {
            "folder": "folder",
            "zip": "file",
            "array": "file",
            "table": "file",
            "conditions": "ids",
            "idx": "idx",
        }
        needed = places.get(self.source, "function")
        if getattr(self, needed) is None:
            raise ValueError(f"stimuli of source {self.source!r} need the key {needed!r}")
        if self.by_hand is not None and self.source not in ("folder", "idx"):
            raise ValueError(
                "by_hand under stimuli goes with the sources folder and idx; files have a by_hand of their own"
            )
        if self.folder_label is not None and self.source not in ("folder", "zip"):
            raise ValueError(f"stimuli of source {self.source!r} have no folders to become a label (folder_label)")
        if self.source == "conditions":
            ids = self.ids if isinstance(self.ids, list) else []
            if not ids or len(set(ids)) < len(ids):
                raise ValueError("stimuli of source 'conditions' need a list of distinct ids")
        if isinstance(self.ids, str):
            _refuse_constant(self.ids, "ids")
        return self


class SplitSpec(Part):
    """A seeded split of the stimuli into train and test, kept as a label column."""

    test: float = Field(gt=0, lt=1, description="fraction that is held out")
    within: str | None = Field(None, description="label whose every value is split in that proportion")
    seed: int = Field(0, ge=0, description="seed of the draw")


class Spec(Part):
    """A data set."""

    name: str = Field(pattern="^[a-z0-9_]+$", description="short name: lower case, digits, underscores")
    title: str = Field(description="one line")
    description: str = Field(description="a paragraph")
    licence: str = Field(description="terms of use, in words")
    citation: Annotated[list[str], BeforeValidator(_as_list)] = Field(min_length=1, description="what to cite")
    homepage: str | None = Field(None, pattern="^https?://", description="where people read about it")
    folder: InsidePath | None = Field(None, description="folder of the files, by default called as the data set")
    files: dict[str, FileSpec] = Field({}, description="files by a short name")
    stimuli: StimuliSpec
    variables: dict[str, VariableSpec] = Field({}, description="what was measured, by name")
    splits: dict[str, SplitSpec] = Field({}, description="label column to split")

    @field_validator("variables", "files", "splits")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not name.isidentifier():
                raise ValueError(f"the name {name!r} must be letters, digits and underscores")
        return value

    @model_validator(mode="after")
    def _references(self) -> Spec:
        wanted = [("stimuli.file", self.stimuli.file)]
        wanted += [(f"stimuli.labels.{name}.file", label.file) for name, label in self.stimuli.labels.items()]
        for name, variable in self.variables.items():
            wanted.append((f"variables.{name}.source.file", variable.source.file))
            wanted += [(f"variables.{name}.coords.{c}.file", coord.file) for c, coord in variable.coords.items()]
        for where, file in wanted:
            if file is not None and file not in self.files:
                raise ValueError(f"{where} names {file!r}, which is not among the files; {nearest(file, self.files)}")
        paths = [file.path for file in self.files.values()]
        for path in paths:
            if paths.count(path) > 1:
                raise ValueError(f"two files have the path {path!r}")
        return self


def read_spec(path: str | Path) -> Spec:
    """Read and check a spec.

    Parameters
    ----------
    path : path
        The YAML file.

    Returns
    -------
    Spec
        The data set's spec.

    Raises
    ------
    DataError
        If the file cannot be read, is no YAML, repeats a key, or does not follow the schema. The message names the
        file, the line and the path of the key, and for an unknown key the nearest known ones.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the data spec {path} cannot be read: {error}") from error
    return parse_spec(text, str(path))


def parse_spec(text: str, where: str = "data spec") -> Spec:
    """Check the text of a spec; otherwise as `read_spec`.

    Parameters
    ----------
    text : str
        YAML.
    where : str
        What to call it in messages.

    Returns
    -------
    Spec
        The data set's spec.

    Raises
    ------
    DataError
        As `read_spec`.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            raise DataError(f"{where} is empty")
        _refuse_repeated_keys(node, where, ())
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{where} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{where} must be a mapping that starts with `name: …`, not {type(values).__name__}")
    try:
        return Spec(**{str(key): value for key, value in values.items()})
    except ValidationError as error:
        lines = [_in_words(problem, node) for problem in error.errors()]
        raise DataError(f"{where}: " + "; ".join(dict.fromkeys(lines))) from None


def _refuse_repeated_keys(node: yaml.Node, where: str, path: tuple[str, ...]) -> None:
    """YAML readers keep the last of two equal keys in silence; a spec must not lose one."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            here = ".".join((*path, name))
            if name in seen:
                raise DataError(f"{where}, line {key.start_mark.line + 1}: the key {here!r} occurs twice; keep one")
            seen.add(name)
            _refuse_repeated_keys(value, where, (*path, name))
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _refuse_repeated_keys(item, where, (*path, str(i)))


def _in_words(problem: Any, node: yaml.Node) -> str:
    """One validation problem with its line, its key and what is allowed."""
    keys, line, model = _locate(problem["loc"], node)
    path = ".".join(keys) or "the spec"
    place = f"line {line}, {path}"
    if problem["type"] == "extra_forbidden":
        known = list(model.model_fields) if model is not None else []
        return f"{place}: unknown key {keys[-1]!r}; {nearest(keys[-1], known)}"
    if problem["type"] == "missing":
        return f"{place}: this key is needed and missing"
    if problem["type"] == "literal_error":
        allowed = problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{place}: {problem['input']!r} is not allowed; {nearest(str(problem['input']), allowed)}"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], (str, int, float)):
        return f"{place}: {problem['input']!r}: {message}"
    return f"{place}: {message}"


def _locate(loc: tuple[Any, ...], node: yaml.Node) -> tuple[list[str], int, type[BaseModel] | None]:
    """Keys of a problem as the user wrote them, their line, and the model that the last key belongs to."""
    keys: list[str] = []
    line = node.start_mark.line + 1
    model: type[BaseModel] | None = Spec
    annotation: Any = Spec
    here: yaml.Node | None = node
    for step in loc:
        inner = _below(here, step)
        fields = model.model_fields if model is not None else {}
        if inner is None and step not in fields and not (step == loc[-1] and model is not None):
            continue  # pydantic adds marks of its own, such as the branch of a union or '[key]'
        keys.append(str(step))
        if inner is not None:
            here, line = inner[1], inner[0].start_mark.line + 1
        if step == loc[-1]:
            break
        annotation = fields[step].annotation if step in fields else _item_type(annotation)
        model = next(
            (part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, BaseModel)), None
        )
    return keys, line, model


def _below(node: yaml.Node | None, step: Any) -> tuple[yaml.Node, yaml.Node] | None:
    """The node of a key or of a list position, with the node that marks its line."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if str(key.value) == str(step)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


def _parts(annotation: Any) -> list[Any]:
    """The members of a union, or the type alone."""
    if typing.get_origin(annotation) is Annotated:
        return _parts(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [inner for part in typing.get_args(annotation) for inner in _parts(part)]
    return [annotation]


def _item_type(annotation: Any) -> Any:
    """The type of the items of a list or of the values of a dict."""
    for part in _parts(annotation):
        if typing.get_origin(part) in (list, dict):
            return typing.get_args(part)[-1]
    return None
