"""Takes the pictures in docs/images: traces of the gateway as Arize Phoenix shows them.

    apt-get install chromium        # or another Chromium, named by CHROMIUM=/path/to/it
    make screenshots                # Phoenix too, in an environment of its own: see the Makefile

It starts Phoenix, the simulated upstream and a whole gateway that records content, sends one request of each kind
(`tests.backends.traffic`), and looks at Phoenix's pages with a browser without a window, which is spoken to over the
DevTools protocol. Nothing leaves the machine, and nothing is left running.
"""

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.backends.phoenix import Phoenix, Span
from tests.backends.traffic import CALLS, document, send_all
from tests.fakes.gateway import Gateway
from tests.fakes.simulated import Simulated

IMAGES = Path(__file__).parent.parent / "images"
IMAGE_BYTES_MAX = 300_000
PROJECT = "sluiceway"
ROWS = 15
"""Of the list: up to the chat with an image."""
COLUMNS = ("error", "userId", "annotations", "traceAnnotations", "startTime", "cumulativeTokenCostTotal")
"""Not shown: nothing is in them here."""
WAIT_S = 60.0
"""Bound of every wait; pages are there in a second or two."""
STILL_S = 1.0
"""A page has no word for having drawn everything."""
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
    "--remote-debugging-port=0",
)


class Page:
    """One page of a browser, over the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; events in between are passed over."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(WAIT_S):
            while True:
                said: dict[str, Any] = await self._socket.receive_json()
                if said.get("id") == number:
                    assert "error" not in said, said
                    answer: dict[str, Any] = said["result"]
                    return answer

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        said = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return said["result"].get("value")

    async def open(self, url: str, *texts: str) -> None:
        """Go there, and wait until all of these can be read and nothing moves any more."""
        await self.call("Page.navigate", url=url)
        before = None
        async with asyncio.timeout(WAIT_S):
            while True:
                await asyncio.sleep(0.5)
                text = str(await self.run("document.body ? document.body.innerText : ''"))
                if all(one in text for one in texts) and text == before:
                    return
                before = text

    async def size(self, width: int, height: int) -> None:
        """Of the page, in pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def press(self, label: str) -> None:
        """A button, by its name."""
        found = (
            f"[...document.querySelectorAll('button')].find(b => [b.ariaLabel, b.innerText.trim()].includes('{label}'))"
        )
        assert await self.run(f"{found}?.click() ?? !!{found}") is not False, f"there is no button {label}"
        await asyncio.sleep(STILL_S)

    async def untick(self, *boxes: str) -> None:
        """In the menu that is open; and close it."""
        for box in boxes:
            await self.run(f"document.querySelector('[role=dialog] input[name={box}]:checked')?.click()")
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key="Escape", code="Escape", windowsVirtualKeyCode=27)
        await asyncio.sleep(STILL_S)

    async def picture(self, name: str, x: int, y: int, width: int, height: int) -> None:
        """A part of what is seen, as docs/images/NAME."""
        clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        said = await self.call("Page.captureScreenshot", format="png", optimizeForSpeed=False, clip=clip)
        data = base64.b64decode(said["data"])
        assert len(data) < IMAGE_BYTES_MAX, f"{name} has {len(data)} bytes"
        (IMAGES / name).write_bytes(data)
        sys.stdout.write(f"docs/images/{name}: {len(data):,} bytes\n")


@contextlib.asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Page]:
    """A browser without a window, and its only page; its files in `folder`."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        sys.exit("there is no chromium: apt-get install chromium, or CHROMIUM=/path/to/it")
    process = await asyncio.create_subprocess_exec(
        *(path, *FLAGS, f"--user-data-dir={folder}", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        said = folder / "DevToolsActivePort"
        async with asyncio.timeout(WAIT_S):
            while not (said.exists() and said.read_text().count("\n")):  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.05)
        port = said.read_text().split("\n")[0]
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/json/list") as response:
                (target,) = [one for one in await response.json(content_type=None) if one["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        process.terminate()
        await process.wait()


async def traced(phoenix: Phoenix, folder: Path) -> dict[str, list[Span]]:
    """Send one request of each kind; the spans of each, as Phoenix has them."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": phoenix.url,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_RESOURCE_ATTRIBUTES": f"openinference.project.name={PROJECT}",
    }
    async with Simulated.running() as upstream:
        settings = document(upstream.url, tracing={"compat": ["openinference"]})
        async with Gateway.serving(settings, folder, environ=environ) as gateway:
            await send_all(gateway.url)
            lines = {
                line["trace_id"]: line["sluiceway.client_request_id"] for line in await gateway.records(len(CALLS))
            }
    spans = await phoenix.spans(PROJECT, at_least=2 * len(CALLS) + 1)  # the refused one has 1, the fallback 4
    found: dict[str, list[Span]] = {}
    for span in spans:
        found.setdefault(lines[span.trace_id], []).append(span)
    return found


async def main() -> None:
    """Both pictures."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folders = [Path(temporary, name) for name in ("phoenix", "gateway", "browser")]
        for folder in folders:
            folder.mkdir()
        async with Phoenix.running(folders[0]) as phoenix:
            spans = await traced(phoenix, folders[1])
            async with browsing(folders[2]) as page:
                await take(page, phoenix, spans)


async def take(page: Page, phoenix: Phoenix, spans: dict[str, list[Span]]) -> None:
    """Look at the list of traces, and at the LLM span of one."""
    project = f"{phoenix.url}/projects/{await phoenix.project_id(PROJECT)}"
    await page.size(1400, 1100)
    await page.open(phoenix.url, "Projects")
    await page.run("localStorage.setItem('arize-phoenix-theme', 'light')")
    await page.open(f"{project}/traces", "POST /v1/chat/completions")
    await page.press("Collapse side navigation")
    await page.press("Columns")
    await page.untick(*COLUMNS)
    await page.press("Expand all rows")
    top = await page.run("document.querySelector('thead').getBoundingClientRect().top")
    await page.picture("phoenix-traces.png", 53, int(top), 1347, 38 + 37 * ROWS)
    (llm,) = (span for span in spans["vision"] if span.kind == "LLM")
    await page.size(1400, 770)
    await page.open(f"{project}/traces/{llm.trace_id}?selectedSpanNodeId={llm.id}", llm.name, "assistant")
    await page.picture("phoenix-span.png", 0, 0, 1400, 770)


if __name__ == "__main__":
    asyncio.run(main())
