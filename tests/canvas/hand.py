"""What a person does with the mouse and the keyboard on a canvas in JupyterLab, and what they see there."""

import contextlib
import shutil
import time
from pathlib import Path

import lab
import pytest

NOTEBOOK = "canvas.ipynb"
SIZE = (640, 1024)  # height, width: the canvas shows it one to one

CELL = f"""
import json, sys
import ipywidgets, psutil
import numpy as np
from discs import Discs
from sam_nb import PromptCanvas
H, W = {SIZE[0]}, {SIZE[1]}
sam = Discs(H, W, radius=60, hole=30)
image = np.full((H, W, 3), 90, np.uint8)
canvas = PromptCanvas(sam, image, preview=False)
def fresh():
    sam.wait, sam.fails = 0.0, False
    canvas.painter.fit()
    canvas.controls.preview.value, canvas.controls.mode.value = False, "include"
    for _ in canvas.session.objects:
        canvas.session.delete(0)
canvas
"""
FILLER = "one line\n\n" * 40  # below the canvas, so that there is something to scroll
FILL = (60, 117, 172)  # half of PALETTE's blue over the grey image


@contextlib.contextmanager
def serve_canvas(work):
    """Serve a notebook whose one cell shows a canvas; yield (address, token) of JupyterLab."""
    folder = work / "notebooks"
    folder.mkdir()
    shutil.copy(Path(__file__).parent.parent / "discs.py", folder)
    lab.write_notebook(folder / NOTEBOOK, CELL, text_below=FILLER)
    with lab.jupyter_lab(folder, work) as served:
        yield served


class Hand:
    """What a person sees and does on the canvas."""

    def __init__(self, page):
        self.page = page
        self.layers = page.locator(".jp-OutputArea canvas").first

    def start(self):
        lab.run_all_cells(self.page, timeout=120)
        self.layers.wait_for()
        self.wait_until_still()
        self.wait_for_status("is ready")

    def wait_until_still(self):
        """Wait until the notebook has stopped moving the canvas about."""
        before, equal = None, 0
        self.layers.scroll_into_view_if_needed()
        while equal < 4:
            box = self.layers.bounding_box()
            equal = equal + 1 if box == before else 0
            before = box
            time.sleep(0.05)

    def place(self, x, y):
        """Return where on the page a pixel of the image is."""
        box = self.layers.bounding_box()
        return box["x"] + (x + 0.5) * box["width"] / SIZE[1], box["y"] + (y + 0.5) * box["height"] / SIZE[0]

    def click(self, x, y, **options):
        self.page.mouse.click(*self.place(x, y), **options)

    def drag(self, start, end, steps=6):
        self.page.mouse.move(*self.place(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.place(*end), steps=steps)
        self.page.mouse.up()

    def color(self, x, y):
        """Return the colour that all layers together have at a pixel."""
        return self.layers.evaluate(
            "(c, [x, y]) => [...c.getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3)", [x, y]
        )

    def wait_for(self, x, y, masked, seconds=10):
        def is_so():
            return (self.color(x, y) == pytest.approx(FILL, abs=12)) == masked

        lab.wait_until(is_so, f"the pixel ({x}, {y}) does not become {'a mask' if masked else 'no mask'}", seconds)

    def ask(self, expression):
        """Return the value of a Python expression in the kernel."""
        return lab.ask(self.page, expression)

    def points(self):
        return [tuple(point) for point in self.ask("[[p.x, p.y, p.label] for p in canvas.session.points]")]

    def status(self):
        return self.page.locator(".jp-OutputArea .widget-html").first.inner_text()

    def wait_for_status(self, text, seconds=20):
        lab.wait_until(lambda: text in self.status(), f"the status line does not come to say {text!r}", seconds)

    def fresh(self):
        self.ask("fresh()")
        self.wait_for_status("is ready")
        self.wait_until_still()


def near(points, expected, tolerance=1.5):
    assert len(points) == len(expected), points
    for (x, y, label), (ex, ey, expected_label) in zip(points, expected, strict=True):
        assert label == expected_label
        assert abs(x - ex) <= tolerance, (points, expected)
        assert abs(y - ey) <= tolerance, (points, expected)
