"""Arize Phoenix as a user starts it, and what it says of the spans that it took.

    async with Phoenix.running(folder) as phoenix:
        …OTEL_EXPORTER_OTLP_ENDPOINT=phoenix.url, OTEL_RESOURCE_ATTRIBUTES=openinference.project.name=NAME…
        spans = await phoenix.spans("NAME", at_least=2)

Spans are asked for over REST (attributes as stored, and those that Phoenix derived) and GraphQL (what its pages show).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.ports import free_port
from tests.backends.programs import START_S, backend
from tests.fakes.programs import started

WAIT_S = 60.0
"""Bound of the wait for spans: Phoenix answers before it has stored them, and stores about once a second."""
POLL_S = 0.2
SPANS_MAX = 1000
_SHOWN = """
query ($first: Int!) {
  projects { edges { node { name spans(first: $first) { edges { node {
    spanId statusCode tokenCountTotal tokenCountPrompt tokenCountCompletion
    input { value mimeType } output { value mimeType }
  } } } } } }
}
"""


@dataclass(frozen=True)
class Span:
    """One span as Phoenix has it."""

    id: str
    """Phoenix' own, as it stands in the addresses of its pages."""
    name: str
    kind: str
    """LLM, EMBEDDING, CHAIN, …, UNKNOWN."""
    trace_id: str
    span_id: str
    parent_id: str | None
    status: str
    """OK, ERROR or UNSET."""
    attributes: dict[str, Any]
    """Flat: its name → value."""
    shown: dict[str, Any]
    """The columns of its pages: tokens, input, output."""

    @property
    def tokens(self) -> tuple[int, int]:
        """Prompt and completion, as its pages count them."""
        return self.shown["tokenCountPrompt"] or 0, self.shown["tokenCountCompletion"] or 0

    def messages(self, side: str) -> list[tuple[str, str]]:
        """Role and content of each message of `input` or `output`; the parts of one with several in lines."""
        prefix = f"llm.{side}_messages."
        found: dict[int, dict[str, Any]] = {}
        for name, value in self.attributes.items():
            if name.startswith(prefix):
                number, _, rest = name.removeprefix(prefix).partition(".")
                found.setdefault(int(number), {})[rest.removeprefix("message.")] = value
        return [(message["role"], _content(message)) for _, message in sorted(found.items())]


def _content(message: dict[str, Any]) -> str:
    if "content" in message:
        return str(message["content"])
    texts = (value for name, value in message.items() if name.endswith((".text", ".image.url", ".arguments")))
    return "\n".join(map(str, texts))


class Phoenix:
    """A running Phoenix: pages and OTLP over HTTP at `url`, OTLP over gRPC at `grpc_url`."""

    def __init__(self, port: int, grpc_port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.grpc_url = f"http://127.0.0.1:{grpc_port}"

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, folder: Path) -> AsyncIterator["Phoenix"]:
        """On free ports of 127.0.0.1, its database in `folder`, until the end of the block."""
        path = backend("phoenix")
        port, grpc_port = free_port(), free_port()
        environ = {
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(grpc_port),
            "PHOENIX_WORKING_DIR": str(folder),
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        }
        async with started(path, "serve", port=port, environ=environ, wait_s=START_S):
            yield cls(port, grpc_port)

    async def spans(self, project: str, *, at_least: int) -> list[Span]:
        """All spans of a project, as soon as there are so many; those of one trace as they began."""
        found: list[dict[str, Any]] = []
        async with aiohttp.ClientSession(self.url) as session:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    while len(found := await self._rows(session, project)) < at_least:
                        await asyncio.sleep(POLL_S)
            assert len(found) >= at_least, f"Phoenix has {len(found)} of {at_least} spans"
            shown = await self._shown(session, project)
        return [
            Span(
                id=row["id"],
                name=row["name"],
                kind=row["span_kind"],
                trace_id=row["context"]["trace_id"],
                span_id=row["context"]["span_id"],
                parent_id=row["parent_id"],
                status=row["status_code"],
                attributes=row["attributes"],
                shown=shown[row["context"]["span_id"]],
            )
            for row in sorted(found, key=lambda row: str(row["start_time"]))
        ]

    async def project_id(self, project: str) -> str:
        """As it stands in the addresses of its pages."""
        async with aiohttp.ClientSession(self.url) as session, session.get(f"/v1/projects/{project}") as response:
            return str((await response.json())["data"]["id"])

    async def _rows(self, session: aiohttp.ClientSession, project: str) -> list[dict[str, Any]]:
        async with session.get(f"/v1/projects/{project}/spans", params={"limit": SPANS_MAX}) as response:
            if response.status == 404:  # a project comes with its first span
                return []
            assert response.status == 200, await response.text()
            rows: list[dict[str, Any]] = (await response.json())["data"]
            return rows

    async def _shown(self, session: aiohttp.ClientSession, project: str) -> dict[str, dict[str, Any]]:
        asked = {"query": _SHOWN, "variables": {"first": SPANS_MAX}}
        async with session.post("/graphql", json=asked) as response:
            said = await response.json()
        assert "errors" not in said, said
        nodes = [edge["node"] for edge in said["data"]["projects"]["edges"]]
        (spans,) = (node["spans"]["edges"] for node in nodes if node["name"] == project)
        return {edge["node"]["spanId"]: edge["node"] for edge in spans}
