import inspect
from typing import Literal

import click
import pytest
from click.testing import CliRunner
from pydantic import Field

from actkit.errors import InputError
from actkit.options import Options, click_options, given, parse, with_options


class ToyOptions(Options):
    method: Literal["first", "second"] = Field("first", description="Which way.")
    size: int = Field(3, ge=1, description="How many.")
    rate: float | None = Field(None, description="How fast.")
    layers: list[str] | None = Field(None, description="Which layers.")
    loud: bool = Field(False, description="Say more.")


@with_options(ToyOptions)
def toy(data, options):
    """Return what came in.

    Parameters
    ----------
    data : object
        Anything.

    Returns
    -------
    tuple
        Data and options.
    """
    return data, options


def test_keywords_become_the_validated_model():
    data, options = toy("x", method="second", size=5)
    assert data == "x"
    assert (options.method, options.size, options.rate) == ("second", 5, None)


def test_data_may_be_given_by_keyword_and_options_as_a_model():
    assert toy(data=1)[0] == 1
    assert toy(2, options=ToyOptions(size=9))[1].size == 9
    with pytest.raises(InputError, match=r"options= and single options \(size\) were both given"):
        toy(2, options=ToyOptions(), size=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metod": "first"}, "unknown option 'metod'; nearest: 'method'"),
        ({"method": "third"}, "option 'method' is 'third'"),
        ({"size": 0}, "option 'size' is 0: Input should be greater than or equal to 1"),
    ],
)
def test_a_bad_option_is_named_with_its_value(values, message):
    with pytest.raises(InputError, match=r"toy\(\)") as caught:
        toy("x", **values)
    assert message in str(caught.value)


def test_signature_and_help_show_every_option():
    parameters = inspect.signature(toy).parameters
    assert list(parameters) == ["data", "method", "size", "rate", "layers", "loud"]
    assert parameters["size"].default == 3
    doc = toy.__doc__
    assert "method : {'first', 'second'}, default 'first'" in doc
    assert doc.index("layers : list of str or None") < doc.index("Returns")


def test_the_command_line_has_the_same_options():
    seen = {}

    def callback(**values):
        seen.update(vars(parse(ToyOptions, given(values), "toy")))

    command = click.Command("toy", params=click_options(ToyOptions), callback=callback)
    arguments = ["--method", "second", "--size", "4", "--layers", "a", "--layers", "b", "--loud"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert seen == {"method": "second", "size": 4, "rate": None, "layers": ["a", "b"], "loud": True}
    help_text = CliRunner().invoke(command, ["--help"]).output
    assert "Which way. [default: first]" in " ".join(help_text.split())
    assert CliRunner().invoke(command, ["--method", "third"]).exit_code == 2
