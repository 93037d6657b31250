"""YAML text to plain values, and what is wrong with it in the words of somebody who did not write a parser.

The parser's own sentences name its states ("expected <block end>"); people look for the bracket, the quote or the tab.
The lines that it would print with them are left out: they may hold secrets.
"""

import re
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError

from proxy.config.complaints import Complaint, ConfigError

_RIGHT: Final = "check indentation, quotes and brackets there; texts with ': ', '#' or '{', or from '*' on, need quotes"

# words of the parser's context and problem, what is wrong, what would be right, whether the place is where it began
_WORDS: Final[tuple[tuple[str, str, str, bool], ...]] = (
    ("found unexpected end of stream", "a quote is opened and not closed", "close it", True),
    ("while parsing a flow sequence", "a bracket [ is opened and not closed", "close it, with commas between", True),
    ("while parsing a flow mapping", "a brace { is opened and not closed", "close it, with commas between", True),
    (
        "mapping values are not allowed",
        "a ': ' stands where none can be",
        "indent as the line above, or use quotes",
        False,
    ),
    (r"found character '\t'", "a tab stands where a text or indentation is due", "indent with spaces", False),
    ("that cannot start any token", "a text begins with a character of YAML's own", "put it in quotes", False),
    ("found undefined alias", "a text begins with *", 'put it in quotes: "*.example.com"', False),
    ("could not determine a constructor", "a text begins with !", "put it in quotes", False),
    ("but found another document", "a second document begins", "keep one, and leave --- out", False),
    ("could not find expected ':'", "a key has no ': ' behind it", "write key: value", True),
    ("expected <block end>", "the indentation does not fit the lines above", "indent entries of one list alike", False),
)


def plain_values(text: str, where: Path | str) -> Any:
    """The values of a YAML text. Raises ConfigError with one complaint, whose path is `where`, the name of the file."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        problem, right = _told(error)
    except YAMLError as error:
        problem, right = f"not YAML: {str(error).splitlines()[0] if str(error) else 'unreadable'}", _RIGHT
    except ValueError:  # a timestamp such as 2026-13-45
        problem, right = "not YAML: a date or a number that is none", "put it in quotes"
    except RecursionError:
        problem, right = "it is nested too deeply", _RIGHT
    raise ConfigError([Complaint(str(where), problem, right)])


def _told(error: MarkedYAMLError) -> tuple[str, str]:
    """What is wrong, with its line and column, and what would be right."""
    if isinstance(error, DuplicateKeyError):
        key = re.search(r'duplicate key "([^"]*)"', str(error.problem))
        what = f"the key {key.group(1)} stands there twice" if key else "a key stands there twice"
        return _placed(what, error.problem_mark), "keep one of the two"
    said = f"{error.context or ''}: {error.problem or ''}"
    for words, wrong, right, begun in _WORDS:
        if words in said:
            mark = error.context_mark if begun else None
            return _placed(f"not YAML: {wrong}", mark or error.problem_mark or error.context_mark), right
    return _placed(f"not YAML: {error.problem or error.context}", error.problem_mark or error.context_mark), _RIGHT


def _placed(what: str, mark: StringMark | None) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}" if mark is not None else what
