"""The first notebook and the one with the canvas, in a real JupyterLab in a real browser."""

import contextlib
import os
import shutil
import time
from pathlib import Path

import lab
import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"

pytestmark = pytest.mark.usefixtures("need_chromium")


@pytest.fixture
def run_in_lab(tmp_path, monkeypatch):
    """Return a context manager that runs a notebook to its end and yields (page, code cells)."""
    monkeypatch.setenv("SAM_NB_MODEL", "lite")
    folder = tmp_path / "notebooks"
    folder.mkdir()

    def run(name):
        shutil.copy(NOTEBOOKS / name, folder)
        with lab.jupyter_lab(folder, tmp_path) as (address, token), lab.chromium_page() as page:
            lab.open_notebook(page, address, token, name)
            page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
            cells = lab.run_all_cells(page, timeout=240)
            assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
            outputs = [output for cell in cells for output in cell["outputs"]]
            assert not [output for output in outputs if output["output_type"] == "error"]
            yield page, outputs

    return contextlib.contextmanager(run)


def test_the_first_notebook_runs_to_its_end(run_in_lab):
    with run_in_lab("01_single_point.ipynb") as (_, outputs):
        assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5


def test_the_canvas_of_notebook_06_is_clicked(run_in_lab):
    """What a reader does after running the notebook; its screenshot is docs/click.jpg."""
    with run_in_lab("06_click_to_segment.ipynb") as (page, _):
        box = page.locator(".jp-OutputArea-output .widget-vbox").first
        canvas, status = box.locator("canvas").first, box.locator(".widget-html").first

        def wait_for(text):
            deadline = time.monotonic() + 60
            while text not in status.inner_text():
                assert time.monotonic() < deadline, status.inner_text()
                time.sleep(0.05)

        def at(x, y):
            place = canvas.bounding_box()
            return place["x"] + x * place["width"] / 1152, place["y"] + y * place["height"] / 648

        canvas.scroll_into_view_if_needed()
        page.get_by_role("button", name="New object").first.click()
        wait_for("is ready")
        time.sleep(1)  # the notebook settles
        page.mouse.move(*at(604, 12))
        page.mouse.down()
        page.mouse.move(*at(926, 80), steps=5)
        page.mouse.up()
        wait_for("object 3 · ")
        assert "predicted IoU" in status.inner_text()
        names = box.locator("input[type=text]")
        assert names.nth(2).input_value() == "rear wheel"
        names.nth(4).fill("awning")
        names.nth(4).press("Enter")
        wait_for("awning · ")
        assert box.get_by_text("✎").count() == 1
        if folder := os.environ.get("SAM_NB_SCREENSHOTS"):
            page.mouse.move(0, 0)
            time.sleep(1)
            box.screenshot(path=Path(folder) / "click.png")
