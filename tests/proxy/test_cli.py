"""The command line, as a user has it: a process, its exit code, what it says and where."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import proxy.attempt
from proxy.cli import main
from proxy.serve import cores
from proxy.sockets import format_address, listen_alone

PATIENCE_S = 60.0

CONFIGURATION = """\
listen: {listen}
admin: {{listen: "{admin}"}}
state: sqlite:{state}/state.db
workers: 2
services:
  - {{name: local, provider: vllm, base_url: "http://127.0.0.1:9"}}
{services}consumers:
  - {{name: me, keys: ["${{TEST_CONSUMER_KEY}}"]}}
model_apis:
  - {{name: chat, scenario: text, protocols: [openai], routing: {{single: {{service: local}}}}}}
"""

SPARE = "  - {name: spare, provider: vllm, base_url: 'http://127.0.0.1:9'}\n"


@pytest.fixture
def configuration(tmp_path: Path) -> Callable[..., Path]:
    def write(*, listen: str = "127.0.0.1:0", admin: str = "127.0.0.1:0", services: str = "", more: str = "") -> Path:
        path = tmp_path / "sluiceway.yaml"
        state = tmp_path / "state"
        path.write_text(CONFIGURATION.format(listen=listen, admin=admin, state=state, services=services) + more)
        return path

    return write


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "proxy.cli", *arguments]


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "TEST_CONSUMER_KEY": "k-123", "TMPDIR": str(tmp_path)}


def sluiceway(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        command(*arguments), env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


# Words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["serve", "check", "version", "run the gateway"]),
        (["serve", "--help"], ["SIGTERM", "drain", "exit codes", "--workers N", "--listen HOST:PORT", "example"]),
        (["check", "--help"], ["exit codes", "-c FILE"]),
    ],
)
def test_help_teaches(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert not [word for word in words if word not in text]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["serve"], "required: -c/--config"),
        (["serve", "-c", "x", "--workers", "0"], "'0' is not possible: use auto (one per core), or 1 to 1024"),
        (["serve", "-c", "x", "--workers", "many"], "'many' is not possible: use auto"),
        (["serve", "-c", "x", "--listen", "8080"], "'8080' is not HOST:PORT, for example 127.0.0.1:8080"),
        (["bogus"], "invalid choice: 'bogus'"),
    ],
)
def test_a_wrong_command_line_is_answered_with_what_would_be_right(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    said = capsys.readouterr().out
    kind = "plain Python" if proxy.attempt.__file__.endswith(".py") else "compiled"
    assert said.startswith("sluiceway 0.")
    assert said.endswith(f" ({kind})\n")
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, said)


# Refused starts


def test_check_and_serve_agree_on_a_bad_file(configuration: Callable[..., Path], tmp_path: Path) -> None:
    path = str(configuration(more="wrokers: 3\n"))
    check, serve = sluiceway(tmp_path, "check", "-c", path), sluiceway(tmp_path, "serve", "-c", path)
    assert (check.returncode, serve.returncode) == (2, 2)
    (line,) = serve.stderr.splitlines()
    assert line.startswith(f"sluiceway: {path}: wrokers: ")
    complaint = line.removeprefix(f"sluiceway: {path}: ")
    assert "workers" in complaint
    assert complaint in check.stdout
    assert not (tmp_path / "state").exists()


def test_check_of_a_good_file(configuration: Callable[..., Path], tmp_path: Path) -> None:
    assert sluiceway(tmp_path, "check", "-c", str(configuration())).returncode == 0


@pytest.mark.parametrize(("closed", "arguments", "code"), [(">&-", ("version",), 0), ("2>&-", ("serve", "-c", "/"), 2)])
def test_a_closed_stdout_or_stderr_changes_no_exit_code(
    tmp_path: Path, closed: str, arguments: tuple[str, ...], code: int
) -> None:
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command(*arguments)]
    ended = subprocess.run(shell, env=environment(tmp_path), capture_output=True, timeout=PATIENCE_S, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, b"", b"")


def test_serve_without_its_file(tmp_path: Path) -> None:
    refused = sluiceway(tmp_path, "serve", "-c", str(tmp_path / "none.yaml"))
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"sluiceway: {tmp_path / 'none.yaml'}: it cannot be read")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("which", ["listen", "admin"])
def test_serve_on_a_taken_port_says_so_in_one_line(
    configuration: Callable[..., Path], tmp_path: Path, which: str
) -> None:
    with listen_alone("127.0.0.1:0") as other:
        address = format_address(*other.getsockname())
        refused = sluiceway(tmp_path, "serve", "-c", str(configuration(**{which: address})))
    assert refused.returncode == 3
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"sluiceway: {address} is taken by another process")
    assert not list(tmp_path.glob("sluiceway-*"))


def test_options_are_checked_like_the_file(configuration: Callable[..., Path], tmp_path: Path) -> None:
    """Off loopback with an open Model API is refused, also when only --listen says so."""
    path = configuration()
    path.write_text(
        path.read_text()
        .replace("provider: vllm,", "provider: vllm, api_keys: [s],")
        .replace("name: chat,", "name: chat, auth: open,")
    )
    assert sluiceway(tmp_path, "check", "-c", str(path)).returncode == 0
    refused = sluiceway(tmp_path, "serve", "-c", str(path), "--listen", "0.0.0.0:0")
    assert refused.returncode == 2
    assert "allow_open" in refused.stderr


# A whole life


class Gateway:
    """`sluiceway serve`, and its log so far."""

    def __init__(self, tmp_path: Path, path: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            command("serve", "-c", str(path), *options),
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self._passed: list[dict[str, Any]] = []

    def wait(self, event: str) -> dict[str, Any]:
        """The next line with that event; lines of several processes come in any order, so one may have passed by."""
        for line in self._passed:
            if line["event"] == event:
                self._passed.remove(line)
                return line
        assert self.process.stdout is not None
        for text in self.process.stdout:
            line: dict[str, Any] = json.loads(text)
            self.lines.append(line)
            assert line["event"] not in {"restarting", "crash_loop"}, self.lines
            if line["event"] == event:
                return line
            self._passed.append(line)
        raise AssertionError(f"ended without {event}: {self.lines}")

    def end(self) -> int:
        """Read on until every process is gone; the exit code."""
        assert self.process.stdout is not None
        self.lines += [json.loads(text) for text in self.process.stdout]
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def serve(configuration: Callable[..., Path], tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    gateways: list[Gateway] = []

    def start(*options: str, **written: str) -> Gateway:
        gateways.append(Gateway(tmp_path, configuration(**written), *options))
        return gateways[-1]

    yield start
    for gateway in gateways:
        gateway.process.kill()
        gateway.process.wait()
        assert gateway.process.stdout is not None
        gateway.process.stdout.close()


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def free_address() -> str:
    with listen_alone("127.0.0.1:0") as listener:
        return format_address(*listener.getsockname())


def test_serves_drains_and_leaves_nothing(serve: Callable[..., Gateway], tmp_path: Path) -> None:
    admin = free_address()
    gateway = serve("--workers", "1", admin=admin)
    ready = gateway.wait("ready")
    assert (ready["workers"], ready["generation"]) == (1, 1)
    assert get(f"http://{ready['listen']}/-/readyz")[0] == 200
    assert get(f"http://{admin}/healthz")[0] == 200
    status, body = get(f"http://{admin}/readyz")
    assert (status, json.loads(body)["generation"]) == (200, 1)
    status, body = get(f"http://{admin}/metrics")
    assert status == 200
    assert b'sluiceway_config_generation{worker="0"} 1.0' in body
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.end() == 0
    assert gateway.lines[-1]["event"] == "stopped"
    assert not list(tmp_path.glob("sluiceway-*"))
    assert "k-123" not in (tmp_path / "state" / "last-good.yaml").read_text()


def test_a_start_removes_what_a_killed_gateway_left(serve: Callable[..., Gateway], tmp_path: Path) -> None:
    killed = serve("--workers", "1")
    killed.wait("ready")
    killed.process.kill()
    assert killed.end() == -signal.SIGKILL
    (left,) = tmp_path.glob("sluiceway-run-*")
    gateway = serve("--workers", "1")
    assert gateway.wait("removed_abandoned")["folders"] == [str(left)]
    gateway.wait("ready")
    gateway.process.terminate()
    assert gateway.end() == 0
    assert not list(tmp_path.glob("sluiceway-*"))


def test_what_is_odd_about_the_file_is_logged_at_the_start(serve: Callable[..., Gateway]) -> None:
    gateway = serve("--workers", "1", services=SPARE)
    line = gateway.wait("configuration")
    assert (line["level"], line["path"]) == ("warning", "services[1].name")
    assert "no Model API uses service spare" in line["wrong"]
    gateway.wait("ready")
    gateway.process.terminate()
    assert gateway.end() == 0


def test_a_worker_starts_again_where_the_folder_for_held_bodies_has_gone_bad(
    serve: Callable[..., Gateway], tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    gateway = serve("--workers", "1", more=f"spool_dir: {spool}\n")
    first = gateway.wait("worker_ready")["pid"]
    gateway.wait("ready")
    spool.write_text("a file, and no folder")
    refused = sluiceway(tmp_path, "check", "-c", str(tmp_path / "sluiceway.yaml"))
    assert refused.returncode == 2
    assert refused.stdout.startswith("spool_dir: ")
    os.kill(first, signal.SIGKILL)
    assert gateway.process.stdout is not None
    lines = (json.loads(text) for text in gateway.process.stdout)
    again = next(line for line in lines if line["event"] in {"worker_ready", "crash_loop"})
    assert again["event"] == "worker_ready"
    gateway.process.terminate()
    assert gateway.end() == 0


def test_a_second_gateway_needs_a_state_folder_of_its_own(
    serve: Callable[..., Gateway], configuration: Callable[..., Path], tmp_path: Path
) -> None:
    gateway = serve("--workers", "1")
    gateway.wait("ready")
    refused = sluiceway(tmp_path, "serve", "-c", str(configuration()))
    assert refused.returncode == 3
    assert "give this one a `state` of its own" in refused.stderr
    gateway.process.terminate()
    assert gateway.end() == 0


def test_workers_auto_goes_before_the_file(serve: Callable[..., Gateway]) -> None:
    gateway = serve("--workers", "auto", more="observers: 1\n")
    assert gateway.wait("ready")["workers"] == cores()
    gateway.process.terminate()
    assert gateway.end() == 0


def test_the_generation_grows_with_a_changed_file(serve: Callable[..., Gateway]) -> None:
    seen = []
    for more in ("", "", "drain_delay_ms: 1\n"):
        gateway = serve("--workers", "1", more=more)
        seen.append(gateway.wait("ready")["generation"])
        gateway.process.terminate()
        assert gateway.end() == 0
    assert seen == [1, 1, 2]


# Small parts


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("nonsense", None)]
)
def test_cores_are_those_that_the_container_may_use(tmp_path: Path, quota: str, expected: int | None) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(quota)
    assert cores(path) == (expected or cores(tmp_path / "missing"))
