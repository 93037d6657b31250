"""The style that a machine can check: lengths, and which room may import which.

A length that is exceeded asks for a second look at the cut, an arrow that is broken for a conversation; neither is
mended by raising a number here.
"""

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

AIOHTTP_ROOMS = (
    "proxy.arrived",
    "proxy.arrived_body",
    "proxy.edge",
    "proxy.intake",
    "proxy.downstream",
    "proxy.server",
    "proxy.handler",
    "proxy.relay",
    "proxy.websocket",
    "proxy.worker",
    "proxy.control",
    "proxy.admin",
    "proxy.admin.*",
    "observability.middleware",
)
"""Who knows that the server is aiohttp. The rest could be served by another."""

COMPOSITION_ROOTS = (
    "proxy.cli",
    "proxy.serve",
    "proxy.supervisor",
    "proxy.worker",
    "proxy.control",
    "observability.observer.main",
)
"""Each ties a process together, so nothing may depend on one …"""

ROOT_OF_ROOT = {
    ("proxy.cli", "proxy.serve"),
    ("proxy.serve", "proxy.supervisor"),
    ("observability.observer.__main__", "observability.observer.main"),
}
"""… except that one command is three of them in a row, each with less to know than the one before."""

WORDS_THAT_SAY_NOTHING = ("Manager", "Helper", "Utils", "Util")


class Module(NamedTuple):
    name: str
    """Dotted; a package is named like its folder."""
    package: str
    """What a relative import starts from."""
    tree: ast.Module
    lines: int


def parse(name: str, source: str, *, is_package: bool = False) -> Module:
    package = name if is_package else name.rpartition(".")[0]
    return Module(name, package, ast.parse(source), source.count("\n"))


def read(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    return parse(".".join(parts[:-1] if is_package else parts), path.read_text(encoding="utf-8"), is_package=is_package)


MODULES = [
    read(path) for room in ("proxy", "observability", "benchmarks") for path in sorted((ROOT / room).rglob("*.py"))
]


def imports(module: Module) -> Iterator[str]:
    """Dotted names of all that a module imports. `from a import b` gives `a` and `a.b`, since b may be a module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.package.split(".")[: len(module.package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_in(name: str, *rooms: str) -> bool:
    """Is a dotted name one of these modules, or below one?"""
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def broken_arrows(module: Module) -> Iterator[str]:
    """One sentence for each import that a room may not have."""
    name = module.name
    for imported in imports(module):
        top = imported.partition(".")[0]
        if is_in(name, "observability") and top == "proxy":
            yield f"{name} imports {imported}: observability never imports proxy"
        if is_in(name, "observability.wire"):
            own = imported in {"observability", "observability.wire"} or is_in(imported, "observability.wire")
            if not own and top not in sys.stdlib_module_names:
                yield f"{name} imports {imported}: observability.wire imports only the standard library"
        knows_aiohttp = any(fnmatchcase(name, room) for room in AIOHTTP_ROOMS)
        if is_in(name, "proxy", "observability") and top == "aiohttp" and not knows_aiohttp:
            yield f"{name} imports {imported}: it must not know that the server is aiohttp"
        if is_in(name, "proxy.admin") and is_in(imported, "proxy.pipeline", "proxy.upstream", "proxy.relay"):
            yield f"{name} imports {imported}: admin stays away from the data plane"
        root = next((root for root in COMPOSITION_ROOTS if is_in(imported, root)), None)
        if root not in {None, name} and (name, root) not in ROOT_OF_ROOT:
            yield f"{name} imports {imported}: nobody imports a composition root"
        if is_in(name, "proxy", "observability") and top in {"tests", "benchmarks"}:
            yield f"{name} imports {imported}: the product does not know its tests"


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def compiled_names() -> set[str]:
    """Modules that setup.py lists."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    values = {ast.unparse(node.target): node.value for node in tree.body if isinstance(node, ast.AnnAssign)}
    groups = ast.literal_eval(values["COMPILED"] or "").values()
    return {path.removesuffix(".py").replace("/", ".") for group in groups for path in group}


COMPILED = compiled_names()
RECURSES = {
    ("proxy.headers", "request_head"): "once, with lines that name nothing any more",
    ("observability.observer.otlp", "any_value"): "as deep as orjson reads, 1024; 30,000 were tried",
}


_WAITS = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)


def misread_by_the_compiler(module: Module) -> Iterator[str]:
    """One sentence for each thing that mypyc 2.4 does otherwise than Python."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler | ast.Try):
            handling = node.body if isinstance(node, ast.ExceptHandler) else node.finalbody
            if any(isinstance(inner, _WAITS) for statement in handling for inner in ast.walk(statement)):
                yield f"{module.name}:{node.lineno}: while it waits, what it handles is everybody's exception"
        if isinstance(node, ast.Try):
            inside = [inner for statement in node.finalbody for inner in ast.walk(statement)]
            bound = {inner.id for inner in inside if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)}
            for test in (inner for inner in inside if isinstance(inner, ast.Compare)):
                local = isinstance(test.left, ast.Name) and test.left.id not in bound
                if local and ast.unparse(test).endswith((" is None", " is not None")):
                    yield f"{module.name}:{test.lineno}: a finally takes it for what it is where the try succeeds"
    for function in functions(module):
        own = {function.name, f"self.{function.name}"}
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
        if (module.name, function.name) not in RECURSES and any(ast.unparse(call.func) in own for call in calls):
            yield f"{module.name}.{function.name} calls itself, and nobody counts how deep"
        steps = any(ast.unparse(call.func) == "next" and len(call.args) == 1 for call in calls)
        if steps and isinstance(function, ast.AsyncFunctionDef):
            yield f"{module.name}.{function.name}: StopIteration ends it as a return would"


def constants_made_code() -> set[tuple[str, str]]:
    """Module and name of what the compiler writes into code wherever it is used: to set the name changes nothing."""
    final = {
        (module.name, ast.unparse(node.target))
        for module in MODULES
        for node in module.tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).startswith("Final")
    }
    made = {(module, name) for module, name in final if module in COMPILED}
    for module in MODULES:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and module.name in COMPILED:
                taken = {(node.module or "", alias.name) for alias in node.names} & final
                made |= taken | {(module.name, name) for _, name in taken}
    return made


def constants_set(test: Module) -> Iterator[tuple[str, str]]:
    """Module and name of what a test sets with `monkeypatch`."""
    modules: dict[str, str] = {}
    for node in ast.walk(test.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            base = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            modules |= {alias.asname or alias.name: base + alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "monkeypatch.setattr":
            strings = [
                one.value for one in node.args[:2] if isinstance(one, ast.Constant) and isinstance(one.value, str)
            ]
            if strings:
                module, _, name = strings[0].rpartition(".")
                yield module or modules.get(ast.unparse(node.args[0]), ""), name


def test_what_is_compiled_does_what_it_says() -> None:
    assert {module.name for module in MODULES} >= COMPILED
    assert not [said for module in MODULES if module.name in COMPILED for said in misread_by_the_compiler(module)]


def test_no_test_sets_a_constant_that_is_compiled() -> None:
    tests = [read(path) for path in sorted((ROOT / "tests").rglob("*.py"))]
    assert not {one for test in tests for one in constants_set(test)} & constants_made_code()


@pytest.mark.parametrize(
    ("source", "misread"),
    [
        ("try:\n    x = f()\nfinally:\n    if x is not None:\n        x.close()", True),
        ("try:\n    f()\nfinally:\n    x = g()\n    if x is None:\n        h()", False),
        ("async def f(x):\n    try:\n        g()\n    finally:\n        await x", True),
        ("async def f(x):\n    try:\n        g()\n    except OSError:\n        await x\n        raise", True),
        ("async def f(x):\n    try:\n        await x\n    except OSError:\n        g()", False),
        ("def f(x):\n    return [f(y) for y in x]", True),
        ("class A:\n    def f(self):\n        self.f()", True),
        ("class A:\n    def f(self):\n        super().f()", False),
        ("async def f(x):\n    return next(x)", True),
        ("async def f(x):\n    return next(x, None)", False),
    ],
)
def test_what_would_be_misread_is_noticed(source: str, misread: bool) -> None:
    assert bool(list(misread_by_the_compiler(parse("proxy.x", source)))) is misread


def test_modules_are_short() -> None:
    long = {module.name: module.lines for module in MODULES if module.lines > MODULE_LINES_MAX}
    assert not long


def test_functions_are_short() -> None:
    long = {
        f"{module.name}.{function.name}": length
        for module in MODULES
        for function in functions(module)
        if (length := (function.end_lineno or function.lineno) - function.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert not long


def test_arrows() -> None:
    assert not [complaint for module in MODULES for complaint in broken_arrows(module)]


def test_every_module_says_what_it_is_for() -> None:
    assert not [module.name for module in MODULES if module.tree.body and not ast.get_docstring(module.tree)]


def test_classes_have_names_that_say_something() -> None:
    classes = (node.name for module in MODULES for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef))
    assert not [name for name in classes if name.endswith(WORDS_THAT_SAY_NOTHING)]


@pytest.mark.parametrize(
    ("name", "source", "broken"),
    [
        ("observability.emitter", "import proxy.errors", True),
        ("observability.emitter", "import proxyprotocol", False),
        ("observability.wire.sse", "import orjson", True),
        ("observability.wire.sse", "from observability.wire.base import Scanner", False),
        ("observability.wire.sse", "from .base import Scanner\nimport re", False),
        ("observability.wire.sse", "from ..findings import Findings", True),
        ("proxy.pipeline", "def f():\n    from aiohttp import web", True),
        ("proxy.edge", "from aiohttp import web", False),
        ("proxy.admin.api", "from aiohttp import web", False),
        ("proxy.admin.api", "from proxy import relay", True),
        ("proxy.admin.api", "from proxy.upstream.pool import Pool", True),
        ("proxy.handler", "from proxy import worker", True),
        ("proxy.handler", "from . import worker", True),
        ("proxy.cli", "from proxy.serve import serve", False),
        ("proxy.cli", "from proxy.supervisor import Supervisor", True),
        ("proxy.limits", "from tests.fakes import upstream", True),
        ("benchmarks.load", "import aiohttp", False),
    ],
)
def test_the_arrows_are_noticed(name: str, source: str, broken: bool) -> None:
    assert bool(list(broken_arrows(parse(name, source)))) is broken
