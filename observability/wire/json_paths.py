"""Which values of a JSON document are wanted, compiled for `observability.wire.json_fields`.

A set of paths becomes a tree of nodes, one for each place of the document that must be looked into. Every node has one
regular expression that jumps over complete members that nobody wants, small ones, many at once: a document of a
million small members costs 30 ns for each of them, not the 1.5 µs of a walk in Python.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

Path = tuple[str, ...]
"""Keys from the top; `*` stands for every element of an array."""

KEY_BYTES_MAX = 256
"""Of one key as written. A wanted key has at most 42 bytes, so written all in \\u escapes it still fits."""

SPACE = rb"[ \t\n\r]*+"
# Strings longer than this go to bytes.find, which is 20 times as fast as the expression from about there on.
STRING = rb'"[^"\\]{0,256}+(?:\\.[^"\\]{0,256}+){0,64}+"'
SCALAR = rb"[-+.0-9A-Za-z]"
# N and I: Python servers write NaN and Infinity.
SCALAR_START = rb"[-0-9tfnNI]"
# A string may follow only a comma, a colon or an opener, a colon only a string: elsewhere lenient parsers take a quote
# for a letter, and what is a string to us is structure to them. Scalars up to the last comma are one step, and so are
# those behind it: a step for each would look for a comma that often, in time that grows with the square.
ATOMS = (
    STRING
    + SPACE
    + rb"(?::|(?=[,\]}]))"
    + rb"|(?>[-+.,0-9A-Za-z \t\n\r]*,)"
    + rb'|[ \t\n\r]++(?=")'
    + rb'|[-+.0-9A-Za-z \t\n\r]++(?!")'
)
LEAF = rb"\{(?:" + ATOMS + rb")*+\}|\[(?:" + ATOMS + rb")*+\]"
"""A container without containers in it."""


_FOLDED_TO = {b"k": "\u212a".encode(), b"s": "\u017f".encode()}
# The Kelvin sign and the long s: the two characters beyond ASCII that folding (Go's, Python's) makes ASCII letters.


def folded(key: bytes) -> bytes:
    """A key as servers compare it that make no difference between small and capital letters; in UTF-8."""
    if not key.isascii():
        for letter, other in _FOLDED_TO.items():
            key = key.replace(other, letter)
    return key.lower()


def _in_any_case(keys: Iterable[bytes]) -> bytes:
    """An expression for all keys that are `folded` to one of these."""
    alternatives = []
    firsts = set()
    for key in map(folded, keys):
        letters = [key[at : at + 1] for at in range(len(key))]
        alternatives.append(b"".join(map(_letter_in_any_case, letters)))
        firsts |= {
            letter for first in letters[:1] for letter in (first, first.upper(), _FOLDED_TO.get(first, first)[:1])
        }
    # Most keys are told by their first byte, in half the time that the alternatives take.
    guard = b"(?=[%b])" % b"".join(map(re.escape, sorted(firsts))) if b"" not in alternatives else b""
    return b"%b(?:%b)" % (guard, b"|".join(alternatives))


def _letter_in_any_case(letter: bytes) -> bytes:
    if not letter.isalpha():
        return re.escape(letter)
    either = b"[%b%b]" % (letter, letter.upper())
    return b"(?:%b|%b)" % (either, _FOLDED_TO[letter]) if letter in _FOLDED_TO else either


class Field(NamedTuple):
    """A value found at a wanted path."""

    path: Path
    indices: tuple[int, ...]
    """The position in the array for each `*` of the path."""
    raw: bytes | None
    """The value as written; None where it is larger than what may be held."""
    start: int
    """Offset of its first byte in the stream."""
    end: int
    """Offset after its last byte."""


class Node:
    """What is wanted at and below one place of the document."""

    __slots__ = ("counted", "elements", "keys", "members", "path")

    def __init__(self) -> None:
        self.path: Path | None = None
        self.counted: Path | None = None
        self.keys: dict[bytes, Node] = {}
        self.elements: Node | None = None
        self.members: re.Pattern[bytes] = re.compile(b"")

    def child(self, step: str) -> "Node":
        """The node one step below, made if it is not there."""
        if step == "*":
            self.elements = self.elements or Node()
            return self.elements
        return self.keys.setdefault(step.encode(), Node())

    def compile(self, *, top: bool = False) -> None:
        """Make the expression that jumps over complete members nobody wants, small ones, many at once.

        At the `top` it stops at keys that are wanted in other letters, too: see `JsonFields.lookalikes`.
        """
        wanted = _in_any_case(self.keys) if top else b"|".join(map(re.escape, self.keys))
        self.members = re.compile(
            rb"(?:%(space)b\"(?!(?:%(wanted)b)\")[^\"\\]{0,256}+\"%(space)b:%(space)b"
            rb"(?:%(string)b|%(first)b%(scalar)b{0,64}+|%(leaf)b)%(space)b,)*+"
            % {
                b"space": SPACE,
                b"wanted": wanted,
                b"string": STRING,
                b"first": SCALAR_START,
                b"scalar": SCALAR,
                b"leaf": LEAF,
            },
            re.DOTALL,
        )
        for node in self.keys.values():
            node.compile()
        if self.elements is not None:
            self.elements.compile()


class Paths:
    """A set of wanted paths, prepared once and shared by scanners.

    `paths` are the values to capture, `counted` the arrays whose elements are counted. A captured value that is an
    object is looked into instead, where a path goes on below it by a key; an array cannot be both (ValueError).
    """

    __slots__ = ("lookalikes", "paths", "root")

    def __init__(self, paths: Iterable[Path], counted: Iterable[Path] = ()) -> None:
        self.paths: tuple[Path, ...] = tuple(paths)
        """The captured ones."""
        self.root = Node()
        for path in self.paths:
            self._node(path).path = path
        for path in counted:
            self._node(path).counted = path
        self._check(self.root)
        self.root.compile(top=True)
        self.lookalikes = {folded(key): key.decode() for key in self.root.keys}
        """The top-level keys, by what `folded` makes of them."""

    def _node(self, path: Path) -> Node:
        if not path or any(len(step.encode()) > KEY_BYTES_MAX // 6 for step in path):
            raise ValueError(f"path {path!r}: 1 or more keys of at most {KEY_BYTES_MAX // 6} bytes")
        node = self.root
        for step in path:
            node = node.child(step)
        return node

    def _check(self, node: Node) -> None:
        if node.path is not None and (node.elements is not None or node.counted is not None):
            raise ValueError(f"path {node.path!r} is captured and also looked into")
        for child in (*node.keys.values(), *([node.elements] if node.elements is not None else [])):
            self._check(child)
