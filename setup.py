"""Compiles the modules of the data path with mypyc, where there is a C compiler; without one they run as Python.

One source either way: what is here is a list. Compiled, a small chat takes a worker two thirds of the time. What has a
base that is Python (aiohttp's classes) gains nothing and is not listed. What compiled code must not do, and
tests/test_tidy.py checks: await while it handles an exception (in an `except`, or in a `finally`), for the exception
would be everybody's until it goes on; ask in a `finally` whether a local name is None; recurse, for nobody counts.

SLUICEWAY_COMPILE=never leaves all as Python, =required fails where it cannot be compiled.
"""

import os
import sys
from pathlib import Path
from typing import Final

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COMPILED: Final = {
    "proxy": (
        "proxy/arrived.py",
        "proxy/attempt.py",
        "proxy/auth.py",
        "proxy/balancer.py",
        "proxy/body.py",
        "proxy/cooldown.py",
        "proxy/exchange.py",
        "proxy/framing.py",
        "proxy/handler.py",
        "proxy/headers.py",
        "proxy/opening.py",
        "proxy/outbox.py",
        "proxy/passage.py",
        "proxy/pipeline.py",
        "proxy/relay.py",
        "proxy/rewrite.py",
        "proxy/routing.py",
        "proxy/upload.py",
        "proxy/upstream/connection.py",
        "proxy/upstream/pool.py",
        "proxy/upstream/response.py",
        "proxy/verdict.py",
    ),
    "observability": (
        "observability/emitter.py",
        "observability/ending.py",
        "observability/facts.py",
        "observability/middleware.py",
        "observability/observation.py",
        "observability/observer/metrics.py",
        "observability/observer/naming.py",
        "observability/observer/otlp.py",
        "observability/observer/shares.py",
        "observability/observer/spans.py",
        "observability/observer/token_metrics.py",
        "observability/sampling.py",
        "observability/scanners/anthropic.py",
        "observability/scanners/audio.py",
        "observability/scanners/base.py",
        "observability/scanners/choice.py",
        "observability/scanners/dashscope.py",
        "observability/scanners/documents.py",
        "observability/scanners/images.py",
        "observability/scanners/openai.py",
        "observability/scanners/request.py",
        "observability/scanners/resources.py",
        "observability/scanners/responses.py",
        "observability/scanners/tasks.py",
        "observability/scanners/usage.py",
        "observability/wire/sse.py",
    ),
}
"""A group is one shared library; calls within it are C calls."""

WANTED: Final = os.environ.get("SLUICEWAY_COMPILE", "")


def extensions() -> list[Extension]:
    """What mypyc makes of the modules: its C, to be compiled."""
    if WANTED == "never":
        return []
    try:
        from mypyc.build import mypycify  # noqa: PLC0415 - it may not be there
    except ImportError:
        if WANTED == "required":
            raise
        return []
    paths = [path for group in COMPILED.values() for path in group]
    try:
        made: list[Extension] = mypycify(
            # Types were checked by `make check`, with all libraries there; here some may be missing.
            ["--config-file=", "--ignore-missing-imports", "--disable-error-code=unused-ignore", *paths],
            separate=[(list(paths), f"{name}.compiled") for name, paths in COMPILED.items()],
            debug_level="0",
        )
    except SystemExit:  # it has said why: the types of another release of a library, a folder that it may not write to
        if WANTED == "required":
            raise
        say_plain("mypyc has refused it")
        return []
    for extension in made:  # another compiler's warnings are no reason to do without
        extension.extra_compile_args = [flag for flag in extension.extra_compile_args if flag != "-Werror"]
    return made


def say_plain(why: object) -> None:
    """Nobody has to compile it."""
    sys.stderr.write(f"sluiceway: nothing could be compiled, so it is plain Python, and slower ({why})\n")


class AllOrNothing(build_ext):
    """Where one module cannot be compiled none is: half of them would not find the other half."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            if WANTED == "required":
                raise
            say_plain(error)
            for half in self.get_outputs():  # a wheel takes whatever was left where it is built
                Path(half).unlink(missing_ok=True)
            self.extensions = []


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": AllOrNothing},
    options={"build_ext": {"parallel": os.cpu_count()}},
)
