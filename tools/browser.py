"""Chromium without a window, driven over its DevTools protocol: what the page's tests and pictures need of it."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from websockets.sync.client import ClientConnection, connect

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE: Final = 10.0
"""Seconds that anything may take."""
KEYS: Final = {"Enter": (13, "\r"), "Escape": (27, ""), "k": (75, "k"), "ArrowRight": (39, ""), "Tab": (9, "")}
SHIFT: Final = 8
CTRL: Final = 2


def chromium() -> str | None:
    """Where a browser is on this machine."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A running Chromium; one thread speaks to it."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._pages: dict[str, Page] = {}

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """What the browser answers to a command; pages hear of the events that come before that."""
        number = next(self._ids)
        command = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        self._connection.send(json.dumps(command))
        while True:
            message = json.loads(self._connection.recv(timeout=PATIENCE))
            if message.get("id") == number:
                break
            if page := self._pages.get(message.get("sessionId", "")):
                page.hear(message["method"], message["params"])
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        result: dict[str, Any] = message["result"]
        return result

    def open(
        self, url: str, *, width: int = 1280, height: int = 800, phone: bool = False, language: str = "en",
        scheme: str = "light", scale: float = 1, script: str = "",
    ) -> Page:  # fmt: skip
        """A page of a profile of its own, with nothing kept from others; `script` runs before those of the page."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, context)
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        agent = self.call("Browser.getVersion")["userAgent"]
        page.call("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
        page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        if phone:
            page.call("Emulation.setTouchEmulationEnabled", enabled=True)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        page.go(url)
        return page


class Page:
    """One page of a browser, used as a person would, and `problems`: errors and violations of its policy."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context
        self.problems: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def hear(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.problems.append(str([argument.get("value") for argument in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["source"] != "network":  # such as an answer of status 429
            self.problems.append(f"{params['entry']['source']}: {params['entry']['text']}")

    def close(self) -> None:
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def reload(self) -> None:
        self.evaluate("window.old = true")
        self.call("Page.reload")
        self.wait("!window.old && document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a condition in JavaScript holds."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                if self.evaluate(f"Boolean({condition})"):
                    return
            except RuntimeError:  # while one document gives way to the next
                if time.monotonic() > until:
                    raise
            if time.monotonic() > until:
                raise TimeoutError(f"{condition} did not become true; the page shows: {self.text('body')}")
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        """Click in the middle of an element, with a mouse: what lies over it gets the click."""
        self.wait(f"document.querySelector({json.dumps(selector)})?.checkVisibility()")
        x, y = self.evaluate(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Enter a text where the focus is."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        code, text = KEYS[key]
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown", text="" if modifiers & CTRL else text, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files for a field that asks for some."""
        document = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def drop(self, x: float, y: float, *files: Path) -> None:
        """Drag files from elsewhere to a point, and let go of them."""
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def screenshot(self) -> bytes:
        """The page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"])


@contextmanager
def browser(path: str) -> Iterator[Browser]:
    """A browser of the program at `path`, with a profile of its own, which ends with the block."""
    with TemporaryDirectory(prefix="ernie-rt-browser-", ignore_cleanup_errors=True) as profile:
        arguments = ("--headless=new", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={profile}")
        quiet = ("--disable-gpu", "--disable-extensions", "--disable-background-networking", "--no-first-run")
        process = subprocess.Popen(
            (path, *arguments, *quiet, "about:blank"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            address = _address(Path(profile, "DevToolsActivePort"), process)
            with connect(address, max_size=None, compression=None, proxy=None) as connection:
                yield Browser(connection)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _address(file: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the browser listens, which it writes into a file when it does."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        if file.exists() and len(lines := file.read_text().split()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.02)
    raise RuntimeError(f"the browser did not start within {PATIENCE:g} s (exit status {process.poll()})")
