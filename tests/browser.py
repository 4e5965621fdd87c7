"""A real browser, told what to do over the DevTools protocol: pages loaded, mice, fingers and keys moved."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One tab of a headless Chromium; `log` holds its console's errors, `requests` every address asked for."""

    def __init__(self, home: Path):
        assert CHROMIUM
        (ours, its), (answers, out) = os.pipe(), os.pipe()
        # Chromium reads commands from 3 and answers on 4.
        its_in, its_out = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (ours, out))

        def join() -> None:
            os.dup2(its_in, 3)
            os.dup2(its_out, 4)

        self.process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={home}"],
            pass_fds=(3, 4), preexec_fn=join, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for fd in (ours, out, its_in, its_out):
            os.close(fd)
        self.commands, self.answers = os.fdopen(its, "wb", 0), os.fdopen(answers, "rb")
        self.count, self.rest, self.session = 0, b"", ""
        self.log: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.commands.close()
        self.answers.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol and its answer; what is told meanwhile goes to `log` and `requests`."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self.count:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']}")
                return told["result"]  # type: ignore[no-any-return]
            self._heard(told.get("method", ""), told.get("params", {}))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            data = os.read(self.answers.fileno(), 1 << 20)
            if not data:
                raise RuntimeError(f"the browser ended with {self.process.wait()}")
            self.rest += data
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)  # type: ignore[no-any-return]

    def _heard(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.log.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            self.log.append(json.dumps(params["exceptionDetails"]))

    def open(self, address: str) -> None:
        self.log.clear()
        self.requests.clear()
        self.call("Page.navigate", url=address)
        self.until("document.documentElement && document.readyState !== 'loading'")

    def js(self, expression: str) -> Any:
        """The value of an expression, awaited where it is a promise."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, expression: str, seconds: float = 30) -> Any:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not (value := self.js(expression)):
            assert time.monotonic() < end, f"not in {seconds} s: {expression}; {self.log}"
            time.sleep(0.05)
        return value

    def draw(self, points: Iterable[tuple[float, float]], *, touch: bool = False) -> None:
        """One stroke along points of the window, by the mouse or a finger."""
        (x, y), *rest = points
        if touch:
            self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
            for x, y in rest:
                self.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": x, "y": y}])
            self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            return
        button: dict[str, Any] = {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **button)
        for x, y in rest:
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, **button)

    def click(self, selector: str) -> None:
        x, y, w, h = self.box(selector)
        self.draw([(x + w / 2, y + h / 2)])

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height in the window."""
        found = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        return tuple(self.js(f"(({{x, y, width, height}}) => [x, y, width, height])({found})"))

    def key(self, key: str, *, ctrl: bool = False) -> None:
        text = {"text": key} if len(key) == 1 and not ctrl else {}
        event: dict[str, Any] = {"key": key, "code": "Space" if key == " " else key, "modifiers": 2 * ctrl}
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def choose(self, selector: str, file: Path) -> None:
        """Give a file to an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def screen(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        """The window's size, whether it is touched, and the user's colours."""
        shown = {"width": width, "height": height, "deviceScaleFactor": 1 + phone, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **shown)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """A screenshot as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
