"""Chaos: random faults of the upstream, clients that leave at random, and every single request accounted for, exactly.

The suite runs CHAOS_REQUESTS of 400; `CHAOS_REQUESTS=10000 CHAOS_SEED=7 pytest -s tests/e2e/test_chaos.py` is the run
that a release should survive. A failure names the request; the same seed makes the same requests.
"""

import gzip
import hashlib
import os
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from observability.board import DROP_REASONS, Board, Cell
from tests.e2e.chaos import HURRIED, IDLE_TIMEOUT_MS, NOWHERE, Ask, Leaves, plan, run
from tests.e2e.traffic import document_of
from tests.fakes.gateway import Gateway
from tests.fakes.simulated import Simulated

REQUESTS = int(os.environ.get("CHAOS_REQUESTS", "400"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
CLIENTS = 32

Fields = dict[str, Any]


@pytest.mark.timeout(120 + REQUESTS // 10)
async def test_chaos(tmp_path: Path) -> None:
    asks = plan(REQUESTS, SEED)
    began = time.monotonic()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # not listening: refuses
        async with Simulated.running() as upstream:
            document = chaos_document(upstream.url, f"http://127.0.0.1:{nobody.getsockname()[1]}")
            async with Gateway.serving(document, tmp_path, workers=2) as gateway:
                board = gateway.board
                await run(asks, gateway.port, upstream.arrived, CLIENTS)
                took_s = time.monotonic() - began
                records = await gateway.records(len(asks))
                metrics = await gateway.metrics()
                for entry in await upstream.ledger():
                    if entry["ending"] == "running":  # a client left a moment ago
                        await upstream.finished(entry["id"])
                ledger, stats = await upstream.ledger(), await upstream.stats()
            assert gateway.process.returncode == 0
    report(asks, gateway.records_so_far(), took_s)
    by_name = one_record_each(asks, gateway.records_so_far())
    assert len(records) == len(asks)
    counts_add_up(board, metrics, records)
    assert stats["in_flight"] == 0
    entries: dict[str, list[Fields]] = {}
    for entry in ledger:
        entries.setdefault(entry["id"], []).append(entry)
    assert entries.keys() <= by_name.keys()
    wrong = [
        f"{ask.name} ({ask.trouble.name}, {ask.protocol}, stream={ask.stream}, {len(ask.body)} bytes): {fault}"
        for ask in asks
        for fault in faults_of(ask, by_name[ask.name], entries.get(ask.name, []))
    ]
    assert not wrong, "\n".join([f"{len(wrong)} faults", *wrong[:40]])
    if complaints := gateway.complaints():
        pytest.fail(f"{len(complaints)} complaints, the first: {complaints[0]}")


def chaos_document(upstream: str, nowhere: str) -> dict[str, Any]:
    """Three Model APIs: the usual one, one whose service is in a hurry, one whose service is not there."""
    document = document_of(upstream)
    (service,), (model_api,) = document["services"], document["model_apis"]
    for path, change in ((HURRIED, {"idle_timeout_ms": IDLE_TIMEOUT_MS}), (NOWHERE, {"base_url": nowhere})):
        name = path.strip("/")
        document["services"].append({**service, "name": name, **change})
        routing = {"single": {"service": name}}
        document["model_apis"].append({**model_api, "name": name, "base_path": path, "routing": routing})
    return document


def one_record_each(asks: list[Ask], records: list[Fields]) -> dict[str, Fields]:
    """The records by the id of their request; each has exactly one, and there is no other."""
    names = Counter(str(record.get("sluiceway.client_request_id")) for record in records)
    wanted = Counter(ask.name for ask in asks)
    assert names == wanted, f"missing {list(wanted - names)[:10]}, too many {list(names - wanted)[:10]}"
    return {record["sluiceway.client_request_id"]: record for record in records}


def counts_add_up(board: Board, metrics: dict[str, float], records: list[Fields]) -> None:
    """The board, the metrics and the lines say the same."""
    total = len(records)
    assert board.total(Cell.STARTED) == board.total(Cell.HANDED) == board.total(Cell.TAKEN) == total
    assert {reason: board.total(cell) for reason, cell in DROP_REASONS.items()} == dict.fromkeys(DROP_REASONS, 0)
    assert board.total(Cell.ACTIVE) == 0
    by_name: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for sample, value in metrics.items():
        name, _, labels = sample.partition("{")
        by_name[name] += int(value)
        if name == "sluiceway_requests_total":
            outcomes[labels.partition('outcome="')[2].partition('"')[0]] += int(value)
    assert outcomes == Counter(record["sluiceway.outcome"] for record in records)
    assert by_name["sluiceway_requests_total"] == total
    assert by_name["http_server_active_requests"] == 0
    assert by_name["sluiceway_records_dropped_total"] == 0


def faults_of(ask: Ask, record: Fields, entries: list[Fields]) -> list[str]:
    """What is wrong with one request, in words."""
    faults = []
    ending = record["sluiceway.outcome"], record.get("error.type")
    if ending not in ask.trouble.endings:
        faults.append(f"ended as {ending}")
    if ask.stays:
        faults += client_faults(ask, record)
        if record.get("sluiceway.attempts", 0) != len(entries) and ask.trouble.base_path != NOWHERE:
            faults.append(f"{record.get('sluiceway.attempts')} attempts, the upstream saw {len(entries)}")
    upstream_endings = [entry["ending"] for entry in entries]
    if ask.trouble.leaves in (Leaves.BEFORE_THE_HEAD, Leaves.MID_STREAM) and upstream_endings != ["client_left"]:
        faults.append(f"the upstream saw {upstream_endings}")
    status = record["http.response.status_code"]
    if ask.trouble.leaves in (Leaves.BEFORE_THE_HEAD, Leaves.DURING_UPLOAD) and status != 499:
        faults.append(f"status {status} of a client that got none")
    if entries:
        faults += upstream_faults(ask, record, entries[-1])
    return faults


def client_faults(ask: Ask, record: Fields) -> list[str]:
    """What the client got against what the record says."""
    got, faults = ask.got, []
    whole = record["sluiceway.outcome"] != "upstream_aborted"
    if (got.status, got.whole) != (record["http.response.status_code"], whole):
        faults.append(f"the client got {got.status}, whole={got.whole}, the record has {record}")
    if whole and record["sluiceway.response.bytes"] != len(got.body) and not withheld(ask):
        faults.append(f"{len(got.body)} bytes came, {record['sluiceway.response.bytes']} are recorded")
    if record["sluiceway.outcome"] == "ok" and record["sluiceway.request.bytes"] != len(ask.body):
        faults.append(f"{len(ask.body)} bytes were sent, {record['sluiceway.request.bytes']} are recorded")
    if ask.protocol == "openai" and ask.trouble.name == "none" and ask.stream:
        text = gzip.decompress(got.body) if got.headers.get("content-encoding") == "gzip" else bytes(got.body)
        if not text.endswith(b"data: [DONE]\n\n"):
            faults.append(f"no [DONE]: {text[-80:]!r}")
    return faults


def withheld(ask: Ask) -> bool:
    """Whether the gateway asked for usage in the client's place, and may keep its chunk to itself."""
    return ask.stream and ask.protocol == "openai" and not ask.asks_usage


def upstream_faults(ask: Ask, record: Fields, entry: Fields) -> list[str]:
    """What the upstream saw and said against what the client sent and got, and the record says."""
    faults = []
    said = entry["input_tokens"], entry["output_tokens"]
    read = record.get("gen_ai.usage.input_tokens"), record.get("gen_ai.usage.output_tokens")
    source = record["sluiceway.usage.source"]
    if source == "upstream" and read != said:
        faults.append(f"read {read} tokens, the upstream said {said}")
    if record["sluiceway.outcome"] == "ok" and ask.stays and said != (None, None) and source != "upstream":
        faults.append(f"the upstream said {said} tokens, the source is {source}")
    same = entry["response_sha256"] == hashlib.sha256(ask.got.body).hexdigest()
    if entry["ending"] == "complete" and ask.stays and not withheld(ask) and not same:
        faults.append("the answer is not what the upstream sent")
    if entry["body_sha256"] not in (None, ask.body_sha256) and not withheld(ask):
        faults.append("the upstream got another body")
    return faults


def report(asks: list[Ask], records: list[Fields], took_s: float) -> None:
    """Figures, for `pytest -s`."""
    outcomes = Counter(record["sluiceway.outcome"] for record in records)
    sources = Counter(record.get("sluiceway.usage.source", "no route") for record in records)
    sent_bytes = sum(ask.sent_bytes for ask in asks)
    print(f"\n{len(asks)} requests in {took_s:.1f} s, {sent_bytes >> 20} MiB of uploads, {len(records)} records")
    print(dict(outcomes), dict(sources))
