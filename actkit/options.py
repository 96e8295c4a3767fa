"""Options declared once: one pydantic model beside a function serves Python, the command line and study files."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from actkit.errors import InputError, nearest

if TYPE_CHECKING:
    import click

Model = TypeVar("Model", bound="Options")


class Options(BaseModel):
    """Base of every options model: frozen, and an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def parse(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Validate option values, and say in plain words what is wrong.

    Parameters
    ----------
    model : type of Options
        The model that declares the options.
    values : mapping
        Names and values as the caller gave them.
    where : str
        What the options belong to (``"rdm()"``, ``"study.yaml, step 2 (rsa)"``), for the message.

    Returns
    -------
    Options
        The validated options.

    Raises
    ------
    InputError
        With one line per bad option: its name, its value and what is allowed.
    """
    try:
        return model(**values)
    except ValidationError as error:
        known = list(model.model_fields)
        lines = []
        for problem in error.errors():
            path = ".".join(str(part) for part in problem["loc"]) or "options"
            if problem["type"] == "extra_forbidden":
                lines.append(f"unknown option {path!r}; {nearest(path, known)}")
            elif problem["type"] == "missing":
                lines.append(f"option {path!r} is needed and was not given")
            else:
                lines.append(f"option {path!r} is {problem['input']!r}: {problem['msg']}")
        raise InputError(f"{where}: " + "; ".join(lines)) from None


class Configurable(Protocol):
    """A function whose options are declared by a model."""

    __name__: str
    options_model: type[Options]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it with data, and options as keywords."""


def with_options(model: type[Options]) -> Callable[[Callable[..., Any]], Configurable]:
    """Turn ``f(data…, options)`` into ``f(data…, name=value, …)`` with the names of a model.

    The last parameter of the decorated function receives the validated model. Callers pass the
    options as keywords, or a ready model as ``options=``. Signature and docstring are completed
    from the model, so that ``help()`` shows every option.

    Parameters
    ----------
    model : type of Options
        The model that declares the options.

    Returns
    -------
    callable
        The decorator. The decorated function carries the model as ``.options_model``.
    """

    def decorate(function: Callable[..., Any]) -> Configurable:
        parameters = list(inspect.signature(function).parameters.values())[:-1]

        @functools.wraps(function)
        def wrapper(*args: Any, options: Options | None = None, **values: Any) -> Any:
            data = {p.name: values.pop(p.name) for p in parameters if p.name in values}
            if options is not None and values:
                raise InputError(
                    f"{function.__name__}(): options= and single options ({', '.join(values)}) were both given; "
                    "give one of them"
                )
            checked = options if options is not None else parse(model, values, f"{function.__name__}()")
            return function(*args, **data, **{last: checked})

        last = list(inspect.signature(function).parameters)[-1]
        keywords = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.is_required() else _default(field),
                annotation=field.annotation,
            )
            for name, field in model.model_fields.items()
        ]
        wrapper.__signature__ = inspect.Signature([*parameters, *keywords])  # type: ignore[attr-defined]
        wrapper.options_model = model  # type: ignore[attr-defined]
        wrapper.__doc__ = _with_option_list(inspect.getdoc(function) or "", model)
        return cast(Configurable, wrapper)

    return decorate


def _default(field: FieldInfo) -> Any:
    """The default value of a field that has one."""
    return field.get_default(call_default_factory=True)


def _with_option_list(doc: str, model: type[Options]) -> str:
    """Put the options of a model at the end of the docstring's Parameters section."""
    lines = []
    for name, field in model.model_fields.items():
        default = "" if field.is_required() else f", default {_default(field)!r}"
        lines += [f"{name} : {_type_words(field.annotation)}{default}", f"    {field.description or ''}"]
    block = "\n".join(lines)
    head, mark, tail = doc.partition("\nReturns\n-------")
    return f"{head.rstrip()}\n{block}\n{mark}{tail}" if mark else f"{doc.rstrip()}\n\n{block}\n"


def _type_words(annotation: Any) -> str:
    """Describe a type the way numpydoc does: choices in braces, plain names otherwise."""
    if typing.get_origin(annotation) is Literal:
        return "{" + ", ".join(repr(choice) for choice in typing.get_args(annotation)) + "}"
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(_type_words(part) for part in typing.get_args(annotation))
    if annotation is type(None):
        return "None"
    if typing.get_origin(annotation) in (list, tuple):
        inner = [part for part in typing.get_args(annotation) if part is not Ellipsis]
        return "list of " + " or ".join(_type_words(part) for part in inner)
    return getattr(annotation, "__name__", str(annotation))


def click_options(model: type[Options], skip: tuple[str, ...] = ()) -> list[click.Option]:
    """Make the command-line options of a model.

    Parameters
    ----------
    model : type of Options
        The model that declares the options.
    skip : tuple of str
        Fields that the command gives in another way.

    Returns
    -------
    list of click.Option
        One option a field: a flag pair for booleans, a choice for literals, repeatable for lists.
    """
    import click

    made = []
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        parts = [part for part in _union_parts(field.annotation) if part is not type(None)]
        flag = "--" + name.replace("_", "-")
        help_text = field.description or ""
        settings: dict[str, Any] = {"help": help_text, "default": None, "show_default": False}
        default = None if field.is_required() else _default(field)
        if default is not None and default != () and default != []:
            settings["help"] = f"{help_text} [default: {default}]"
        if parts == [bool]:
            made.append(click.Option([f"{flag}/--no-{name.replace('_', '-')}", name], **settings))
            continue
        lists = [part for part in parts if typing.get_origin(part) in (list, tuple)]
        literals = [part for part in parts if typing.get_origin(part) is Literal]
        if lists:
            settings["multiple"] = True
            settings["help"] += " (repeat the option for several)"
        elif len(parts) == 1 and literals:
            settings["type"] = click.Choice([str(choice) for choice in typing.get_args(literals[0])])
        elif parts == [int]:
            settings["type"] = int
        elif parts == [float]:
            settings["type"] = float
        else:
            settings["type"] = str
        made.append(click.Option([flag, name], required=field.is_required(), **settings))
    return made


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the command-line values that the user typed; the model supplies the rest.

    Parameters
    ----------
    values : mapping
        Names and values as click parsed them.

    Returns
    -------
    dict
        Without the options left out (``None`` and empty repeats).
    """
    return {name: value for name, value in values.items() if value is not None and value != ()}


def _union_parts(annotation: Any) -> list[Any]:
    """The members of a union type, or the type alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return list(typing.get_args(annotation))
    return [annotation]
