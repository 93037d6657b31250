"""The processes' own lines, in a process of their own: logging is set up once for all of it."""

import json
import subprocess
import sys
import textwrap

PREFIX = "from pathlib import Path\nimport logging, sys, warnings\nfrom observability.log import get_logger, set_up\n"


def lines_of(source: str, *arguments: str) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-c", PREFIX + textwrap.dedent(source), *arguments],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == b""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_line_says_when_how_bad_what_and_who(tmp_path):
    (line,) = lines_of(
        """
        log = get_logger("proxy.test")  # before it is set up, as modules do
        set_up("worker", runtime=Path(sys.argv[1]))
        log.debug("not_shown")
        log.info("started", slot=3)
        """,
        str(tmp_path),
    )
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert len(line["timestamp"]) == len("2026-01-01T00:00:00.000Z")
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["event"], line["slot"]) == ("info", "started", 3)
    assert (line["process"], line["module"]) == ("worker", "proxy.test")
    assert isinstance(line["pid"], int)


def test_libraries_and_warnings_speak_in_the_same_shape():
    warned, failed = lines_of(
        """
        set_up("worker")
        logging.getLogger("asyncio").info("not shown")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        try:
            1 / 0
        except ZeroDivisionError:
            logging.getLogger("asyncio").exception("task %s failed", "x")
        """
        if sys.flags.dev_mode
        else """
        set_up("worker")
        warnings.simplefilter("always")
        logging.getLogger("asyncio").info("not shown")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        try:
            1 / 0
        except ZeroDivisionError:
            logging.getLogger("asyncio").exception("task %s failed", "x")
        """
    )
    assert (warned["level"], warned["module"]) == ("warning", "py.warnings")
    assert (failed["level"], failed["event"], failed["module"]) == ("error", "task x failed", "asyncio")
    assert failed["exception"][0]["exc_type"] == "ZeroDivisionError"


def test_exceptions_never_show_local_variables():
    (line,) = lines_of(
        """
        set_up("worker")
        def f(api_key):
            raise ValueError("broken")
        try:
            f("sk-secret")
        except ValueError:
            get_logger().exception("failed")
        """
    )
    assert "sk-secret" not in json.dumps(line["exception"]).replace('f("sk-secret")', "")


def test_what_json_cannot_say_is_said_as_python_does():
    (line,) = lines_of(
        r"""
        set_up("worker")
        get_logger().info("odd", value=1 << 70, name="caf\udce9", thing=Path("/x"))
        """
    )
    assert "1180591620717411303424" in line["value"]
