"""`make run`: the gateway with something behind it, and the lines to try. Ctrl-C drains it and ends everything.

Behind it is the simulated upstream, or the real DashScope where DASHSCOPE_API_KEY is in the environment (of the region
that DASHSCOPE_BASE_URL names). Both are children like those of the supervisor, so they end with this process, however
it ends.
"""

import argparse
import asyncio
import errno
import os
import signal
import socket
import sys
import urllib.request
from pathlib import Path

from proxy.children import Child, ChildSpec, python_module
from proxy.providers.dashscope import DASHSCOPE

CONFIGURATION = Path(__file__).with_name("demo.yaml")

POLL_S = 0.1
LISTEN = "127.0.0.1:8080"
"""Between two looks at /readyz; a start takes about a second."""

TEXT = r"""
────────────────────────────────────────────────────────────────────────────────
Sluiceway listens on GATEWAY, behind it is UPSTREAM. Try, in another terminal:

a chat, streamed
  curl -N GATEWAY/v1/chat/completions -H 'authorization: Bearer demo-key' -H 'content-type: application/json' \
    -d '{"model": "qwen-plus", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'

the same in DashScope's own protocol
  curl GATEWAY/api/v1/services/aigc/text-generation/generation -H 'authorization: Bearer demo-key' \
    -H 'content-type: application/json' \
    -d '{"model": "qwen-plus", "input": {"messages": [{"role": "user", "content": "Hello"}]}}'

the same in Anthropic's
  curl GATEWAY/v1/messages -H 'x-api-key: demo-key' -H 'content-type: application/json' \
    -d '{"model": "qwen-plus", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello"}]}'

an image, asked for as of OpenAI
  curl GATEWAY/image/v1/images/generations -H 'authorization: Bearer demo-key' -H 'content-type: application/json' \
    -d '{"model": "qwen-image", "prompt": "a lock in the fog"}'

an embedding
  curl GATEWAY/embedding/v1/embeddings -H 'authorization: Bearer demo-key' -H 'content-type: application/json' \
    -d '{"model": "text-embedding-v4", "input": "Hello"}'

what the host counted, and whether it is ready
  curl CONTROL/metrics
  curl CONTROL/readyz

Each request is one line of JSON below. Ctrl-C stops.
────────────────────────────────────────────────────────────────────────────────
"""


def taken(address: str) -> bool:
    """Does another process listen there? Its answers would be taken for the gateway's."""
    host, _, port = address.rpartition(":")
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, int(port)))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


async def run(listen: str, control: str, upstream_listen: str) -> int:
    """Start both, print the lines when they are ready, wait. Returns the gateway's exit code."""
    simulated = not os.environ.get("DASHSCOPE_API_KEY")
    environ = {"DEMO_LISTEN": listen, "DEMO_CONTROL": control}
    if listen != LISTEN:  # beside another one, perhaps: two gateways share no state
        environ["DEMO_STATE"] = f"sqlite:./.sluiceway/{listen.rpartition(':')[2]}/state.db"
    if simulated:
        environ |= {"DASHSCOPE_API_KEY": "simulated", "DASHSCOPE_BASE_URL": f"http://{upstream_listen}"}
    gateway = Child(
        ChildSpec("gateway", python_module("proxy.cli", "serve", "-c", str(CONFIGURATION)), environ=environ)
    )
    upstream = Child(ChildSpec("upstream", python_module("benchmarks.upstream", "--listen", upstream_listen)))
    children = [upstream, gateway] if simulated else [gateway]
    exit_codes: dict[str, int] = {}

    def on_child() -> None:
        for child in children:
            if ending := child.reap():
                exit_codes[child.spec.name] = abs(ending.code)
        if upstream.spec.name in exit_codes and not gateway.ended.is_set():  # its own line says why
            gateway.signal(signal.SIGTERM)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, on_child)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, gateway.signal, signal.SIGTERM)
    for child in children:
        child.start()
    if await _ready(gateway, control):
        real = (
            f"the real DashScope at {os.environ.get('DASHSCOPE_BASE_URL') or DASHSCOPE.base_url} (DASHSCOPE_BASE_URL)"
        )
        name = f"the simulated upstream on {upstream_listen}" if simulated else real
        text = TEXT.replace("UPSTREAM", name)
        print(text.replace("GATEWAY", f"http://{listen}").replace("CONTROL", f"http://{control}"), flush=True)
    await gateway.ended.wait()
    exit_code = exit_codes["gateway"] or exit_codes.get("upstream", 0)
    upstream.signal(signal.SIGTERM)
    await upstream.ended.wait()
    return exit_code


async def _ready(gateway: Child, control: str) -> bool:
    """Wait until the host is ready; False when the gateway ended instead."""
    while not gateway.ended.is_set():
        if await asyncio.to_thread(_says_ready, control):
            return True
        await asyncio.sleep(POLL_S)
    return False


def _says_ready(control: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{control}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:  # not there yet, or 503
        return False


def main() -> int:
    """The command line. Other addresses are for a machine on which the usual ones are taken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description="What `make run` runs.")
    parser.add_argument("--listen", default=LISTEN, metavar="HOST:PORT", help="the gateway")
    parser.add_argument("--control", default="127.0.0.1:9090", metavar="HOST:PORT", help="/metrics and probes")
    parser.add_argument("--upstream", default="127.0.0.1:9101", metavar="HOST:PORT", help="the simulated upstream")
    options = parser.parse_args()
    for name, address in (("LISTEN", options.listen), ("CONTROL", options.control), ("UPSTREAM", options.upstream)):
        if taken(address):
            sys.stderr.write(f"{address} is taken by another process; choose another: make run {name}=127.0.0.1:PORT\n")
            return 3
    return asyncio.run(run(options.listen, options.control, options.upstream))


if __name__ == "__main__":
    sys.exit(main())
