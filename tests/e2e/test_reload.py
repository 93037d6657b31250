"""The configuration changes while requests run: nobody fails, nobody sees two generations, and a bad file is told.

The figures of a release: `E2E_RELOADS=300 pytest tests/e2e/test_reload.py`.
"""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from observability.board import Cell
from tests.e2e.exchanges import Exchange
from tests.e2e.load import Load
from tests.e2e.traffic import CHAT, Client, Got, ask, chat_body, document_of, head_of
from tests.fakes.gateway import Gateway
from tests.fakes.simulated import Simulated

RELOADS = int(os.environ.get("E2E_RELOADS", "20"))
WORKERS = 4


def write(gateway: Gateway, change: Callable[[dict[str, Any]], None]) -> None:
    """As editors do it: another file takes the place of the first."""
    document = orjson.loads(gateway.file.read_bytes())
    change(document)
    fresh = gateway.file.with_suffix(".fresh")
    fresh.write_bytes(orjson.dumps(document))
    fresh.replace(gateway.file)


def label(text: str) -> Callable[[dict[str, Any]], None]:
    """A change that each record shows."""

    def change(document: dict[str, Any]) -> None:
        document["model_apis"][0]["labels"] = {"edition": text}

    return change


async def readyz(gateway: Gateway, token: str | None = None) -> tuple[int, dict[str, Any]]:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.admin_url}/readyz", headers=headers) as response,
    ):
        return response.status, await response.json()


async def test_reloads_during_load(tmp_path: Path) -> None:
    """Every record shows one generation, the one that its answer named, and what that generation says."""
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=WORKERS) as gateway,
        Load(gateway.port).running() as load,
    ):
        await load.reach(50)
        for number in range(2, RELOADS + 2):
            write(gateway, label(f"edition-{number}"))
            if number % 2:
                gateway.signal(signal.SIGHUP)  # else it is noticed
            (line,) = await gateway.lines.wait("configuration_in_force", generation=number)
            assert line["generation"] == number
            status, facts = await readyz(gateway)
            assert (status, facts["generation"], facts["refused"]) == (200, number, [])
            assert [worker["generation"] for worker in facts["workers"]] == [number] * WORKERS
        await load.reach(50)
        metrics = await gateway.metrics()
        generations = {metrics[f'sluiceway_config_generation{{worker="{slot}"}}'] for slot in range(WORKERS)}
        assert generations == {RELOADS + 1}
        (described,) = [name for name in metrics if name.startswith("sluiceway_model_api_info{")]
        assert f'label_edition="edition-{RELOADS + 1}"' in described
        took_ms = sorted(line["took_ms"] for line in gateway.lines.of("configuration_in_force"))
        print(
            f"\n{RELOADS} reloads, {load.done} requests; in force in all workers after {took_ms[len(took_ms) // 2]} ms"
        )
        print(f"(median) and {took_ms[-1]} ms (longest)")
    assert load.failed == []
    assert gateway.process.returncode == 0
    records = gateway.records_so_far()
    assert len(records) == load.done
    named = {record["sluiceway.client_request_id"]: record["sluiceway.generation"] for record in records}
    assert named == load.generations
    for record in records:
        generation = record["sluiceway.generation"]
        assert record.get("sluiceway.label.edition") == (f"edition-{generation}" if generation > 1 else None)
    assert gateway.complaints() == []


async def test_a_broken_file_changes_nothing_and_is_told(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
        Load(gateway.port).running() as load,
    ):
        good = gateway.file.read_bytes()
        for broken, said in (
            (b'{"services": [', "line 1, column 15: not YAML"),
            (good.replace(b'"single":{"service":"sim"}', b'"single":{"service":"sin"}'), "did you mean sim?"),
            (
                good.replace(b'"workers":2', b'"workers":3'),
                "workers: 2 cannot become 3 while the gateway runs; restart",
            ),
            (None, "it cannot be read (No such file or directory)"),
        ):
            assert broken != good
            count = len(gateway.lines.of("configuration_refused"))
            if broken is None:
                gateway.file.unlink()
            else:
                gateway.file.write_bytes(broken)
            line = (await gateway.lines.wait("configuration_refused", count + 1))[-1]
            assert said in str(line["complaints"])
            assert (line["level"], line["generation"]) == ("error", 1)
            assert "generation 1 stays in force" in line["hint"]
            status, facts = await readyz(gateway)
            assert (status, facts["generation"], facts["refused"]) == (200, 1, line["complaints"])
            await load.reach(20)
        gateway.file.write_bytes(good)
        await gateway.lines.wait("configuration_unchanged")
        assert (await readyz(gateway))[1]["refused"] == []
    assert load.failed == []
    assert {record["sluiceway.generation"] for record in gateway.records_so_far()} == {1}
    assert not gateway.lines.of("configuration_adopted")
    assert [line["event"] for line in gateway.complaints()] == ["configuration_refused"] * 4


async def test_words_of_the_file_are_for_those_who_have_the_token(tmp_path: Path) -> None:
    async with Simulated.running() as upstream:
        document = document_of(upstream.url)
        async with Gateway.serving(document, tmp_path, token="s3cret") as gateway:
            write(gateway, lambda document: document.update(lisen="secret-host:8080"))
            await gateway.lines.wait("configuration_refused")
            assert "lisen" not in str(await readyz(gateway))
            assert "the log says why" in str(await readyz(gateway, "wrong"))
            assert "lisen: this key is unknown; did you mean listen?" in str(await readyz(gateway, "s3cret"))


async def test_a_running_request_keeps_the_configuration_that_it_began_with(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Simulated.running() as other,
        Gateway.serving(document_of(upstream.url), tmp_path) as gateway,
    ):
        client, got, body = await Client.to(gateway.port), Got(), chat_body(stream=True)
        await client.send(head_of(CHAT, "old", len(body), x_sim_gate_after="2") + body)
        await client.receive(got, until_bytes=1)

        def move(document: dict[str, Any]) -> None:
            document["services"][0]["base_url"] = other.url
            document["consumers"][0]["keys"] = ["sk-another"]

        write(gateway, move)
        await gateway.lines.wait("configuration_in_force", generation=2)
        assert (await ask(gateway.port, "refused")).status == 401
        assert (await ask(gateway.port, "new", key="sk-another")).headers["x-sluiceway-generation"] == "2"
        await other.arrived("new")
        await upstream.open("old")
        await client.receive(got)
        assert (got.whole, got.headers["x-sluiceway-generation"]) == (True, "1")
        records = {record["sluiceway.client_request_id"]: record for record in await gateway.records(3)}
        assert {name: record["sluiceway.generation"] for name, record in records.items()} == {
            "old": 1,
            "new": 2,
            "refused": 2,
        }


async def test_a_worker_that_is_started_later_begins_with_what_is_in_force(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
    ):
        write(gateway, label("second"))
        await gateway.lines.wait("configuration_in_force", generation=2)
        gateway.file.write_bytes(b"broken: [")
        await gateway.lines.wait("configuration_refused")
        for pid in gateway.pids("proxy.worker"):
            os.kill(pid, signal.SIGKILL)
        await gateway.lines.wait("worker_ready", 2, generation=2)
        (control,) = gateway.pids("proxy.control")
        os.kill(control, signal.SIGKILL)
        await gateway.lines.wait("configuration_refused", 2)  # the next one reads it too
        status, facts = await readyz(gateway)
        assert (status, facts["generation"], bool(facts["refused"])) == (200, 2, True)
        assert (await ask(gateway.port, "late")).headers["x-sluiceway-generation"] == "2"


async def test_a_change_while_control_is_away_is_found_when_it_is_back(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path, workers=2) as gateway,
    ):
        (control,) = gateway.pids("proxy.control")
        os.kill(control, signal.SIGSTOP)
        write(gateway, label("second"))
        os.kill(control, signal.SIGKILL)
        await gateway.lines.wait("configuration_in_force", generation=2)
        assert (await readyz(gateway))[1]["generation"] == 2


async def test_limits_and_times_change_too(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path) as gateway,
    ):
        assert (await ask(gateway.port, "small")).status == 200
        row = gateway.board.row(0)
        assert row[Cell.DRAIN_MS] == 180_000

        def tighten(document: dict[str, Any]) -> None:
            document["limits"] = {"max_request_bytes": 100, "max_head_bytes": 2048, "max_connections": 1}
            document["drain_timeout_ms"] = 5000

        write(gateway, tighten)
        await gateway.lines.wait("configuration_in_force", generation=2)
        assert row[Cell.DRAIN_MS] == 5000
        kept = await Client.to(gateway.port)
        await kept.send(head_of(CHAT, "large", 101))
        assert (await kept.receive(Got())).error == "body_too_large"
        assert (await ask(gateway.port, "long", x_long="x" * 2048)).error == "head_too_large"
        holding = await Client.to(gateway.port)
        await holding.send(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await holding.receive(Got())).status == 200
        assert (await ask(gateway.port, "surplus")).error == "overloaded"


@contextlib.asynccontextmanager
async def with_a_secret(folder: Path) -> AsyncIterator[tuple[Gateway, Path]]:
    """A gateway whose consumer's key, sk-first, stands in a file. Control answers: before that, it would meet SIGHUP
    with its first look at the file, and say nothing of it."""
    secret = folder / "secret"
    secret.write_text("sk-first\n")
    async with Simulated.running() as upstream:
        document = document_of(upstream.url)
        document["consumers"][0]["keys"] = [f"file:{secret}"]
        async with Gateway.serving(document, folder) as gateway:
            await gateway.readiness()
            yield gateway, secret


async def test_a_secret_that_changed_in_its_file_is_read_on_sighup(tmp_path: Path) -> None:
    async with with_a_secret(tmp_path) as (gateway, secret):
        assert (await ask(gateway.port, "first", key="sk-first")).status == 200
        gateway.signal(signal.SIGHUP)
        await gateway.lines.wait("configuration_unchanged", generation=1)
        secret.write_text("sk-second\n")
        gateway.signal(signal.SIGHUP)
        await gateway.lines.wait("configuration_in_force", generation=2)
        assert (await ask(gateway.port, "first", key="sk-first")).status == 401
        assert (await ask(gateway.port, "second", key="sk-second")).status == 200


async def test_a_secret_that_changed_while_control_was_away_is_found(tmp_path: Path) -> None:
    """The kept text is the same, so that it does not tell; a worker that begins now must be no other generation 1."""
    async with with_a_secret(tmp_path) as (gateway, secret):
        await gateway.lines.wait("worker_ready")  # a worker that is killed at once takes its line with it
        gateway.signal(signal.SIGHUP)
        await gateway.lines.wait("configuration_unchanged")  # control will not look by itself again
        secret.write_text("sk-second\n")
        (worker,), (control,) = gateway.pids("proxy.worker"), gateway.pids("proxy.control")
        os.kill(worker, signal.SIGKILL)
        await gateway.lines.wait("worker_ready", 2, generation=1)
        while (await ask(gateway.port, "first", key="sk-first")).status != 200:
            pass  # until control has told it what generation 1 is
        assert (await ask(gateway.port, "second", key="sk-second")).status == 401
        os.kill(control, signal.SIGKILL)
        await gateway.lines.wait("configuration_in_force", generation=2)
        assert (await ask(gateway.port, "first", key="sk-first")).status == 401
        got = await ask(gateway.port, "second", key="sk-second")
        assert (got.status, got.headers["x-sluiceway-generation"]) == (200, "2")


async def test_a_worker_that_cannot_read_a_secret_any_more_has_it_from_control(tmp_path: Path) -> None:
    async with with_a_secret(tmp_path) as (gateway, secret):
        await gateway.lines.wait("worker_ready")
        gateway.signal(signal.SIGHUP)
        await gateway.lines.wait("configuration_unchanged")
        secret.unlink()
        (worker,) = gateway.pids("proxy.worker")
        os.kill(worker, signal.SIGKILL)
        (line,) = await gateway.lines.wait("configuration_handed_over")
        assert "consumers[0].keys[0]" in line["why"]
        assert (await ask(gateway.port, "first", key="sk-first")).status == 200
        assert (await readyz(gateway))[0] == 200


async def test_a_key_that_was_revoked_opens_no_draining_worker(tmp_path: Path) -> None:
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url), tmp_path) as gateway,
    ):
        stream = await Exchange.streaming(gateway.port, "stream")
        gateway.signal(signal.SIGUSR2)
        await gateway.lines.wait("rolling_restart_done")

        def revoke(document: dict[str, Any]) -> None:
            document["consumers"][0]["keys"] = ["sk-another"]

        write(gateway, revoke)
        await gateway.lines.wait("configuration_in_force", generation=2)
        got = await stream.finish_stream(upstream)
        assert got.reusable
        await stream.client.send(head_of(CHAT, "behind", len(chat_body())) + chat_body())
        got = await stream.client.receive(Got())
        while got.status == 200:  # the worker that leaves is told beside the others, and nobody waits for it
            got = await ask(gateway.port, "again")
        assert (got.status, got.headers["x-sluiceway-generation"]) == (401, "2")


async def test_prices_that_are_being_edited_keep_nobody_from_starting_again(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text('models: [{match: "*", output: 2}]', encoding="utf-8")
    async with (
        Simulated.running() as upstream,
        Gateway.serving(document_of(upstream.url, prices=str(prices)), tmp_path) as gateway,
    ):

        async def cost(count: int) -> float:
            assert (await ask(gateway.port, f"number-{count}")).whole
            record = (await gateway.records(count))[-1]
            return float(record["gen_ai.usage.cost"] / record["gen_ai.usage.output_tokens"])

        assert await cost(1) == pytest.approx(2e-6)
        prices.write_text("models: [{match: ", encoding="utf-8")
        for module in ("proxy.control", "proxy.worker"):  # the second has nobody to ask but the first
            (before,) = gateway.pids(module)
            os.kill(before, signal.SIGKILL)
            name = "control" if module == "proxy.control" else "worker-0"
            await gateway.lines.wait("started", 2, child=name)
            if name == "control":
                await gateway.lines.wait("configuration_refused")
        await gateway.lines.wait("worker_ready", 2)
        assert await cost(2) == pytest.approx(2e-6)
        prices.write_text('models: [{match: "*", output: 4}]', encoding="utf-8")
        gateway.signal(signal.SIGHUP)
        await gateway.lines.wait("configuration_in_force")
        assert await cost(3) == pytest.approx(4e-6)
        assert not [line for line in gateway.lines.of("restarting") if line["how"] != "SIGKILL"]
