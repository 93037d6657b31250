"""Takes secrets and personal data out of recorded text: keys and tokens by their formats, passwords by their names,
e-mail addresses, card numbers, phone numbers, and what the `redact` list of the configuration asks for.

Redaction comes before truncation, and sees each text whole as far as it was kept; of a text that was cut on its way
the last MARGIN characters are given up, so that a secret which the cut left without its end does not show its
beginning. Formats without an end (a token, a private key) match however they are cut.

Our own expressions are linear: no two neighbouring repeats can match the same character. Those of `redact` may be
anything, so they run in RE2, which has no backtracking; what it cannot do (look-around, back references) is refused
where the file is checked. A text without the letters that a format needs is not searched for it.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

MARGIN: Final = 4096
"""Characters of a cut text that are given up: as long as the longest secret of one piece, an RSA key of 4096 bits."""
PATTERNS_MAX: Final = 100
PATTERN_CHARACTERS_MAX: Final = 1000
"""Of one expression in `redact`."""
PATTERNS_BYTES_MAX: Final = 65536
"""Of all of them as JSON: a worker says them to its observer in one message."""
REDACTED: Final = "[REDACTED]"

_PROGRAM_BYTES_MAX: Final = 1 << 20
"""Memory of one compiled expression: RE2 refuses what would need more, such as `(x{1000}){1000}`."""

_NAMED: Final = (
    r"api[_-]?key|secret(?:[_-]?(?:access[_-]?)?key)?|passw(?:or)?d|passphrase|access[_-]?key(?:[_-]?(?:id|secret))?"
    r"|(?:auth|access|refresh|session|security|bearer|id)[_-]?token|private[_-]?key|authorization"
)
_SECRET_NAME: Final = re.compile(rf"(?:[\w.-]*(?:[_.-]|(?<=[a-z0-9])(?=[A-Z])))?(?i:{_NAMED})s?")
# What is in quotes goes up to the closing one (of a text that is JSON itself: the escaped one), or its line's end: a
# passphrase has spaces. Without quotes it ends where a value may.
_QUOTED: Final = "|".join(
    rf"(?<=[^\\]{quote})(?:[^{quote}\\\r\n]++|\\.)++|(?<=\\{quote})[^{quote}\\\r\n]++" for quote in "\"'"
)
_NAMED_VALUE: Final = (
    rf"((?:{_NAMED})\\{{0,3}}[\"']?\s{{0,4}}[:=]\s{{0,4}}(?:\\{{0,3}}[\"'])?)"
    rf"(?:{_QUOTED}|(?<![\"'])(?![\[{{\"'])[^\s\"'\\,;&}}\])]{{4,}}+)"
)
_NAMED_LOWER: Final = re.compile(_NAMED_VALUE)
_NAMED_ANY: Final = re.compile(_NAMED_VALUE, re.IGNORECASE)
# The first on a text in lower case takes 40 ns a character, the second 175: it has a set of first letters.


def _edge(word: str) -> str:
    """Where something begins: behind nothing of `word`, or behind what is an escape in a text within JSON or a URL."""
    return rf"(?:(?<![{word}])|(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{{4}})|(?<=%[0-9A-Fa-f]{{2}}))"


_EDGE: Final = _edge("A-Za-z0-9")


class _Format(NamedTuple):
    """One kind of thing to take out."""

    needs: tuple[str, ...]
    """One of these is in any text that has it, in lower case."""
    pattern: "re.Pattern[str]"
    put: str | Callable[["re.Match[str]"], str]


def _of(needs: str, pattern: str, put: str | Callable[["re.Match[str]"], str] = REDACTED, flags: int = 0) -> _Format:
    return _Format(tuple(needs.split()), re.compile(pattern, flags), put)


_GROUPED: Final = re.compile(
    r"(?<![0-9])(?:[0-9]{13,19}|[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3}(?![0-9]))?"
    r"|[0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5})(?![0-9])"
)
"""As cards are written: an expiry date or a check value may follow, or something else go before."""
_CARD_DIGITS: Final = range(13, 20)


def _card(match: "re.Match[str]") -> str:
    """A row of digits without the numbers of cards in it."""
    row = match.group()
    return REDACTED if _is_card(row) else _GROUPED.sub(_one_card, row)


def _one_card(match: "re.Match[str]") -> str:
    text = match.group()
    for end in (len(text), 19):  # three more digits are its own, or its check value
        if _is_card(text[:end]):
            return REDACTED + text[end:]
    return text


def _is_card(text: str) -> bool:
    """A number that passes the check of Luhn (ISO/IEC 7812) and begins as a card's does."""
    if len(text) > 2 * _CARD_DIGITS.stop:
        return False
    digits = [int(character) for character in text if character.isdecimal()]
    if len(digits) not in _CARD_DIGITS or digits[0] not in (2, 3, 4, 5, 6):
        return False
    if (len(digits) == 13 and digits[0] != 4) or digits[:2] == [2, 0]:  # milliseconds since 1970, a row of years
        return False
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


_FORMATS: Final = (
    _of(
        "private",
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)",
        flags=re.DOTALL,
    ),
    _of("sk-", _EDGE + r"sk-[A-Za-z0-9_-]{6,}+"),
    _of("akia asia aroa aida", _EDGE + r"(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}+"),
    _of("ltai", _EDGE + r"LTAI[A-Za-z0-9]{8,}+"),
    _of("aiza", _EDGE + r"AIza[A-Za-z0-9_-]{20,}+"),
    _of(
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- xox hf_ k_live_ k_test_ gsk_ xai- pplx- nvapi-",
        _EDGE
        + r"(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|hf_|[prs]k_(?:live|test)_|gsk_|xai-|pplx-|nvapi-)"
        + r"[A-Za-z0-9_-]{8,}+",
    ),
    _of("eyj", _EDGE + r"eyJ[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+){1,4}"),
    _of(
        "bearer",
        _EDGE + r"(bearer)\s{1,4}(?=[A-Za-z]{0,256}[0-9._~+/=-])[A-Za-z0-9._~+/=-]{6,}+",
        rf"\1 {REDACTED}",
        re.IGNORECASE,
    ),
    _of(
        "authorization",
        r"(authorization\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?)[^\"'\r\n\\]{3,}+",
        rf"\1{REDACTED}",
        re.IGNORECASE,
    ),
    _of(
        "token",
        _EDGE + r"(token\\{0,3}[\"']?\s{0,4}[:=]\s{0,4}\\{0,3}[\"']?)[A-Za-z0-9._~+/=-]{16,}+",
        rf"\1{REDACTED}",
        re.IGNORECASE,
    ),
    _of(
        "signature= sig= accesskeyid= token= credential= key=",
        r"((?:[?&#;]|\\u0026)(?:[\w-]{0,20}signature|sig|[\w-]{0,10}accesskeyid|[\w-]{0,20}token|[\w-]{0,20}credential|key)=)"
        r"[^&#\s\"'<>]{3,}+",
        rf"\1{REDACTED}",
        re.IGNORECASE,
    ),
    _of("://", r"(://)[^/@\s:\"']{0,64}+:[^/\s\"']{1,256}@", rf"\1{REDACTED}@"),
    _of("@", r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,256}+@[A-Za-z0-9-]{1,63}+(?:\.[A-Za-z0-9-]{1,63}+){1,8}+"),
)
_NUMBERS: Final = (
    _of("", r"(?<![0-9])[0-9](?:[ -]?[0-9]){12,}+", _card),
    _of("", _edge(r"\w.") + r"\+[1-9](?:[ ().-]{0,2}[0-9]){6,14}+"),
    _of("", r"(?=[+18])" + _edge("0-9A-Za-z.") + r"(?:\+?86[ -]?)?1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}(?![0-9])"),
    _of("", r"(?<![0-9.-])(?:1[-. ])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[-. ])[2-9][0-9]{2}[-. ][0-9]{4}(?![0-9])"),
)
_DIGITS: Final = re.compile(r"[0-9](?:[ ().-]{0,2}[0-9]){6}")
"""No number that is looked for has fewer."""


_SUSPICIOUS: Final = "|".join(
    (
        r"PRIVATE KEY-----|sk-|AKIA|ASIA|AROA|AIDA|LTAI|AIza|gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|hf_",
        r"k_live_|k_test_|gsk_|xai-|pplx-|nvapi-|eyJ|(?i:bearer)|://[^/@:]*:|@[A-Za-z0-9-]+\.",
        r"[0-9](?:[ ().-]{0,2}[0-9]){6}",
        rf"(?i:token|{_NAMED})[^A-Za-z0-9]{{0,12}}[:=]|(?i:signature|sig|accesskeyid|token|credential|key)=",
    )
)
"""In every text of which something is taken out, in RE2's words. Most texts have nothing of it: 4 ns a character."""
KEYS_MAX: Final = 1024
"""Texts that are remembered with what becomes of them: keys, roles and types, which come again in each document."""
_SHORT: Final = 24
"""Characters of such a text."""


_PLAIN: Final = ("", "one 2.\n")
"""In which an expression finds nothing, or something: `\\b` finds that there is a word."""


class PatternError(ValueError):
    """An expression that cannot be used; the text says why, and not the expression."""


def compile_own(pattern: str) -> Any:
    """An expression of `redact`. PatternError where RE2 does not take it, or where it matches nothing at all."""
    import re2  # noqa: PLC0415 - 6 MB, for the few that have expressions of their own

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PROGRAM_BYTES_MAX
    try:
        compiled = re2.compile(pattern, options)
        empty = any(match.end() == match.start() for text in _PLAIN for match in compiled.finditer(text))
    except re2.error as error:
        why = error.args[0] if error.args else b"it is none"
        said = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise PatternError(said.partition(":")[0]) from None  # what follows repeats it
    if empty:
        raise PatternError("it matches the empty text")
    return compiled


class Redaction:
    """What is taken out of texts: the known formats, and a configuration's own expressions."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        """`patterns`: of `redact`. PatternError for one that cannot be used."""
        self._own = [compile_own(pattern) for pattern in patterns]
        self._suspicious = compile_own(_SUSPICIOUS)
        self._known: dict[str, str] = {}

    def text(self, text: str, *, cut: bool = False) -> str:
        """The text without them. `cut`: it went on; what is left may end up to MARGIN characters earlier."""
        known = self._known.get(text)
        if known is not None and not cut:
            return known
        redacted = self._redacted(text)
        if cut:
            return redacted[: max(0, len(redacted) - MARGIN)]
        if len(text) <= _SHORT and len(self._known) < KEYS_MAX:
            self._known[text] = redacted
        return redacted

    def _redacted(self, text: str) -> str:
        for own in self._own:
            text = own.sub(REDACTED, text)
        if self._suspicious.search(text) is not None:
            lowered = text.lower()
            for needs, pattern, put in _FORMATS:
                for need in needs:
                    if need in lowered:
                        text = pattern.sub(put, text)
                        break
            if any(need in lowered for need in ("key", "secret", "passw", "passphrase", "token")):
                text = _without_named(text)
            if _DIGITS.search(text) is not None:
                for _, pattern, put in _NUMBERS:
                    text = pattern.sub(put, text)
        return text


def _without_named(text: str) -> str:
    """The text without what stands behind `password=` and its like."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a letter that is two in lower case: the places would not be the same
        return _NAMED_ANY.sub(rf"\1{REDACTED}", text)
    parts: list[str] = []
    at = 0
    for match in _NAMED_LOWER.finditer(lowered):
        parts += (text[at : match.end(1)], REDACTED)
        at = match.end()
    return "".join((*parts, text[at:])) if parts else text


def is_secret_name(name: str) -> bool:
    """Is a value under this key of a JSON object a secret, whatever it looks like?"""
    return len(name) <= 64 and _is_secret_name(name)


@lru_cache(maxsize=KEYS_MAX)
def _is_secret_name(name: str) -> bool:
    return _SECRET_NAME.fullmatch(name) is not None
