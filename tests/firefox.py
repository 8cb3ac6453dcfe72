"""A headless Firefox, driven by Marionette, which every Firefox has built in.

Its page has those parts of the interface of Playwright's that the tests use: Playwright drives a Firefox of its own
build, or one that is newer than Debian's. The package marionette-driver would bring fourteen others and hold back
psutil and IPython; of the protocol (https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html), JSON
behind its length on a socket, the tests need seven commands.
"""

import base64
import contextlib
import itertools
import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import lab

NAMES = ("firefox-esr", "firefox")
START_TIMEOUT, REPLY_TIMEOUT = 90, 180  # seconds, on a busy machine
BUTTONS = {"left": 0, "middle": 1, "right": 2}
KEYS = {
    "Control": "\ue009",
    "Delete": "\ue017",
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "Shift": "\ue008",
}  # WebDriver's
PREFERENCES = {
    "marionette.port": 0,  # any that is free
    # Nothing but the page: no updates, no first-run pages, no services.
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.systemAddon.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}


def find_firefox():
    """Return the path of a Firefox on this computer, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def firefox_page(downloads=None, **preferences):
    """Yield a page in a window of 1800 x 1000 pixels: no pointer can leave it.

    Parameters
    ----------
    downloads : Path, optional
        Where Firefox saves what a page lets it download, without asking.
    **preferences
        Firefox's, with ``__`` for a dot.
    """
    chosen = PREFERENCES | {name.replace("__", "."): value for name, value in preferences.items()}
    if downloads is not None:
        chosen |= {"browser.download.folderList": 2, "browser.download.dir": str(downloads)}
    with (
        tempfile.TemporaryDirectory(prefix="sam-nb-firefox-", ignore_cleanup_errors=True) as profile,
        contextlib.ExitStack() as opened,
    ):
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in chosen.items()]
        Path(profile, "user.js").write_text("\n".join(lines), encoding="utf-8")
        command = [find_firefox(), "--headless", "--marionette", "--no-remote", "--profile", profile]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        opened.callback(process.wait, START_TIMEOUT)
        opened.callback(process.terminate)
        port = Path(profile, "MarionetteActivePort")
        lab.wait_until(lambda: port.exists() and port.read_text(), "Firefox does not start", START_TIMEOUT)
        marionette = opened.enter_context(Marionette(int(port.read_text())))
        marionette.send("WebDriver:NewSession", capabilities={"alwaysMatch": {"acceptInsecureCerts": False}})
        marionette.send("WebDriver:SetWindowRect", width=1800, height=1000)
        yield Page(marionette)


class ScriptError(Exception):
    """What a script threw in the page, or was cut off by a page that went away."""


class Marionette:
    """The connection to one Firefox."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=REPLY_TIMEOUT)
        self.stream = self.socket.makefile("rb")
        self.numbers = itertools.count(1)
        self.read()  # Firefox introduces itself

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()

    def read(self):
        """Return one message: its length in decimal digits, a colon, and JSON."""
        digits = iter(lambda: self.stream.read(1), b":")
        return json.loads(self.stream.read(int(b"".join(digits))))

    def send(self, command, **parameters):
        """Do one command and return its result."""
        text = json.dumps([0, next(self.numbers), command, parameters]).encode()
        self.socket.sendall(b"%d:%s" % (len(text), text))
        _, _, error, result = self.read()
        if error:
            raise ScriptError(f"{command}: {error['message']}")
        return result


class Page:
    """The one tab of this Firefox."""

    def __init__(self, marionette):
        self.marionette = marionette
        self.mouse, self.keyboard = Mouse(marionette), Keyboard(marionette)

    def goto(self, address):
        self.marionette.send("WebDriver:Navigate", url=address)

    def set_default_timeout(self, milliseconds):
        self.marionette.send("WebDriver:SetTimeouts", script=milliseconds)

    def evaluate(self, code, argument=None):
        """Return the value of a JavaScript expression, or of a function of one argument; promises are waited for."""
        script = f"const made = ({code}); return typeof made === 'function' ? made(arguments[0]) : made;"
        return self.marionette.send("WebDriver:ExecuteScript", script=script, args=[argument], sandbox=None)["value"]

    def wait_for_function(self, code, timeout):
        def is_true():
            with contextlib.suppress(ScriptError):  # while the page is being loaded
                return self.evaluate(code)

        lab.wait_until(is_true, f"it does not become true: {code}", timeout / 1000)

    def wait_for_timeout(self, milliseconds):
        time.sleep(milliseconds / 1000)

    def locator(self, selector):
        return Locator(self, selector)

    def screenshot(self, path):
        taken = self.marionette.send("WebDriver:TakeScreenshot", full=False)["value"]
        Path(path).write_bytes(base64.b64decode(taken))


class Locator:
    """The elements that a CSS selector finds, looked for anew each time."""

    def __init__(self, page, selector):
        self.page, self.selector = page, selector

    @property
    def first(self):
        return self

    def count(self):
        return self.page.evaluate(f"document.querySelectorAll({json.dumps(self.selector)}).length")

    def wait_for(self, timeout=120_000):
        lab.wait_until(self.count, f"no element {self.selector}", timeout / 1000)

    def evaluate(self, code, argument=None):
        """Return what a function of the first element and the argument returns."""
        found = f"document.querySelector({json.dumps(self.selector)})"
        return self.page.evaluate(f"(given) => ({code})({found}, given)", argument)

    def bounding_box(self):
        return self.evaluate(
            "e => { const { x, y, width, height } = e.getBoundingClientRect(); return { x, y, width, height }; }"
        )

    def scroll_into_view_if_needed(self):
        self.evaluate("e => e.scrollIntoView({ block: 'nearest' })")

    def inner_text(self):
        return self.evaluate("e => e.innerText")

    def click(self):
        self.scroll_into_view_if_needed()
        box = self.bounding_box()
        self.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


class Mouse:
    """One mouse; every action goes its way through the browser's own events."""

    def __init__(self, marionette):
        self.marionette = marionette
        self.place = (0.0, 0.0)

    def _do(self, *actions):
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self.marionette.send("WebDriver:PerformActions", actions=[mouse])

    def move(self, x, y, steps=1):
        (x0, y0), self.place = self.place, (x, y)
        shares = [number / steps for number in range(1, steps + 1)]
        self._do(*({"type": "pointerMove", "x": x0 + s * (x - x0), "y": y0 + s * (y - y0)} for s in shares))

    def down(self, button="left"):
        self._do({"type": "pointerDown", "button": BUTTONS[button]})

    def up(self, button="left"):
        self._do({"type": "pointerUp", "button": BUTTONS[button]})

    def click(self, x, y, button="left"):
        self.move(x, y)
        self.down(button)
        self.up(button)


class Keyboard:
    """One keyboard."""

    def __init__(self, marionette):
        self.marionette = marionette

    def _do(self, kind, names):
        actions = [{"type": kind, "value": KEYS.get(name, name)} for name in names]
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        self.marionette.send("WebDriver:PerformActions", actions=[keyboard])

    def down(self, *names):
        self._do("keyDown", names)

    def up(self, *names):
        self._do("keyUp", names)

    def press(self, keys):
        """Press keys together, as in ``"Control+z"``."""
        names = keys.split("+")
        self.down(*names)
        self.up(*reversed(names))
