"""A folder behind an http address on this machine, for tests of what is read over a network."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path


class Web(http.server.ThreadingHTTPServer):
    """Serves a folder on this machine and counts what was asked for."""

    def __init__(self, folder: Path):
        self.asked: list[str] = []
        self.failing = 0  # so many of the next requests for a file's content fail
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                if outer.failing:
                    outer.failing -= 1
                    self.send_error(503)
                else:
                    super().do_GET()

            def log_message(self, *arguments) -> None:
                pass

        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Web]:
    """Serve a folder for the time of a `with`."""
    server = Web(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
