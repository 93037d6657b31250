"""What leaves a host: spans over OTLP and lines on stdout. Whoever takes them may be slow, refuse or hang."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks.collectors import Collector
from observability import names
from observability.board import DROP_REASONS, Board, Cell
from proxy.runtime import _OURS
from tests.e2e.traffic import CHAT, ask, chat_body, document_of
from tests.fakes.gateway import Gateway
from tests.fakes.otlp_sink import OtlpSink, attributes_of, value_of
from tests.fakes.simulated import Simulated

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
REQUESTS = 60
UNREAD_LINES_MAX = 2000
"""More than fit into the kernel's buffers while nobody reads: some 200 KiB, and a line has more than 1 KiB."""

UNWRITTEN_LINES = 100
"""So many are not merely on their way: 20 requests run at once."""


def exact(board: Board, requests: int) -> None:
    """Every request has its line."""
    assert board.total(Cell.STARTED) == board.total(Cell.HANDED) == board.total(Cell.TAKEN) == requests
    assert sum(board.total(cell) for cell in DROP_REASONS.values()) == 0


def by_kind(spans: list[Span], trace: str) -> dict[int, Span]:
    """The spans of one trace; one of a kind."""
    found: dict[int, Span] = {span.kind: span for span in spans if span.trace_id.hex() == trace}
    assert len(found) == sum(span.trace_id.hex() == trace for span in spans)
    return found


async def test_spans_continue_the_callers_trace(tmp_path: Path) -> None:
    with OtlpSink() as sink:
        async with (
            Simulated.running() as upstream,
            Gateway.serving(
                document_of(upstream.url, service={"propagate_trace": True}),
                tmp_path,
                environ={"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_SERVICE_NAME": "sluiceway-e2e"},
            ) as gateway,
        ):
            traced = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1", "baggage": "customer=42"}
            assert (await ask(gateway.port, "traced", chat_body(stream=True), CHAT, **traced)).whole
            assert (await ask(gateway.port, "untraced")).whole
            unsampled = {"traceparent": f"00-{TRACE[::-1]}-{CALLER}-00"}
            assert (await ask(gateway.port, "unsampled", None, CHAT, **unsampled)).whole
            assert (await ask(gateway.port, "refused", key="sk-nobody")).status == 401
            lines = {line["sluiceway.client_request_id"]: line for line in await gateway.records(4)}
            seen = {name: await upstream.finished(name) for name in ("traced", "untraced", "unsampled")}
        spans = sink.spans
    assert len(spans) == 2 + 2 + 0 + 1
    assert sink.resource["service.name"] == "sluiceway-e2e"

    traced_spans = by_kind(spans, TRACE)
    server, client = traced_spans[Span.SPAN_KIND_SERVER], traced_spans[Span.SPAN_KIND_CLIENT]
    assert (server.parent_span_id.hex(), client.parent_span_id) == (CALLER, server.span_id)
    assert (server.name, client.name) == ("POST /v1/chat/completions", "chat qwen-plus")
    assert server.trace_state == "vendor=1"
    assert (lines["traced"]["trace_id"], lines["traced"]["span_id"]) == (TRACE, server.span_id.hex())
    assert server.start_time_unix_nano <= client.start_time_unix_nano <= client.end_time_unix_nano
    assert client.end_time_unix_nano <= server.end_time_unix_nano
    entry = seen["traced"]
    usage = attributes_of(client)["gen_ai.usage.input_tokens"], attributes_of(client)["gen_ai.usage.output_tokens"]
    assert usage == (entry["input_tokens"], entry["output_tokens"])
    headers = {name: dict(entry["headers"]) for name, entry in seen.items()}
    assert headers["traced"]["traceparent"] == f"00-{TRACE}-{client.span_id.hex()}-01"
    assert headers["traced"]["tracestate"] == "vendor=1"
    assert "baggage" not in headers["traced"]
    assert headers["unsampled"]["traceparent"].startswith(f"00-{TRACE[::-1]}-")
    assert headers["unsampled"]["traceparent"].endswith("-00")

    untraced = by_kind(spans, lines["untraced"]["trace_id"])
    assert untraced[Span.SPAN_KIND_SERVER].parent_span_id == b""
    assert untraced[Span.SPAN_KIND_CLIENT].parent_span_id == untraced[Span.SPAN_KIND_SERVER].span_id
    assert list(by_kind(spans, lines["refused"]["trace_id"])) == [Span.SPAN_KIND_SERVER]


@pytest.mark.parametrize(("temporality", "interval_ms"), [("cumulative", 100), ("delta", 100), ("delta", 3_600_000)])
async def test_metrics_go_out_over_otlp_and_the_last_ones_at_the_end(
    tmp_path: Path, temporality: str, interval_ms: int
) -> None:
    with OtlpSink() as sink:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
            "OTEL_SERVICE_NAME": "sluiceway-e2e",
            "OTEL_METRIC_EXPORT_INTERVAL": str(interval_ms),
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality,
        }
        async with (
            Simulated.running() as upstream,
            Gateway.serving(document_of(upstream.url), tmp_path, workers=2, environ=environ) as gateway,
        ):
            await asyncio.gather(*(ask(gateway.port, f"first-{number}") for number in range(10)))
            await gateway.records(10)
            if interval_ms == 100:
                await sink.until(lambda: any(requests_in(message) for message in sink.metrics))
                assert {path.name for path in gateway.runtime.iterdir() if not _OURS.fullmatch(path.name)} == set()
            if temporality == "cumulative":  # who sends them is killed, and nobody sees it in the numbers
                os.kill(gateway.pids("proxy.control")[0], signal.SIGKILL)
            await asyncio.gather(*(ask(gateway.port, f"second-{number}") for number in range(10)))
            await gateway.records(20)
            if temporality == "cumulative":
                await sink.until(lambda: requests_in(sink.metrics[-1]) == 20)
        assert gateway.process.returncode == 0
        counts = [requests_in(message) for message in sink.metrics]
        (resource,) = {resource_of(message) for message in sink.metrics}
        assert sink.resource == dict(resource)  # of the spans: it is one service, whoever sends
    assert dict(resource)["service.name"] == "sluiceway-e2e"
    assert (counts[-1] if temporality == "cumulative" else sum(counts)) == 20
    if temporality == "cumulative":
        assert counts == sorted(counts)
        assert len({start for message in sink.metrics for start in starts_in(message)}) == 1


async def test_that_nobody_takes_metrics_is_said_once(tmp_path: Path) -> None:
    with OtlpSink(takes_metrics=False) as sink:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "50"}
        async with (
            Simulated.running() as upstream,
            Gateway.serving(document_of(upstream.url), tmp_path, environ=environ) as gateway,
        ):
            assert (await ask(gateway.port, "one")).whole
            await sink.at_least(2)
            await sink.until(lambda: sink.requests >= 4)
    (line,) = gateway.lines.of("metrics_not_taken")
    assert (line["level"], "OTEL_METRICS_EXPORTER=none" in line["right"]) == ("warning", True)
    assert gateway.complaints() == []


def resource_of(message: ExportMetricsServiceRequest) -> tuple[tuple[str, Any], ...]:
    return tuple((item.key, value_of(item.value)) for item in message.resource_metrics[0].resource.attributes)


def points_in(message: ExportMetricsServiceRequest) -> list[NumberDataPoint]:
    """`sluiceway.requests`, whatever the labels."""
    metrics = message.resource_metrics[0].scope_metrics[0].metrics
    found = (metric.sum.data_points for metric in metrics if metric.name == names.SLUICEWAY_REQUESTS)
    return [point for points in found for point in points]


def requests_in(message: ExportMetricsServiceRequest) -> int:
    """Their sum."""
    return sum(point.as_int for point in points_in(message))


def starts_in(message: ExportMetricsServiceRequest) -> set[int]:
    """Since when they count."""
    return {point.start_time_unix_nano for point in points_in(message)}


async def test_what_fails_is_traced_whatever_the_sampler_says(tmp_path: Path) -> None:
    with OtlpSink() as sink:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
            "OTEL_TRACES_SAMPLER": "always_off",
            "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
        }
        async with (
            Simulated.running() as upstream,
            Gateway.serving(
                document_of(upstream.url, tracing={"compat": ["openinference"]}), tmp_path, environ=environ
            ) as gateway,
        ):
            assert (await ask(gateway.port, "good")).whole
            assert (await ask(gateway.port, "bad", **{"x-sim-status": "500"})).status == 500
            assert (await ask(gateway.port, "refused", key="sk-nobody")).status == 401
            lines = {line["sluiceway.client_request_id"]: line for line in await gateway.records(3)}
            metrics = await gateway.metrics()
        spans = sink.spans
    assert {span.trace_id.hex() for span in spans} == {lines["bad"]["trace_id"]}
    server, client = sorted(spans, key=lambda span: span.kind)
    assert attributes_of(server)["openinference.span.kind"] == "CHAIN"
    assert attributes_of(client)["openinference.span.kind"] == "LLM"
    assert any(name.startswith("gen_ai_client_inference_duration_seconds") for name in metrics)


@pytest.mark.parametrize("how", ["refusing", "hanging", "crawling", "failing"])
async def test_a_collector_in_trouble_costs_no_line_and_its_spans_are_counted(tmp_path: Path, how: str) -> None:
    collector = await asyncio.to_thread(Collector, how)
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2, environ=environ) as gateway,
    ):
        board = gateway.board
        first = await asyncio.gather(*(ask(gateway.port, f"first-{number}") for number in range(REQUESTS)))
        if how == "crawling":  # it takes everything, in the end
            await asyncio.to_thread(collector.wait, "asked")
        else:
            await gateway.lines.wait("spans_not_delivered")
        second = await asyncio.gather(*(ask(gateway.port, f"second-{number}") for number in range(REQUESTS)))
        await gateway.records(2 * REQUESTS)
        assert all(got.whole and got.status == 200 for got in (*first, *second))
        await asyncio.to_thread(collector.heal)
        assert (await ask(gateway.port, "after")).whole
        await gateway.records(2 * REQUESTS + 1)
    assert gateway.process.returncode == 0
    exact(board, 2 * REQUESTS + 1)
    delivered = await asyncio.to_thread(collector.end)
    assert delivered > 0
    dropped = sum(line["spans_dropped"] for line in gateway.lines.of("observer_stopped"))
    assert delivered + dropped == 2 * (2 * REQUESTS + 1)
    assert how != "crawling" or dropped == 0
    assert how != "failing" or dropped > 0
    assert gateway.lines.other == []


async def filled(gateway: Gateway) -> int:
    """Make lines until its stdout takes no more; answers how many requests it took."""
    gateway.stdout.pause_reading()
    count = 0
    while gateway.board.total(Cell.HANDED) - gateway.board.total(Cell.TAKEN) < UNWRITTEN_LINES:
        assert count < UNREAD_LINES_MAX
        answers = await asyncio.gather(*(ask(gateway.port, f"filling-{count + number}") for number in range(20)))
        assert all(got.whole for got in answers)
        count += 20
    return count


async def test_a_stdout_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
    ):
        board = gateway.board
        count = await filled(gateway)
        answers = await asyncio.gather(*(ask(gateway.port, f"full-{number}") for number in range(REQUESTS)))
        assert all(got.whole and got.status == 200 for got in answers)
        assert await gateway.readiness() == 200
        total = count + REQUESTS
        assert board.total(Cell.TAKEN) <= total - REQUESTS
        metrics = await gateway.metrics()
        assert sum(value for name, value in metrics.items() if name.startswith("sluiceway_requests_total")) == total
        gateway.stdout.resume_reading()
        await gateway.records(total)
    assert gateway.process.returncode == 0
    exact(board, total)
    assert gateway.complaints() == []


async def test_a_host_ends_although_nobody_reads_its_stdout(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
    ):
        board = gateway.board
        count = await filled(gateway)
        gateway.signal(signal.SIGTERM)
        await gateway.exited()
        gateway.stdout.resume_reading()
        assert await gateway.wait() == 0
    # The counts hold, whatever of the lines was still written.
    dropped = sum(board.total(cell) for cell in DROP_REASONS.values())
    assert board.total(Cell.STARTED) == count == board.total(Cell.TAKEN) + dropped
    assert board.total(Cell.TAKEN) <= len(gateway.records_so_far()) <= count
