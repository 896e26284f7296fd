"""A headless Chromium, driven by its own protocol: open a page, wait for words on it, keep a picture of it."""

import asyncio
import base64
import json
import subprocess
import tempfile
import time
from pathlib import Path

import aiohttp

SIZE_PX = (1500, 1500)
TEXT = "document.body ? document.body.innerText : ''"


class Browser:
    """One tab. Its verbs are asynchronous: use them inside one `asyncio.run`."""

    def __init__(self, executable: str):
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={self._profile.name}", "--hide-scrollbars"]
        options += [f"--window-size={SIZE_PX[0]},{SIZE_PX[1]}", "about:blank"]
        self._process = subprocess.Popen([executable, *options], stderr=subprocess.PIPE, text=True)
        self._calls = 0

    async def __aenter__(self) -> "Browser":
        self._session = aiohttp.ClientSession()
        port = self._debugging_port()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            (page,) = [tab for tab in await answer.json() if tab["type"] == "page"]
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
        await self._call("Page.enable")
        return self

    async def __aexit__(self, *_) -> None:
        await self._session.close()
        self._process.kill()
        self._process.wait()
        self._profile.cleanup()

    async def open(self, url: str, *words: str, seconds: float = 60) -> str:
        """Opens the page and waits for all these words to be seen on it; returns its text."""
        await self._call("Page.navigate", url="about:blank")
        await self._call("Page.navigate", url=url)
        return await self.see(*words, seconds=seconds)

    async def see(self, *words: str, seconds: float = 60) -> str:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            text = str(await self.evaluate(TEXT))
            if all(word in text for word in words):
                return text
            await asyncio.sleep(0.2)
        raise AssertionError(f"not on the page: {[word for word in words if word not in text]}; it says: {text[:2000]}")

    async def click(self, selector: str, seconds: float = 20) -> None:
        """Clicks on the first such element, once there is one."""
        ends = time.monotonic() + seconds
        script = f"(e => e && (e.click(), true))(document.querySelector({json.dumps(selector)}))"
        while not await self.evaluate(script):
            assert time.monotonic() < ends, f"nothing to click on: {selector}"
            await asyncio.sleep(0.2)

    async def evaluate(self, script: str):
        answer = await self._call("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    async def picture(self, path: Path) -> None:
        answer = await self._call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(answer["data"]))

    async def _call(self, method: str, **parameters) -> dict:
        self._calls += 1
        await self._socket.send_str(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            answer = json.loads((await self._socket.receive(timeout=60)).data)
            if answer.get("id") == self._calls:
                assert "error" not in answer, answer
                return answer["result"]

    def _debugging_port(self) -> int:
        for line in self._process.stderr:
            if "DevTools listening on" in line:
                return int(line.partition("127.0.0.1:")[2].partition("/")[0])
        raise AssertionError("chromium ended at its start")
