"""From the click to the mask on the screen, in JupyterLab in a real browser: ``python benchmarks/click.py``.

Prints a table: time from pointer-down to changed pixels, bytes sent to the page for each click, delay of the last
preview after the mouse stops, and the kernel's memory before and after a thousand clicks. Needs Chromium and Linux;
traffic stays on 127.0.0.1.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import measure

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import lab

CELL = """
import json, os
from sam_nb import load_image, load_sam, segment
import cv2
sam = load_sam({model!r})
image = cv2.resize(load_image("street"), (1024, 640), interpolation=cv2.INTER_AREA)
canvas = segment(image, sam, preview=False)
def memory():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024
canvas
"""

# Calls `look` after each drawing on the canvas. Polling would take processor time from the kernel.
WATCH = """
    const context = canvas.getContext('2d');
    const watch = (look) => {
        let due = false;
        context.drawImage = function (...drawn) {
            Object.getPrototypeOf(context).drawImage.apply(context, drawn);
            if (!due) queueMicrotask(() => { due = false; look(); });
            due = true;
        };
    };
    const unwatch = () => delete context.drawImage;
"""

# Milliseconds from the next pointer-down until a pixel changes.
UNTIL_CHANGED = f"""
(canvas, [x, y]) => {{
    {WATCH}
    const pixel = () => context.getImageData(x, y, 1, 1).data.join();
    const before = pixel();
    window.took = undefined;
    const start = () => {{
        const from = performance.now();
        const end = (took) => {{
            unwatch();
            clearTimeout(timer);
            window.took = took;
        }};
        const timer = setTimeout(end, 10000, null);
        watch(() => {{ if (pixel() !== before) end(performance.now() - from); }});
    }};
    canvas.addEventListener('pointerdown', start, {{ once: true, capture: true }});
}}
"""

# Milliseconds until the surroundings of a place change for the last time, watched for a second.
UNTIL_STILL = f"""
(canvas, [x, y]) => new Promise((resolve) => {{
    {WATCH}
    const pixels = () => context.getImageData(x - 100, y - 100, 200, 200).data.join();
    const from = performance.now();
    let before = pixels();
    let last = 0;
    watch(() => {{
        const now = pixels();
        if (now !== before) last = performance.now() - from;
        before = now;
    }});
    setTimeout(() => {{ unwatch(); resolve(last); }}, 1000);
}})
"""


def click_and_wait(page, layers, place, watched):
    """Click on a place of the page; return the milliseconds until a watched pixel of the canvas changed, or None."""
    layers.evaluate(UNTIL_CHANGED, watched)
    page.mouse.click(*place)
    page.wait_for_function("() => window.took !== undefined")
    return page.evaluate("() => window.took")


class Canvas:
    """The canvas of an open notebook, with coordinates of the image.

    Parameters
    ----------
    page : playwright.sync_api.Page
    received : list of int
        Receives the size of each message to the page, bytes.
    """

    def __init__(self, page, received):
        self.page, self.received = page, received
        self.layers = page.locator(".jp-OutputArea canvas").first
        self.layers.scroll_into_view_if_needed()
        time.sleep(1)
        self.box = self.layers.bounding_box()

    def at(self, x, y):
        """Return where on the page a pixel (x, y) of the image lies."""
        return self.box["x"] + x * self.box["width"] / 1024, self.box["y"] + y * self.box["height"] / 640

    def time_clicks(self, places):
        """Return the milliseconds and the bytes of each click whose mask reached the watched pixel, two lists."""
        times, sizes = [], []
        for x, y in places:
            lab.ask(self.page, "canvas.clear()")
            self.page.wait_for_timeout(150)
            self.received.clear()
            # The marker is drawn at once; the mask is looked for beside it.
            took = click_and_wait(self.page, self.layers, self.at(x, y), [x + 14, y])
            self.page.wait_for_timeout(150)
            if took is not None:
                times.append(took)
                sizes.append(sum(self.received))
        return times, sizes

    def time_previews(self):
        """Return the milliseconds from the mouse's stop to the last preview, ten times."""
        lab.ask(self.page, "[canvas.clear(), setattr(canvas.controls.preview, 'value', True)] and 0")
        times = []
        for n in range(10):
            self.page.mouse.move(*self.at(100, 60))
            self.page.mouse.move(*self.at(330 + 3 * n, 430), steps=25)
            times.append(self.layers.evaluate(UNTIL_STILL, [330 + 3 * n, 430]))
        lab.ask(self.page, "[setattr(canvas.controls.preview, 'value', False), canvas.clear()] and 0")
        return times

    def click_on(self, places, count):
        """Click that many times, and clear the canvas after every tenth click."""
        for n in range(count):
            self.page.mouse.click(*self.at(*places[n % len(places)]))
            if n % 10 == 9:
                while lab.ask(self.page, "canvas.worker.is_busy"):
                    pass
                lab.ask(self.page, "canvas.clear()")


def watch_clicks(page, received, clicks, storm):
    """Return the table's rows, (name, value)."""
    canvas = Canvas(page, received)
    places = [(120 + 83 * n % 800, 90 + 57 * n % 460) for n in range(clicks)]
    times, sizes = canvas.time_clicks(places)
    previews = canvas.time_previews()
    canvas.click_on(places, len(places))  # the session keeps its masks, up to a limit: fill that memory first
    before = lab.ask(page, "memory()")
    canvas.click_on(places, storm)
    after = lab.ask(page, "memory()")
    ordered = sorted(times)
    return [
        ("click to mask, median, ms", f"{statistics.median(times):.0f}"),
        ("click to mask, 95th percentile, ms", f"{ordered[round(0.95 * (len(ordered) - 1))]:.0f}"),
        ("sent to the page for a click, median, kB", f"{statistics.median(sizes) / 1000:.1f}"),
        ("sent to the page for a click, maximum, kB", f"{max(sizes) / 1000:.1f}"),
        ("preview after the mouse has stopped, median, ms", f"{statistics.median(previews):.0f}"),
        ("preview after the mouse has stopped, maximum, ms", f"{max(previews):.0f}"),
        (f"kernel's memory after {storm} clicks, MB", f"{before:.0f} -> {after:.0f}"),
        (
            "clicks not counted, whose mask did not reach the watched pixel",
            f"{len(places) - len(times)} of {len(places)}",
        ),
    ]


def main():
    """Measure and print the table."""
    parser = measure.parser(__doc__)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--clicks", type=int, default=40)
    parser.add_argument("--storm", type=int, default=1000, help="clicks while the memory is watched")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        notebooks = work / "notebooks"
        notebooks.mkdir()
        lab.write_notebook(notebooks / "click.ipynb", CELL.format(model=arguments.model))
        with lab.jupyter_lab(notebooks, work) as (address, token), lab.chromium_page() as page:
            received = []

            def on_frame(payload):
                received.append(len(payload))

            page.on("websocket", lambda socket: socket.on("framereceived", on_frame))
            lab.open_notebook(page, address, token, "click.ipynb")
            lab.run_all_cells(page, timeout=300)
            page.get_by_text("is ready").wait_for()
            rows = watch_clicks(page, received, arguments.clicks, arguments.storm)
            browser = page.context.browser.version
    about = f"{arguments.model}, image 1024 x 640, Chromium {browser}. {measure.machine('jupyterlab', 'ipycanvas')}"
    measure.report("click", ["what", "measured"], rows, about, arguments.write)


if __name__ == "__main__":
    main()
