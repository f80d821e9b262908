from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

from lib.errors import BadInput
from lib.registry import Registry, nested

FAMILY = """
from lib.registry import register

@register("plain")
def plain(width: int = 8, *, depth: int): ...

@register("other")
class Other:
    def __init__(self, classes, rate: float = 0.5): ...

@register("wrapper")
class Wrapper:
    def __init__(self, of: dict, terms: list = ()): ...

class NotRegistered:
    def __init__(self, hidden): ...
"""


@pytest.fixture
def registry(tmp_path, monkeypatch) -> Registry:
    package = tmp_path / "things"
    package.mkdir()
    (package / "family.py").write_text(FAMILY)
    monkeypatch.setattr("lib.registry.LIB", tmp_path)
    return Registry("lib.things")


def test_finds_components_and_their_parameters_without_importing(registry):
    assert registry.available() == ["other", "plain", "wrapper"]
    assert registry.parameters("plain") == {"width": "8", "depth": ""}
    assert registry.parameters("other") == {"classes": "", "rate": "0.5"}
    assert registry.module("plain").name == "family.py"


def test_unknown_name_and_parameter_say_what_was_meant(registry):
    with pytest.raises(
        BadInput, match=r"lib.things has no 'plane'. Did you mean 'plain'\? Known: other, plain, wrapper"
    ):
        registry.get("plane")
    with pytest.raises(BadInput, match=r"'plain' of lib.things has no parameter 'widht'. Did you mean 'width'\?"):
        registry.check({"name": "plain", "widht": 3}, context=())
    with pytest.raises(BadInput, match="has no parameter 'classes'"):
        registry.check({"name": "other", "classes": 3}, context=["classes"])
    with pytest.raises(BadInput, match="needs 'name'"):
        registry.check({"width": 3}, context=())
    with pytest.raises(BadInput, match=r"'plain' of lib.things needs the parameter 'depth'"):
        registry.check({"name": "plain"}, context=())
    registry.check({"name": "other", "rate": 0.1}, context=["classes"])


def test_recipes_nest(registry):
    second = registry.module("plain").with_name("second.py")
    second.write_text('from lib.registry import register\n@register("late")\ndef late(table: dict = {}): ...\n')
    registry = Registry("lib.things")
    plain, late = {"name": "plain", "depth": 2}, {"name": "late", "table": {"down": [["conv", 0]]}}
    recipe = {"name": "wrapper", "of": {"name": "wrapper", "of": plain}, "terms": [late, plain]}
    assert nested(recipe) == [recipe, recipe["of"], plain, late, plain]
    assert [file.name for file in registry.modules(recipe)] == ["family.py", "second.py"]
    assert [file.name for file in registry.modules(plain)] == ["family.py"]
    registry.check(recipe, context=())
    with pytest.raises(BadInput, match=r"'plain' of lib.things has no parameter 'dept'. Did you mean 'depth'"):
        registry.check({"name": "wrapper", "of": {"name": "wrapper", "of": {"name": "plain", "dept": 2}}}, context=())
    with pytest.raises(BadInput, match=r"has no 'lat'. Did you mean 'late'"):
        registry.check({"name": "wrapper", "of": plain, "terms": [late, {"name": "lat"}]}, context=())
    with pytest.raises(BadInput, match="has no parameter 'table'"):
        registry.check({"name": "wrapper", "of": late}, context=["table"])


def test_a_name_registered_twice_is_refused(registry):
    (registry.module("plain").parent / "second.py").write_text(
        'from lib.registry import register\n@register("plain")\ndef again(): ...\n'
    )
    with pytest.raises(ValueError, match=r"'plain' is registered in both .*family.py and .*second.py"):
        Registry("lib.things").available()


def test_planning_imports_no_torch():
    program = (
        "import sys; sys.path.insert(0, 'workflow/scripts'); from lib.config import MODELS; from lib.losses.recipes import LOSSES;"
        "assert {'unet', 'segnet'} <= set(MODELS.available()) and 'cross_entropy' in LOSSES.available();"
        "MODELS.check({'name': 'unet', 'width': 8}, ('in_channels', 'out_channels', 'spatial_dims')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_a_file_that_is_no_python_names_itself_and_its_line(registry):
    broken = registry.module("plain").with_name("broken.py")
    broken.write_text("x = 1\ndef loss(:\n")
    with pytest.raises(BadInput, match=r"broken\.py: line 2: invalid syntax"):
        Registry("lib.things").available()


def test_a_file_without_the_decorator_is_told_from_an_unknown_name(registry):
    registry.module("plain").with_name("forgotten.py").write_text("class Forgotten: ...\n")
    with pytest.raises(BadInput, match=r"forgotten\.py is there, but nothing in it has @register\('forgotten'\)"):
        Registry("lib.things").get("forgotten")
