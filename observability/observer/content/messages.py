"""Messages of the conventions, from the documents of all protocols: what was asked, and what was answered.

The protocols are told apart by their keys, which do not collide: so servers that mix them (vLLM, DashScope's compatible
mode) are understood too. A request that is no call that is known here is one generic part.
"""

from typing import Any, NamedTuple

from observability.observer.content.parts import Part, blob, parts_of, tool_call, tool_response
from observability.wire.media import Media

Message = dict[str, Any]

_ROLES = frozenset(("system", "developer", "user", "assistant", "tool"))


class Asked(NamedTuple):
    """Of a request."""

    messages: list[Message]
    system: list[Part]
    """Instructions that stand beside the messages."""


def asked(document: Any) -> Asked:
    """What a request says. `document`: as `load` gives it."""
    if isinstance(document, list):  # a form
        return Asked(_user(_form(document)), [])
    if not isinstance(document, dict):
        return Asked(_user(parts_of(document)), [])
    system = parts_of(document.get("system")) + parts_of(document.get("instructions"))
    if isinstance(document.get("messages"), list):
        return Asked(_messages(document["messages"]), system)
    given = document.get("input")
    if isinstance(given, dict):  # DashScope
        if isinstance(given.get("messages"), list):
            return Asked(_messages(given["messages"]), system)
        return Asked(_user(_called(given)), system)
    if isinstance(given, list) and any(isinstance(item, dict) for item in given):  # OpenAI's responses
        return Asked(_messages(given), system)
    called = _called(document)
    if not called and not system and document:
        called = [{"type": "generic", "generic_type": "request", "content": document}]
    return Asked(_user(called), system)


def answered(document: Any, *, whole: bool) -> list[Message]:
    """What an answer says. `whole`: it came to its end."""
    ended = "stop" if whole else "error"
    if isinstance(document, Media):
        return [_said([blob(document)], None, ended)]
    if isinstance(document, str):
        return [_said(parts_of(document), None, ended)]
    if not isinstance(document, dict):
        return []
    output = document.get("output")
    if isinstance(output, dict):  # DashScope
        choices = output.get("choices")
        if not isinstance(choices, list):
            reason = output.get("finish_reason")
            return [_said(said, reason, ended)] if (said := _results(output)) else []
        return _choices(choices, ended)
    if isinstance(output, list):  # OpenAI's responses
        said = [part for message in _messages(output) for part in message["parts"]]
        return [_said(said, document.get("status"), ended)] if said else []
    if isinstance(document.get("choices"), list):
        return _choices(document["choices"], ended)
    if isinstance(document.get("content"), list):  # Anthropic
        return [_said(parts_of(document["content"]), document.get("stop_reason"), ended)]
    said = _results(document)
    return [_said(said, None, ended)] if said else []


def _said(parts: list[Part], reason: Any, ended: str) -> Message:
    # Phoenix drops all messages of an answer that has one without a reason.
    return {
        "role": "assistant",
        "parts": parts,
        "finish_reason": reason if isinstance(reason, str) and reason else ended,
    }


def _choices(choices: list[Any], ended: str) -> list[Message]:
    said = []
    for choice in choices:
        if not isinstance(choice, dict):
            continue
        message = choice.get("message")
        if not isinstance(message, dict):
            message = {"content": choice.get("text")}
        reason = choice.get("finish_reason")
        said.append(_said(_message_parts(message), None if reason == "null" else reason, ended))
    return said


def _messages(messages: list[Any]) -> list[Message]:
    made: list[Message] = []
    for message in messages:
        if not isinstance(message, dict):
            made += _user(parts_of(message))
            continue
        role = message.get("role")
        kind = message.get("type")
        if not isinstance(role, str) and isinstance(kind, str):
            role = "tool" if kind.endswith("_output") else "assistant"
        if role == "function":  # as tools were called at first
            role = "tool"
        one: Message = {"role": role if isinstance(role, str) and role in _ROLES else "user"}
        one["parts"] = _message_parts(message)
        if isinstance(name := message.get("name"), str) and kind is None:
            one["name"] = name
        made.append(one)
    return made


def _message_parts(message: dict[str, Any]) -> list[Part]:
    kind = message.get("type")
    if kind in ("function_call", "custom_tool_call", "mcp_call"):
        called = message.get("arguments") if "arguments" in message else message.get("input")
        return [tool_call(message.get("call_id") or message.get("id"), message.get("name"), called)]
    if isinstance(kind, str) and kind.endswith("_output"):
        return [tool_response(message.get("call_id"), message.get("output"))]
    if isinstance(kind, str) and kind != "message" and "role" not in message:
        return parts_of(message)
    if message.get("role") in ("tool", "function"):
        return [tool_response(message.get("tool_call_id"), message.get("content"))]
    parts: list[Part] = []
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str) and reasoning:
        parts.append({"type": "reasoning", "content": reasoning})
    parts += parts_of(message.get("content")) or parts_of(message.get("refusal"))
    audio = message.get("audio")
    if isinstance(audio, dict):
        parts += parts_of({"audio": audio}) + parts_of(audio.get("transcript"))
    parts += parts_of(message.get("images"))
    calls = message.get("tool_calls")
    for call in (*(calls if isinstance(calls, list) else ()), {"function": message.get("function_call")}):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            parts.append(tool_call(call.get("id"), function.get("name"), function.get("arguments")))
    return parts


def _user(parts: list[Part]) -> list[Message]:
    return [{"role": "user", "parts": parts}] if parts else []


_CALLED = ("prompt", "negative_prompt", "input", "query", "text", "texts", "contents", "documents", "document")
_FILES = {
    "image": (
        *("image", "image_url", "img_url", "images", "base_image_url", "mask", "mask_image_url"),
        *("ref_img", "ref_image_url", "ref_images_url", "first_frame_url", "last_frame_url"),
    ),
    "video": ("video", "video_url", "reference_video_urls"),
    "audio": ("audio", "audio_url", "file", "file_urls"),
}


def _called(call: dict[str, Any]) -> list[Part]:
    """The input of a call that is no conversation: prompts, texts to be embedded or spoken, images to be edited."""
    parts: list[Part] = []
    for key in _CALLED:
        parts += parts_of(call.get(key))
    for modality, keys in _FILES.items():
        for key in keys:
            values = call.get(key)
            for value in values if isinstance(values, list) else [values]:
                if value:
                    parts += parts_of({modality: value})
    return parts


def _form(fields: list[Any]) -> list[Part]:
    """The files of a form, and what is said beside them."""
    parts: list[Part] = []
    for field in fields:
        if isinstance(field, list) and len(field) == 2:
            name, value = field
            if isinstance(value, Media) or name in _CALLED:
                parts += parts_of(value)
    return parts


def _results(output: dict[str, Any]) -> list[Part]:
    """What was made: text, images, speech, an order of documents."""
    parts = parts_of(output.get("text"))
    for key in ("data", "results"):
        results = output.get(key)
        for result in results if isinstance(results, list) else ():
            if isinstance(result, dict) and ("relevance_score" in result or "score" in result):
                parts.append({"type": "generic", "generic_type": "score", "content": result})
            elif isinstance(result, dict) and "embedding" not in result:
                for made in (result.get("b64_json"), result.get("url"), result.get("image")):
                    parts += parts_of({"image": made}) if made else []
                parts += parts_of(result.get("revised_prompt"))
    for modality, key in (("audio", "audio"), ("video", "video_url"), ("image", "image_url"), ("image", "b64_json")):
        if output.get(key):
            parts += parts_of({modality: output[key]})
    return parts
