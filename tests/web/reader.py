"""What a reader sees and does on the built page, and the server that it comes from."""

import http.server
import json
import re
from pathlib import Path

import lab

BUILT = Path(__file__).parent.parent.parent / "build" / "web"
BELOW = "/some/folder/"
TIMEOUT = 120  # seconds, on a busy machine


class Handler(http.server.SimpleHTTPRequestHandler):
    """What `python -m http.server` runs, below a folder, with a list of what it was asked for."""

    requests: tuple[list, ...] = ([],)

    def translate_path(self, path):
        return super().translate_path(path.removeprefix(BELOW) if path.startswith(BELOW) else "/nowhere")

    def log_request(self, code="-", size="-"):
        self.requests[0].append((self.command, self.path, int(code)))


class Reader:
    """What a reader sees and does on the page."""

    def __init__(self, page, address, sample="street"):
        self.page, self.address = page, address
        page.set_default_timeout(TIMEOUT * 1000)
        page.goto(address)
        self.wait_for_encoded(sample)

    @property
    def status(self):
        return self.page.locator("#status").inner_text()

    def wait_for_encoded(self, name):
        self.page.locator(f'body[data-encoded="{name}"]').wait_for()
        self.settle()

    def settle(self):
        """Wait until the canvas shows what all steps so far give."""

        def is_still():
            working = self.page.evaluate("document.querySelector('progress').hidden") is False
            return not working and not re.search("decod|解码|encodes|编码", self.status)

        lab.wait_until(is_still, "the page does not come to rest", TIMEOUT)
        assert not self.page.locator("#status.error").count(), self.status

    def open(self, name):
        """Open a sample as if for the first time."""
        self.page.evaluate("delete document.body.dataset.encoded")
        self.page.locator(f'#samples button[title="{name}"]').click()
        self.wait_for_encoded(name)

    def place(self, x, y):
        """Return where on the page a pixel of the image is, given as a share of its width and height."""
        box = self.page.locator("#canvas").bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def click(self, x, y, **options):
        self.page.mouse.click(*self.place(x, y), **options)
        self.settle()

    def drag(self, x0, y0, x1, y1):
        self.page.mouse.move(*self.place(x0, y0))
        self.page.mouse.down()
        self.page.mouse.move(*self.place(x1, y1), steps=4)
        self.page.mouse.up()
        self.settle()

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def steps(self, folder):
        """Return the steps of all objects, from the file of prompts."""
        record = json.loads(self.download("save-prompts", folder).read_text(encoding="utf-8"))
        return [item["steps"] for item in record["objects"]]

    def painted(self):
        """Return how many pixels of the canvas are painted over the image."""
        return self.page.evaluate("""() => {
            const canvas = document.querySelector('#canvas');
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return data.filter((value, i) => i % 4 === 3 && value > 0).length;
        }""")
