"""The first notebook in a real JupyterLab in a real browser."""

import os
import shutil
from pathlib import Path

import lab
import pytest

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "01_single_point.ipynb"


pytestmark = pytest.mark.usefixtures("need_chromium")


def test_the_first_notebook_runs_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_NB_MODEL", "lite")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(NOTEBOOK, folder)
    with lab.jupyter_lab(folder, tmp_path) as (address, token), lab.chromium_page() as page:
        lab.open_notebook(page, address, token, NOTEBOOK.name)
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
        cells = lab.run_all_cells(page, timeout=240)
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert not [output for output in outputs if output["output_type"] == "error"]
        assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5
        page.locator(".jp-OutputArea-output img").first.scroll_into_view_if_needed()
        if folder := os.environ.get("SAM_NB_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / "lab.png")
