"""Model names that stand outside the body: in the query of a WebSocket handshake, in the path of a model's own URL.

Pure functions of the request line as received; its length is limited by `max_head_bytes`.
"""

from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from observability.wire.json_fields import VALUE_BYTES_MAX


class ModelName(NamedTuple):
    """What a query or a path says of the model; the names are those of `RequestScanner`."""

    model: str | None
    """A non-empty string of UTF-8, at most 16 KiB."""
    model_seen: bool
    """There is a model, of whatever kind."""
    model_duplicated: bool = False
    """Another one stands behind it: servers may disagree on which one counts."""

    @property
    def model_valid(self) -> bool:
        """The model is one that can be asked for; where it was seen and is not: empty, too large or no UTF-8."""
        return self.model is not None


def model_in_query(query: str) -> ModelName:
    """`?model=…`, percent-decoded, plus as a space: the first one. The question mark may be there or not."""
    found: list[bytes] = []
    for parameter in query.removeprefix("?").split("&"):
        name, _, value = parameter.partition("=")
        if name == "model" or ("%" in name and _decoded(name) == b"model"):
            found.append(_decoded(value.replace("+", " ")))
    if not found:
        return ModelName(None, False)
    return ModelName(_text(found[0]), True, any(other != found[0] for other in found))


def model_in_path(rest: str) -> ModelName:
    """`/v1/models/{model}`: `rest` is what follows `/v1/models`, percent-decoded; names may have slashes (vLLM)."""
    name = rest.removeprefix("/").removesuffix("/")
    return ModelName(_text(_decoded(name)), True) if name else ModelName(None, False)


def _decoded(text: str) -> bytes:
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape"))


def _text(raw: bytes) -> str | None:
    if not 0 < len(raw) <= VALUE_BYTES_MAX:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
