"""Recorded content as OpenInference has it, where a reader of it (Phoenix) would make less of the conventions' own.

Phoenix derives its messages from `gen_ai.input.messages` by itself, but shows a file of which there are only facts as
an image that cannot be opened, and passes over one that has an id alone. So messages with such parts are written out
here, with the facts as text. It lists spans by input and output, and traces by those of their first span, which is none
of a model's: so the last message of each side is there as text, on that one its beginning. What was embedded it takes
from attributes of its own.

Pure: fields of a record in, attributes out. There are as many as the messages have parts, which is what
`content_max_bytes` has room for.
"""

from typing import Any, Final

import orjson

from observability import names

Attributes = dict[str, Any]
PREVIEW_CHARACTERS: Final = 1000
"""Of what the SERVER span repeats: a list shows some fifty, a look at the span all."""
DIGEST_CHARACTERS: Final = 12
"""Of a file's sha256, to tell two apart by."""
NUMBERED: Final = ("llm.input_messages.", "llm.output_messages.", "embedding.embeddings.")
"""How names begin that have numbers in them: too many to be remembered."""

_SIDES: Final = ((names.GEN_AI_INPUT_MESSAGES, "input"), (names.GEN_AI_OUTPUT_MESSAGES, "output"))
_SHOWN: Final = frozenset({"text", "reasoning", "tool_call", "tool_call_response"})


def add_content(fields: dict[str, Any], server: Attributes, client: Attributes) -> None:
    """What was recorded of an exchange, onto both spans; nothing where nothing was."""
    for name, side in _SIDES:
        messages = orjson.loads(fields.get(name, "[]"))
        if not messages:
            continue
        _add_text(server, client, side, _text_of(messages[-1]))
        if side == "input" and fields.get(names.GEN_AI_OPERATION_NAME) == "embeddings":
            _add_embedded(client, messages)
        elif not all(_is_shown(part) for message in messages for part in message["parts"]):
            if side == "input" and names.GEN_AI_SYSTEM_INSTRUCTIONS in fields:
                parts = orjson.loads(fields[names.GEN_AI_SYSTEM_INSTRUCTIONS])
                messages.insert(0, {"role": "system", "parts": parts})
            for number, message in enumerate(messages):
                _add_message(client, f"llm.{side}_messages.{number}", message)
    if names.SLUICEWAY_ERROR_BODY in fields and "output.value" not in client:
        _add_text(server, client, "output", fields[names.SLUICEWAY_ERROR_BODY], "application/json")


def _add_text(server: Attributes, client: Attributes, side: str, text: str, kind: str = "text/plain") -> None:
    """Whole on CLIENT, its beginning on SERVER."""
    if text:
        cut = len(text) > PREVIEW_CHARACTERS
        client |= {f"{side}.value": text, f"{side}.mime_type": kind}
        server[f"{side}.value"] = f"{text[:PREVIEW_CHARACTERS]}…" if cut else text
        server[f"{side}.mime_type"] = "text/plain" if cut else kind


def _add_embedded(client: Attributes, messages: list[Any]) -> None:
    parts = (part for message in messages for part in message["parts"])
    for number, part in enumerate(parts):
        client[f"embedding.embeddings.{number}.embedding.text"] = _said(part)


def _add_message(client: Attributes, place: str, message: dict[str, Any]) -> None:
    """Written out, as Phoenix does it itself where it can."""
    for name in ("role", "name", "finish_reason"):
        if name in message:
            client[f"{place}.message.{name}"] = message[name]
    contents = calls = 0
    for part in message["parts"]:
        kind = part["type"]
        if kind == "tool_call":
            call = f"{place}.message.tool_calls.{calls}.tool_call"
            calls += 1
            client[f"{call}.function.name"] = part["name"]
            client[f"{call}.function.arguments"] = _as_text(part.get("arguments"))
            if "id" in part:
                client[f"{call}.id"] = part["id"]
            continue
        if kind == "tool_call_response" and "id" in part:
            client[f"{place}.message.tool_call_id"] = part["id"]
        content = f"{place}.message.contents.{contents}.message_content"
        contents += 1
        if _is_picture(part):
            client[f"{content}.type"], client[f"{content}.image.image.url"] = "image", part["uri"]
        else:
            client[f"{content}.type"] = "reasoning" if kind == "reasoning" else "text"
            client[f"{content}.text"] = _said(part)


def _is_shown(part: dict[str, Any]) -> bool:
    """Does Phoenix make of it what it is?"""
    return part["type"] in _SHOWN or _is_picture(part)


def _is_picture(part: dict[str, Any]) -> bool:
    return part["type"] == "uri" and part.get("modality") == "image"


def _text_of(message: dict[str, Any]) -> str:
    """What is said, then what is with it."""
    parts = sorted(message["parts"], key=lambda part: part["type"] != "text")
    return "\n".join(_said(part) for part in parts if part["type"] != "reasoning")


def _said(part: dict[str, Any]) -> str:
    """A part as text: what it says, or the facts of it."""
    match part["type"]:
        case "text" | "reasoning":
            return str(part["content"])
        case "tool_call":
            return f"{part['name']}({_as_text(part.get('arguments'))})"
        case "tool_call_response":
            return _as_text(part.get("response"))
        case "uri":
            return str(part["uri"])
        case "file":
            return f"[{part['modality']} {part['file_id']}]"
        case "blob":
            return f"[{', '.join(_facts(part))}]"
        case _:
            return _as_text(part)


def _facts(part: dict[str, Any]) -> list[str]:
    facts = [part["mime_type"], f"{part['bytes']:,} bytes"]
    if "width" in part:
        facts.insert(1, f"{part['width']}x{part['height']}")
    if "sha256" in part:
        facts.append(f"sha256 {part['sha256'][:DIGEST_CHARACTERS]}")
    return facts


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
