"""pyproject.toml, environment.yml and requirements.lock name the same packages."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"opencv-python": "py-opencv", "torch": "pytorch"}


@pytest.fixture(scope="module")
def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [Requirement(text) for text in project["dependencies"] + extras["test"] + extras["dev"]]


def test_the_environment_file_names_the_same_packages(requirements):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    *conda, last = environment
    *pip, editable = last["pip"]
    assert editable == "-e ."
    named = {"".join(text.split()) for text in [*conda, *pip]} - {"pip", "python>=3.10"}
    assert named == {CONDA_NAMES.get(r.name, r.name) + str(r.specifier) for r in requirements}


def test_every_dependency_carries_its_reason():
    for file, block in (("pyproject.toml", r"dependencies = \[\n(.*?)\n\]"), ("environment.yml", r"  - pip .*?\n(.*)")):
        text = re.search(block, (ROOT / file).read_text(encoding="utf-8"), re.DOTALL).group(1)
        entries = [line for line in text.splitlines() if line.strip() not in ("- pip:", "- -e .")]
        assert entries
        assert all(" # " in line for line in entries), [line for line in entries if " # " not in line]


def test_the_lock_pins_every_package_and_holds_no_address(requirements):
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    pins = [Requirement(line) for line in text.splitlines()]
    assert all(re.fullmatch(r"==[^,]+", str(pin.specifier)) for pin in pins)
    for requirement in requirements:
        versions = [str(pin.specifier)[2:] for pin in pins if pin.name == requirement.name]
        assert versions, requirement.name
        assert all(version in requirement.specifier for version in versions), requirement.name
