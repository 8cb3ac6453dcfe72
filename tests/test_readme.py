"""What the README says is true: its code runs, its commands exist, its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sam_nb import load_image
from sam_nb.model.checkpoints import CHECKPOINTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL), ids=["click", "eight lines"])
def test_the_code_runs_as_pasted(code, tmp_path):
    assert len([line for line in code.splitlines() if line]) <= 8
    Image.fromarray(load_image("cat")).save(tmp_path / "my_picture.jpg")
    environment = dict(os.environ, MPLBACKEND="Agg", SAM_NB_MODEL="lite")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_the_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = set(re.findall(r"make ([a-z]+)", README)) - {"of"}
    assert {"lab", "test", "help", "check", "notebooks"} <= commands
    assert all(re.search(rf"^{command}:", makefile, re.MULTILINE) for command in commands), commands


def test_the_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) >= 8
    assert all((ROOT / link).exists() for link in links), links


def test_every_notebook_is_listed():
    names = [path.name for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert names
    assert all(name in README for name in names)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_the_weights_are_those_of_the_table(name):
    assert f"{name}, {CHECKPOINTS[name].size:,} bytes | {CHECKPOINTS[name].url} |" in README
