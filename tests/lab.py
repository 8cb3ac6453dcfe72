"""JupyterLab on 127.0.0.1 and a headless Chromium, for the tests that need a real browser."""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
from playwright.sync_api import sync_playwright

START_TIMEOUT = 90  # seconds, on a busy machine

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_FLAGS = (
    "--no-sandbox",  # as root, in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # Nothing but the page: no updates, no synchronization.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium():
    """Return the path of a Chromium on this computer, or None."""
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if found is None:
        with sync_playwright() as playwright:  # what `playwright install chromium` downloaded
            own = playwright.chromium.executable_path
        found = own if os.path.exists(own) else None
    return found


@contextlib.contextmanager
def jupyter_lab(root, work):
    """Run JupyterLab on a folder and yield (address, token).

    Everything that Jupyter writes goes below `work`, so that it neither reads nor changes the settings of whoever runs
    the tests.
    """
    environment = dict(os.environ, NO_PROXY="127.0.0.1", IPYTHONDIR=str(work / "ipython"))
    for name in ("CONFIG", "DATA", "RUNTIME"):
        environment[f"JUPYTER_{name}_DIR"] = str(work / name.lower())
    for name in ("SETTINGS", "WORKSPACES"):
        environment[f"JUPYTERLAB_{name}_DIR"] = str(work / name.lower())
    # A prompt about news would lie over the notebook.
    settings = work / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}), encoding="utf-8")
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={root}"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--IdentityProvider.token={token}"]
    command += ["--LabApp.expose_app_in_browser=True"]
    with (work / "server.log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield _wait_for(server, work, token), token
    finally:
        server.terminate()  # the server ends its kernels first
        server.wait(START_TIMEOUT)


def _wait_for(server, work, token):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError, ValueError):  # not written yet, written by half, not listening yet
            about = json.loads((work / "runtime" / f"jpserver-{server.pid}.json").read_text(encoding="utf-8"))
            address = f"http://127.0.0.1:{about['port']}"
            opener.open(f"{address}/api/status?token={token}", timeout=5).close()
            return address
    raise RuntimeError(f"JupyterLab did not start: {(work / 'server.log').read_text(encoding='utf-8')[-2000:]}")


@contextlib.contextmanager
def chromium_page(**options):
    """Yield a page in a headless Chromium; `options` are those of Playwright's `new_context`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        try:
            yield browser.new_context(viewport={"width": 1400, "height": 1000}, **options).new_page()
        finally:
            browser.close()


def wait_until(is_true, otherwise, seconds=10):
    """Ask again and again; raise a TimeoutError that says `otherwise` when it has not become true in time."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.03)


def write_notebook(path, *sources, text_below=""):
    """Write a notebook of code cells and, below them, one of text."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    if text_below:
        cells.append(nbformat.v4.new_markdown_cell(text_below))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def open_notebook(page, address, token, name):
    """Open a notebook and wait until its kernel is idle."""
    page.goto(f"{address}/lab/tree/{name}?reset&token={token}")
    wait_for_kernel(page)


def wait_for_kernel(page):
    """Wait until the open notebook has an idle kernel: it has none for a while after the page was loaded."""
    page.wait_for_function(
        """() => {
            const panel = window.jupyterapp?.shell.currentWidget;
            return panel?.context?.isReady && panel.sessionContext?.session?.kernel?.status === 'idle';
        }""",
        timeout=START_TIMEOUT * 1000,
    )


def run_all_cells(page, timeout):
    """Run all cells of the open notebook within `timeout` seconds and return them, those of text too, as JSON."""
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    page.set_default_timeout(timeout * 1000)
    page.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    # The kernel is idle between two cells, too, and the command ends with the first error, also one that is meant.
    page.wait_for_function(
        """() => {
            const panel = window.jupyterapp.shell.currentWidget;
            const cells = [...panel.content.model.cells].filter((cell) => cell.type === 'code');
            const isStopped = cells.some((cell) => !cell.getMetadata('tags')?.includes('raises-exception')
                && Array.from({ length: cell.outputs.length }, (_, i) => cell.outputs.get(i).type).includes('error'));
            const ended = cells.every((cell) => cell.executionCount !== null);
            return (isStopped || ended) && panel.sessionContext.session.kernel.status === 'idle';
        }""",
        timeout=timeout * 1000,
    )
    return page.evaluate("() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells")


def scroll_to_cell(page, index):
    """Scroll to a cell of the open notebook and return it: JupyterLab takes those far away out of the page."""
    page.evaluate("(index) => window.jupyterapp.shell.currentWidget.content.scrollToItem(index)", index)
    cell = page.locator(f'.jp-Cell[data-windowed-list-index="{index}"]')
    cell.wait_for()
    return cell


def shut_down_kernel(page):
    """End the open notebook's kernel."""
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }")


def ask(page, expression):
    """Return the value of a Python expression in the open notebook's kernel, which has imported json."""
    printed = page.evaluate(
        """async (code) => {
            const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            const future = kernel.requestExecute({ code, store_history: false });
            let text = '';
            future.onIOPub = (m) => { text += m.content.text ?? m.content.evalue ?? ''; };
            await future.done;
            return text;
        }""",
        f"print(json.dumps({expression}))",
    )
    return json.loads(printed)
