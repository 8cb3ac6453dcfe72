"""Every notebook runs to its end from a fresh kernel, as saved, and is saved as a reader on the web should see it."""

import ast
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
WITH_BAR = {"checked", "evaluate", "finetune", "iou_by_prompt", "segment_everything", "segment_folder", "train_unet"}
CELL_TIMEOUT = 300  # seconds; fine-tuning takes a minute on two quiet cores

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    """Return the code cells that hold code."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def count_lines(source):
    """Return the lines of a cell, an import as one: the formatter gives every imported name a line."""
    imports = [node for node in ast.parse(source).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    return len(source.splitlines()) - sum(node.end_lineno - node.lineno for node in imports)


def test_the_walkthrough_is_complete():
    names = [path.stem for path in NOTEBOOKS]
    assert names[:5] == ["01_single_point", "02_multi_point", "03_box", "04_point_and_box", "05_multi_box"]


@every_notebook
def test_nbval_runs_as_many_cells_as_there_are(path, tmp_path):
    """nbval executes the cells and compares those marked NBVAL_CHECK_OUTPUT; none may be skipped, none may fail."""
    before = sorted(FOLDER.rglob("*"))
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "--nbval-lax", f"--nbval-cell-timeout={CELL_TIMEOUT}", str(path)]
    command += [f"--junitxml={report}", "-p", "no:cacheprovider", "--tb=short", "--color=no"]
    environment = dict(os.environ, SAM_NB_MODEL="lite", SAM_NB_HOME=str(tmp_path / "home"))
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=FOLDER, check=False)
    assert run.returncode == 0, run.stdout
    (suite,) = ET.parse(report).getroot().iter("testsuite")
    counted = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    assert counted == {"tests": len(code_cells(path)), "failures": 0, "errors": 0, "skipped": 0}
    assert sorted(FOLDER.rglob("*")) == before, "the notebook left files behind"


@every_notebook
def test_it_is_saved_as_executed_in_order_with_pictures(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/jpeg" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.get("name") == "stderr"]
    for cell in cells:
        errors = [output for output in cell.outputs if output.output_type == "error"]
        assert bool(errors) == ("raises-exception" in cell.metadata.get("tags", [])), cell.source
        assert all(error.traceback == [f"{error.ename}: {error.evalue}"] for error in errors), "no path"
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 800_000
    assert not re.search(r"/(home|root|Users|tmp)/|[A-Z]:\\\\", text)
    assert "application/vnd.jupyter.widget-state" not in text
    assert "image/png" not in text


@every_notebook
def test_its_cells_are_small_and_change_nothing_on_the_reader_s_computer(path):
    for cell in code_cells(path):
        source = cell.source
        assert count_lines(source) <= 15, source
        assert not re.search(r"^\s*[!%]|sys\.path|pip install|environ", source, re.MULTILINE), source
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 6, source


@every_notebook
def test_it_imports_once_and_loads_the_model_alone(path):
    sources = [cell.source for cell in code_cells(path)]
    importing = [s for s in sources if re.search(r"^\s*(import|from) ", s, re.MULTILINE)]
    assert importing == sources[:1]
    ours = {line.split()[1] for line in sources[0].splitlines() if re.match(r"(import|from) sam_nb\b", line)}
    assert ours == {"sam_nb"}, "every name of ours comes through the front door"
    # Only what a notebook has made itself, or all that is on this computer, is loaded later.
    loading = [s for s in sources if "load_sam(" in s and "checkpoint=" not in s and "available_models()" not in s]
    assert loading == ["sam = load_sam()"]


@every_notebook
def test_it_has_facts_that_are_checked_and_exercises_that_check_themselves(path):
    text = "\n".join(cell.source for cell in code_cells(path))
    assert text.count("# NBVAL_CHECK_OUTPUT") >= 2
    assert text.count("mine = ") >= 2


@every_notebook
def test_no_checked_cell_shows_a_progress_bar(path):
    """A bar is one more output wherever it lives long enough to be drawn, as on a slow computer."""
    for cell in code_cells(path):
        if "# NBVAL_CHECK_OUTPUT" in cell.source:
            calls = [node.func for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
            named = {getattr(call, "attr", getattr(call, "id", None)) for call in calls}
            assert not named & WITH_BAR, cell.source


@every_notebook
def test_its_links_lead_somewhere(path):
    for cell in nbformat.read(path, as_version=4).cells:
        prose = re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)\)", prose):
            if "://" not in target:
                assert (path.parent / target).exists(), target
