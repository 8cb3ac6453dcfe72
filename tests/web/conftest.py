"""The built page, served below a folder by a plain static server."""

import functools
import http.server
import os
import shutil
import threading

import pytest
from reader import BELOW, BUILT, Handler


@pytest.fixture(scope="session")
def built():
    """Return the folder of the built page."""
    if not (BUILT / "index.html").exists():
        if os.environ.get("CI") and shutil.which("npm"):
            pytest.fail("the page is not built: make web first")
        pytest.skip("THE WEB PAGE IS NOT BUILT: its tests did not run; make web first")
    return BUILT


@pytest.fixture(scope="module")
def address(built):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(built)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{BELOW}"
    server.shutdown()
    server.server_close()
