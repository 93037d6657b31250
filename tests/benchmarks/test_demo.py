"""`make run`, on ports of its own: it says what to try, that works, and Ctrl-C leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from proxy.sockets import format_address, listen_alone

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 60.0


def free_address() -> str:
    with listen_alone("127.0.0.1:0") as listener:
        return format_address(*listener.getsockname())


def test_the_demo_runs_and_ends(tmp_path: Path) -> None:
    listen, control, upstream = free_address(), free_address(), free_address()
    environ = {name: value for name, value in os.environ.items() if name != "DASHSCOPE_API_KEY"}
    demo = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.demo", "--listen", listen, "--control", control, "--upstream", upstream],
        cwd=tmp_path,  # where its state goes
        env={**environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert demo.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = demo.stdout.readline()
            assert line, said
            said += line
        assert f"curl -N http://{listen}/v1/chat/completions" in said
        assert f"the simulated upstream on {upstream}" in said
        answer = json.loads(chat(listen))
        assert answer["usage"]["total_tokens"] > 0
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()  # until the last process that holds the pipe is gone
        assert demo.wait(PATIENCE_S) == 0
        events = [json.loads(text) for text in (said + rest).splitlines() if text.startswith("{")]
        assert [event["gen_ai.request.model"] for event in events if event["event"] == "request"] == ["qwen-plus"]
        assert events[-1]["event"] == "stopped"
    finally:
        demo.kill()
        demo.wait()
        if demo.stdout is not None:
            demo.stdout.close()


def chat(listen: str) -> bytes:
    body = {"model": "qwen-plus", "messages": [{"role": "user", "content": "Hello"}]}
    request = urllib.request.Request(
        f"http://{listen}/v1/chat/completions",
        json.dumps(body).encode(),
        {"authorization": "Bearer demo-key", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        return bytes(response.read())
