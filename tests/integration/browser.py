"""Headless Chromium, spoken to by its DevTools protocol: what a page says, asks of other hosts, and looks like."""

import base64
import contextlib
import itertools
import json
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import websocket

_START_SECONDS = 60.0
_SETTLE_SECONDS = 0.5
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")


class Page:
    """An open tab. `complaints` holds the console's warnings and errors, `hosts` those that were asked for anything."""

    def __init__(self, socket: websocket.WebSocket, width: int, dark: bool, media: str) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def visit(self, url: str, wait: float = 0.0) -> None:
        """Loads an address, and waits `wait` seconds more for a page that draws itself."""
        self._call("Page.navigate", url=url)
        self._listen(_START_SECONDS, until="Page.loadEventFired")
        self._listen(_SETTLE_SECONDS + wait)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression comes to."""
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Writes a PNG of the whole page, or of the part that shows."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"clip": {**size, "scale": 1}} if whole else {}
        picture = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        self._socket.settimeout(_START_SECONDS)
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _listen(self, seconds: float, until: str = "") -> None:
        """Takes events for so long, or until that one."""
        ends = time.monotonic() + seconds
        with contextlib.suppress(websocket.WebSocketTimeoutException):
            while (left := ends - time.monotonic()) > 0:
                self._socket.settimeout(left)
                event = json.loads(self._socket.recv())
                self._note(event)
                if event.get("method") == until:
                    return

    def _note(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.hosts.add(urlsplit(given["request"]["url"]).netloc)
        elif event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(given["exceptionDetails"]["text"])
        elif event.get("method") == "Log.entryAdded" and given["entry"]["level"] in ("warning", "error"):
            self.complaints.append(given["entry"]["text"])
        elif event.get("method") == "Runtime.consoleAPICalled" and given["type"] in ("warning", "error", "assert"):
            self.complaints.append(" ".join(str(part.get("value")) for part in given["args"]))


class Browser:
    """A running Chromium; every page is a tab of its own."""

    def __init__(self, port: int) -> None:
        self._port = port

    @contextlib.contextmanager
    def page(self, width: int, dark: bool = False, media: str = "") -> Iterator[Page]:
        """A fresh tab of that many pixels, in the light or dark scheme, for the screen or for `media` print."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request) as answer:
            address = json.load(answer)["webSocketDebuggerUrl"]
        socket = websocket.create_connection(address, suppress_origin=True)
        try:
            yield Page(socket, width, dark, media)
        finally:
            socket.close()


@contextlib.contextmanager
def chromium(executable: str) -> Iterator[Browser]:
    """A headless Chromium with an empty profile, which ends with the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [executable, *_OPTIONS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port, started = Path(profile) / "DevToolsActivePort", time.monotonic()
            while not port.is_file() or not port.read_text():
                assert process.poll() is None, f"{executable} ended with {process.returncode}"
                assert time.monotonic() - started < _START_SECONDS, f"{executable} does not open its DevTools"
                time.sleep(0.1)
            yield Browser(int(port.read_text().split()[0]))
        finally:
            process.terminate()
            process.wait()
