"""Parts of messages, as the conventions have them (gen_ai.input.messages): from the parts of all protocols.

The protocols' shapes do not collide: OpenAI's and Anthropic's parts have a `type`, DashScope's are named by their only
key. Media are blobs without content, with facts beside it: `bytes`, `sha256`, and where known `width` and `height`.
"""

from typing import Any, Final

from observability.wire.media import UNKNOWN_TYPE, Media, MediaDigest, clean_type

Part = dict[str, Any]

_MODALITIES: Final = ("image", "video", "audio")
_TYPED: Final = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
_MEDIA_KEYS: Final = ("image", "video", "audio", "file")


def parts_of(content: Any) -> list[Part]:
    """The parts of the content of one message: a text, a list of parts, one part, a file."""
    if isinstance(content, list):
        return [part for item in content for part in parts_of(item)]
    if isinstance(content, str):
        return [{"type": "text", "content": content}] if content else []
    if isinstance(content, Media):
        return [blob(content)]
    if isinstance(content, dict):
        return _part(content)
    return []


def _part(part: dict[str, Any]) -> list[Part]:
    kind = part.get("type")
    if not isinstance(kind, str):
        return _dashscope(part)
    key = _TYPED.get(kind)
    if key is not None:
        return parts_of(part.get(key))
    match kind:
        case "thinking":
            return [{"type": "reasoning", "content": part.get("thinking", "")}]
        case "redacted_thinking":
            return [{"type": "reasoning", "content": ""}]
        case "reasoning":
            said = parts_of(part.get("summary")) + parts_of(part.get("content"))
            return [{"type": "reasoning", "content": one["content"]} for one in said if one["type"] == "text"]
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            return [tool_call(part.get("id"), part.get("name"), part.get("input"))]
        case "tool_result" | "web_search_tool_result" | "mcp_tool_result":
            return [tool_response(part.get("tool_use_id"), part.get("content"))]
        case "image_url" | "video_url" | "input_audio" | "audio" | "file" | "input_image" | "input_file" | "image":
            return _media_part(kind, part)
        case "document" | "video" | "image_generation_call":
            return _media_part(kind, part)
        case _:
            pass
    return [
        {"type": "generic", "generic_type": kind, "content": {key: item for key, item in part.items() if key != "type"}}
    ]


def _media_part(kind: str, part: dict[str, Any]) -> list[Part]:
    modality = next((name for name in _MODALITIES if name in kind), "document")
    inner = part.get("source") or part.get(kind) or part.get("image_url") or part.get("result") or part
    if not isinstance(inner, dict):
        return _media(inner, "", modality)
    media_type = inner.get("media_type") or (f"audio/{inner['format']}" if inner.get("format") else "")
    if inner.get("type") == "text":
        return parts_of(inner.get("data"))
    for key in ("data", "url", "file_data", "image_url", "file_url"):
        if key in inner:
            return _media(inner[key], media_type, modality)
    file_id = inner.get("file_id") or inner.get("id")
    if isinstance(file_id, str):
        return [{"type": "file", "modality": modality, "file_id": file_id}]
    return parts_of(inner.get("content"))


def _dashscope(part: dict[str, Any]) -> list[Part]:
    said = parts_of(part.get("text"))
    for key in _MEDIA_KEYS:
        value = part.get(key)
        modality = key if key in _MODALITIES else "document"
        if isinstance(value, dict):
            value = value.get("url") or value.get("data")
        for item in value if isinstance(value, list) else [value]:
            if item:
                said += _media(item, "", modality)
    return said


def _media(value: Any, media_type: Any, modality: str) -> list[Part]:
    """A file that is there, or where it is."""
    declared = clean_type(media_type) if isinstance(media_type, str) else ""
    if isinstance(value, Media):
        return [blob(value, declared, modality)]
    if not isinstance(value, str) or not value:
        return []
    digest = MediaDigest(declared)  # base64 too short to be told from text
    digest.feed_base64(value.encode("utf-8", "replace"))
    media = digest.end()
    if "://" in value[:16] or (not media.sha256 and "." in value):  # no base64, but a name
        part: Part = {"type": "uri", "modality": modality, "uri": value}
        return [{**part, "mime_type": declared} if declared else part]
    return [blob(media, declared, modality)]


def blob(media: Media, declared: str = "", modality: str = "document") -> Part:
    """A file as facts; its content is empty, as nothing of it was recorded."""
    media_type = media.media_type
    if media_type == UNKNOWN_TYPE and declared:
        media_type = declared
    shown = media_type.partition("/")[0]
    part: Part = {
        "type": "blob",
        "modality": shown if shown in _MODALITIES else modality,
        "mime_type": media_type,
        "content": "",
        "bytes": media.bytes,
    }
    if media.sha256:
        part["sha256"] = media.sha256
    if media.width:
        part |= {"width": media.width, "height": media.height}
    return part


def tool_call(identity: Any, name: Any, arguments: Any) -> Part:
    """A model asks for a tool."""
    part: Part = {"type": "tool_call", "name": name if isinstance(name, str) else "", "arguments": arguments}
    if isinstance(identity, str):
        part["id"] = identity
    return part


def tool_response(identity: Any, response: Any) -> Part:
    """What a tool answered: text where it is only that, else parts."""
    said = parts_of(response)
    if said and all(part["type"] == "text" for part in said):
        said = said[0]["content"] if len(said) == 1 else "\n".join(part["content"] for part in said)  # type: ignore[assignment]
    part: Part = {"type": "tool_call_response", "response": said or response}
    if isinstance(identity, str):
        part["id"] = identity
    return part
