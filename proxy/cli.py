"""The command `sluiceway`. Each subcommand imports what it needs when it runs: `--help` answers at once."""

import argparse
import os
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from observability.descriptors import open_standard_descriptors
from proxy.sockets import parse_address

DESCRIPTION = """\
Sluiceway is a streaming AI gateway: your programs call it where they would call a model provider, it forwards the
bytes as they come, and writes one log line, one trace and exact metrics for every request."""

SERVE = """\
Runs the gateway: one worker process per core, observers that write logs and traces, and a control process with
/metrics, /healthz and /readyz on admin.listen. Log lines are JSON on stdout; what prevents a start is said on stderr.

signals
  SIGTERM, SIGINT   drain: readyz fails, after drain_delay_ms the listener closes, running requests finish within
                    drain_timeout_ms, records are written; a second one stops at once
  SIGHUP            reads the file again, as happens by itself when it changes; a bad file changes nothing
  SIGUSR2           replaces the workers one by one; running requests finish within drain_timeout_ms
exit codes
  0  drained   1  stopped at once, or something had to be killed
  2  the configuration is wrong   3  a port, the state folder or the machine does not allow it

example
  sluiceway serve -c sluiceway.yaml --workers 2 --listen 0.0.0.0:8080"""

CHECK = """\
Reads the file as `serve` would, environment variables included, and starts nothing. Prints one line per complaint: the
path in the file, what is wrong, what would be right. Of a good file it prints what is possible and probably not meant,
as lines that begin with "warning: ".

exit codes
  0  the file is good, with warnings or without   2  it is not"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns its exit code; argparse itself exits with 2 for a command line it cannot read."""
    open_standard_descriptors()
    options = _parser().parse_args(arguments)
    if options.command == "serve":
        from proxy.serve import serve  # noqa: PLC0415 - see the head of this module

        return serve(options.config, workers=options.workers, listen=options.listen)
    if options.command == "check":
        from proxy.config.check import check  # noqa: PLC0415

        return check(options.config, os.environ, sys.stdout)
    sys.stdout.write(f"{_version()}\n")
    return 0


def _version() -> str:
    """With what the modules of the data path are: made by a C compiler (setup.py), or as they were written."""
    spec = find_spec("proxy.attempt")
    compiled = spec is not None and spec.origin is not None and not spec.origin.endswith(".py")
    return f"sluiceway {version('sluiceway')} ({'compiled' if compiled else 'plain Python'})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sluiceway",
        description=DESCRIPTION,
        epilog="`sluiceway COMMAND --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version(), help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=summary, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    serve = command("serve", "run the gateway", SERVE)
    check = command("check", "say what is wrong with a configuration file", CHECK)
    command("version", "print the version", "Prints the version.")
    for needy in (serve, check):
        needy.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="the configuration (YAML)")
    serve.add_argument("--workers", type=_workers, metavar="N", help="in place of `workers` in the file")
    serve.add_argument("--listen", type=_address, metavar="HOST:PORT", help="in place of `listen` in the file")
    return parser


def _workers(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not possible: use auto (one per core), or 1 to 1024")
    return int(text)


def _address(text: str) -> str:
    try:
        parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


if __name__ == "__main__":
    sys.exit(main())
