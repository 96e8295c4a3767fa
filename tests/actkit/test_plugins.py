import pytest

from actkit import plugins
from actkit.errors import PluginError


@pytest.mark.parametrize("group", ["actkit.engines", "actkit.extractors", "actkit.analyses", "actkit.data_specs"])
def test_every_declared_entry_point_loads(group):
    points = plugins.found(group)
    assert points
    for name in points:
        assert plugins.load(group, name) is not None


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(PluginError, match=r"no extractors called 'efficientnet_lite'; nearest: 'efficientnet_lite0'"):
        plugins.load("actkit.extractors", "efficientnet_lite")


def test_a_source_folder_that_is_not_installed_says_how_to_install(monkeypatch):
    monkeypatch.setattr(plugins, "found", lambda group: {})
    with pytest.raises(PluginError, match=r"pip install -e \."):
        plugins.load("actkit.analyses", "rdm")
