"""Record docs/canvas.webp: the canvas on a photograph in JupyterLab, clicked in a headless Chromium.

The storyboard is `perform`. A frame is taken after each step of it, when the canvas has nothing more to show, and lasts
as long as the script says: a busy computer records the same animation. A page without a screen has no mouse pointer, so
it is drawn on the frames. Needs the packages of the tests, and Chromium.
"""

import io
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import lab  # noqa: E402 - JupyterLab and Chromium, as the tests of the canvas have them

FILE = ROOT / "docs" / "canvas.webp"
WIDTH = 800  # pixels, of the animation
CAPTION = 34  # pixels, of the line of text above the canvas
FRAME = 80  # milliseconds
SPEED = 45  # canvas pixels that the mouse moves in a frame, at most
TIMEOUT = 240  # seconds

SOURCE = """\
import json

from sam_nb import load_sam, segment

canvas = segment("coffee", load_sam("lite"), preview=True)
canvas"""

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
POINTER = ((0, 0), (0, 17), (4, 13.4), (6.6, 19.4), (9.2, 18.3), (6.7, 12.4), (12, 12.2))
"""An arrow, its tip first, in pixels."""

Place = tuple[float, float]


class Recorder:
    """A hand at the mouse of a page, and a camera on a widget.

    Parameters
    ----------
    page : playwright.sync_api.Page
        A notebook that has run `SOURCE`.
    """

    def __init__(self, page) -> None:
        self._page = page
        self._box = page.locator(".jp-OutputArea-output .widget-vbox").first
        self._canvas = self._box.locator("canvas").first
        self._canvas.scroll_into_view_if_needed()
        self._size = lab.ask(page, "(canvas.image.shape[1], canvas.image.shape[0])")
        self._mouse: Place = (0.0, 0.0)  # on the page
        self.caption = ""
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []

    def at(self, x: float, y: float) -> Place:
        """Return where a pixel of the image is on the page."""
        place, (width, height) = self._canvas.bounding_box(), self._size
        return place["x"] + (x + 0.5) * place["width"] / width, place["y"] + (y + 0.5) * place["height"] / height

    def button(self, name: str) -> Place:
        """Return where the middle of a button is on the page."""
        place = self._box.get_by_role("button", name=name).first.bounding_box()
        return place["x"] + place["width"] / 2, place["y"] + place["height"] / 2

    def appear(self, place: Place) -> None:
        """Put the mouse somewhere at once."""
        self._mouse = place
        self._page.mouse.move(*place)

    def glide(self, *places: Place) -> None:
        """Move the mouse from place to place, quick in the middle of a way and slow at its ends."""
        for place in places:
            start = self._mouse
            distance = max(abs(b - a) for a, b in zip(start, place, strict=True))
            count = max(4, round(1.5 * distance / SPEED))
            for step in range(1, count + 1):
                share = step / count
                eased = share * share * (3 - 2 * share)
                self.appear(tuple(a + (b - a) * eased for a, b in zip(start, place, strict=True)))
                self.take(FRAME)

    def click(self, *, shift: bool = False) -> None:
        """Click where the mouse is."""
        if shift:
            self._page.keyboard.down("Shift")
        self.press()
        self.release()
        if shift:
            self._page.keyboard.up("Shift")
        self.take(FRAME, ring=7)
        self.take(FRAME, ring=12)

    def press(self) -> None:
        """Press the left button."""
        self._page.mouse.down()

    def release(self) -> None:
        """Release it."""
        self._page.mouse.up()

    def take(self, milliseconds: int, ring: int = 0) -> None:
        """Take a frame that lasts so long, with a ring of this radius around the pointer."""
        self._settle()
        place = self._box.bounding_box()
        stage = self._canvas.bounding_box()
        bottom = stage["y"] + stage["height"]
        clip = {"x": stage["x"], "y": place["y"], "width": stage["width"], "height": bottom - place["y"]}
        shot = Image.open(io.BytesIO(self._page.screenshot(clip=clip))).convert("RGB")
        scale = WIDTH / shot.width
        shot = shot.resize((WIDTH, round(shot.height * scale)), Image.Resampling.LANCZOS)
        x, y = ((a - b) * scale for a, b in zip(self._mouse, (clip["x"], clip["y"]), strict=True))
        _draw_pointer(shot, x, y, ring)
        frame = Image.new("RGB", (WIDTH, CAPTION + shot.height), "white")
        frame.paste(shot, (0, CAPTION))
        font = ImageFont.truetype(str(FONT), 17)
        ImageDraw.Draw(frame).text((4, CAPTION // 2), self.caption, fill="black", font=font, anchor="lm")
        self.frames.append(frame)
        self.durations.append(milliseconds)

    def _settle(self) -> None:
        """Wait until the kernel has dealt with the mouse and the page has drawn what it sent."""
        time.sleep(0.12)  # movements are thinned out, and sent after a while
        deadline = time.monotonic() + TIMEOUT
        while lab.ask(self._page, "canvas.worker.is_busy"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the canvas is still busy after {TIMEOUT} seconds")
        self._page.evaluate("() => new Promise(done => setTimeout(() => requestAnimationFrame(done), 100))")


def perform(recorder: Recorder) -> None:
    """Show the preview, a click, a negative click, and a box for a second object. Places: pixels of the photograph."""
    at = recorder.at
    recorder.caption = "The preview follows the mouse."
    recorder.appear(at(480, 200))
    recorder.take(800)
    recorder.glide(at(280, 240))
    recorder.take(700)
    recorder.caption = "One click: a mask. But some of the spoon is in it."
    recorder.click()
    recorder.take(1200)
    recorder.glide(at(360, 280))
    recorder.caption = "Shift + click: not the spoon."
    recorder.click(shift=True)
    recorder.take(1200)
    recorder.caption = "The spoon is an object of its own ..."
    recorder.glide(recorder.button("New object"))
    recorder.click()
    recorder.glide(at(317, 226))
    recorder.caption = "... and gets a box."
    recorder.press()
    recorder.glide(at(409, 328))
    recorder.release()
    recorder.take(FRAME)
    recorder.glide(at(490, 370))
    recorder.take(1800)


def record() -> Recorder:
    """Open a notebook with a canvas and perform on it."""
    os.environ["SAM_NB_MODEL"] = "lite"
    with tempfile.TemporaryDirectory() as folder:
        root, work = Path(folder) / "notebooks", Path(folder) / "work"
        root.mkdir()
        work.mkdir()
        lab.write_notebook(root / "canvas.ipynb", SOURCE)
        with lab.jupyter_lab(root, work) as (address, token), lab.chromium_page() as page:
            page.set_viewport_size({"width": 1400, "height": 1200})
            lab.open_notebook(page, address, token, "canvas.ipynb")
            lab.run_all_cells(page, timeout=TIMEOUT)
            recorder = Recorder(page)
            perform(recorder)
    return recorder


def main() -> None:
    """Write docs/canvas.webp."""
    recorder = record()
    first, *others = recorder.frames
    first.save(
        FILE,
        save_all=True,
        append_images=others,
        duration=recorder.durations,
        loop=0,
        quality=86,
        method=4,
    )
    print(f"{len(recorder.frames)} frames, {sum(recorder.durations) / 1000:.1f} s, {FILE.stat().st_size:,} bytes")


def _draw_pointer(image: Image.Image, x: float, y: float, ring: int) -> None:
    """Draw an arrow whose tip is at (x, y), and a ring around the tip if it has a radius."""
    finer = 4  # drawn so much larger and resized: without jagged edges
    layer = Image.new("RGBA", (48 * finer, 48 * finer))
    draw = ImageDraw.Draw(layer)
    middle = 24 * finer
    if ring:
        corners = (middle - ring * finer, middle - ring * finer, middle + ring * finer, middle + ring * finer)
        draw.ellipse(corners, outline="white", width=2 * finer)
    arrow = [(middle + dx * 1.4 * finer, middle + dy * 1.4 * finer) for dx, dy in POINTER]
    draw.polygon(arrow, fill="black")
    draw.line([*arrow, *itertools.islice(arrow, 2)], fill="white", width=round(1.5 * finer), joint="curve")
    layer = layer.resize((48, 48), Image.Resampling.LANCZOS)
    image.paste(layer, (round(x) - 24, round(y) - 24), layer)


if __name__ == "__main__":
    main()
