"""The notebook with the canvas, in a real JupyterLab in a real browser."""

import os
import shutil
import time
from pathlib import Path

import lab
import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"

pytestmark = pytest.mark.usefixtures("need_chromium")


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Yield notebook 06 in JupyterLab, run to its end."""
    monkeypatch.setenv("SAM_NB_MODEL", "lite")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    name = "06_click_to_segment.ipynb"
    shutil.copy(NOTEBOOKS / name, folder)
    with lab.jupyter_lab(folder, tmp_path) as (address, token), lab.chromium_page() as page:
        lab.open_notebook(page, address, token, name)
        cells = [cell for cell in lab.run_all_cells(page, timeout=240) if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
        assert not [cell for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
        yield page


def test_the_canvas_of_notebook_06_is_clicked(page):
    """What a reader does after running the notebook; its screenshot is the one in the notebook."""
    box = page.locator(".jp-OutputArea-output .widget-vbox").first
    canvas, status = box.locator("canvas").first, box.locator(".widget-html").first

    def wait_for(text):
        deadline = time.monotonic() + 60
        while text not in status.inner_text():
            assert time.monotonic() < deadline, status.inner_text()
            time.sleep(0.05)

    def at(x, y):
        place = canvas.bounding_box()
        return place["x"] + x * place["width"] / 512, place["y"] + y * place["height"] / 512

    def name(row, text):
        field = box.locator("input[type=text]").nth(row)
        field.fill(text)
        field.press("Enter")
        wait_for(f"{text} · ")

    canvas.scroll_into_view_if_needed()
    wait_for("is ready")  # the cells below have left the reader's canvas empty
    time.sleep(1)  # the notebook settles
    page.mouse.click(*at(170, 342))
    wait_for("object 1 · ")
    assert "predicted IoU" in status.inner_text()
    name(0, "person")
    page.get_by_role("button", name="New object").first.click()
    wait_for("is ready")
    page.mouse.move(*at(124, 346))
    page.mouse.down()
    page.mouse.move(*at(206, 426), steps=5)
    page.mouse.up()
    wait_for("object 2 · ")
    name(2, "patch")
    assert box.get_by_text("✎").count() == 1
    if folder := os.environ.get("SAM_NB_SCREENSHOTS"):
        page.mouse.move(0, 0)
        time.sleep(1)
        box.screenshot(path=Path(folder) / "click.png")
