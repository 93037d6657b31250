"""The composers of each protocol's streams; which one an operation has is in `COMPOSERS`."""

from typing import Any, Final

import orjson

from observability.content.compose import PART_BYTES, PARTS_MAX, Composer
from observability.content.keepers import Limits
from observability.content.pieces import Grown, Pieces
from observability.scanners.base import WHOLE_BYTES_MAX, index_of, kind_of, text_of


class _Tool:
    """A call of a tool: its arguments come as text, in deltas."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self, limits: Limits) -> None:
        self.id: str | None = None
        self.name: str | None = None
        self.arguments = Pieces(limits)

    def add(self, call: dict[str, Any]) -> int:
        """A delta. Names come whole; some servers repeat them."""
        self.id = text_of(call.get("id")) or self.id
        function = call.get("function")
        if not isinstance(function, dict):
            return 0
        self.name = text_of(function.get("name")) or self.name
        return self.arguments.add(function.get("arguments"))

    def answer(self, mark: bytes) -> dict[str, Any]:
        """As the protocol has it."""
        return {"id": self.id, "function": {"name": self.name, "arguments": self.arguments.text(mark)}}


class _Choice:
    __slots__ = ("content", "finish", "reasoning", "role", "tools")

    def __init__(self, limits: Limits) -> None:
        self.role = "assistant"
        self.content = Pieces(limits)
        self.reasoning = Pieces(limits)
        self.tools: dict[int, _Tool] = {}
        self.finish: str | None = None


class ChatComposer(Composer):
    """OpenAI's `chat.completions` and `completions`."""

    __slots__ = ("_choices",)

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._choices: dict[int, _Choice] = {}

    def _event(self, name: bytes, document: dict[str, Any]) -> int:
        choices = document.get("choices")
        held = 0
        for position, said in enumerate(choices if isinstance(choices, list) else ()):
            if not isinstance(said, dict):
                continue
            index = index_of(said, position)
            choice = self._choices.get(index)
            if choice is None:
                if len(self._choices) >= PARTS_MAX:
                    continue
                choice = self._choices[index] = _Choice(self._limits)
                held += PART_BYTES
            choice.finish = text_of(said.get("finish_reason")) or choice.finish
            delta = said.get("delta")
            if isinstance(delta, dict):
                held += self._delta(choice, delta)
            elif "text" in said:
                held += choice.content.add(said["text"])
        return held

    def _delta(self, choice: _Choice, delta: dict[str, Any]) -> int:
        content = delta.get("content")
        held = choice.content.add(content) if content else 0
        if len(delta) == 1 and "content" in delta:  # as nearly always
            return held
        held += choice.content.add(delta.get("refusal"))
        if (reasoning := delta.get("reasoning_content") or delta.get("reasoning")) is not None:
            held += choice.reasoning.add(reasoning)
        audio = delta.get("audio")
        if isinstance(audio, dict):
            held += choice.content.add(audio.get("transcript"))
        calls = delta.get("tool_calls")
        for position, call in enumerate(calls if isinstance(calls, list) else ()):
            if not isinstance(call, dict):
                continue
            index = index_of(call, position)
            tool = choice.tools.get(index)
            if tool is None:
                if len(choice.tools) >= PARTS_MAX:
                    continue
                tool = choice.tools[index] = _Tool(self._limits)
                held += PART_BYTES
            held += tool.add(call)
        return held

    def _answer(self) -> dict[str, Any]:
        mark = self._limits.mark
        if not self._choices:
            return {}
        return {
            "choices": [
                {
                    "index": index,
                    "message": {
                        "role": choice.role,
                        "content": choice.content.text(mark),
                        "reasoning_content": choice.reasoning.text(mark),
                        "tool_calls": [tool.answer(mark) for _, tool in sorted(choice.tools.items())],
                    },
                    "finish_reason": choice.finish,
                }
                for index, choice in sorted(self._choices.items())
            ]
        }

    def _forget(self) -> None:
        self._choices.clear()


class ResponsesComposer(Composer):
    """OpenAI's `responses`: items come in deltas and then whole, and at last the whole answer."""

    __slots__ = ("_deltas", "_items", "_status")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._items: dict[int, dict[str, Any]] = {}
        self._deltas: dict[tuple[int, str], Pieces] = {}
        self._status: str | None = None

    def _event(self, name: bytes, document: dict[str, Any]) -> int:
        kind = kind_of(name, document)
        index = index_of({"index": document.get("output_index")}, 0)
        if kind.endswith(".delta"):
            key = index, kind
            deltas = self._deltas.get(key)
            if deltas is not None:
                return deltas.add(document.get("delta"))
            if len(self._deltas) >= PARTS_MAX:
                return 0
            deltas = self._deltas[key] = Pieces(self._limits)
            return deltas.add(document.get("delta")) + PART_BYTES + len(kind)
        if kind in ("response.output_item.added", "response.output_item.done"):
            item = document.get("item")
            if isinstance(item, dict) and (index in self._items or len(self._items) < PARTS_MAX):
                self._items[index] = {**item, "done": kind.endswith("done")}
                return _size(item)
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            response = document.get("response")
            if isinstance(response, dict):
                self._status = kind
                if isinstance(response.get("output"), list) or response.get("error"):
                    self._document = response
                    return WHOLE_BYTES_MAX
        return 0

    def _answer(self) -> dict[str, Any]:
        indices = sorted({*self._items, *(index for index, _ in self._deltas)})
        if not indices:
            return {}
        return {"output": [self._item(index) for index in indices]}

    def _item(self, index: int) -> dict[str, Any]:
        item = self._items.get(index, {"type": "message"})
        if item.get("done"):
            return item
        mark = self._limits.mark
        said = {kind: pieces.text(mark) for (at, kind), pieces in self._deltas.items() if at == index}
        texts = [text for kind, text in said.items() if kind.startswith(("response.output_text", "response.refusal"))]
        match item.get("type"):
            case "message":
                return {**item, "content": [{"type": "output_text", "text": text} for text in texts]}
            case "reasoning":
                return {**item, "summary": [{"type": "summary_text", "text": text} for text in said.values()]}
            case _:
                arguments = next((text for kind, text in said.items() if "arguments" in kind or "input" in kind), "")
                return {**item, "arguments": arguments}

    def _forget(self) -> None:
        self._items.clear()
        self._deltas.clear()


class _Block:
    __slots__ = ("begun", "deltas")

    def __init__(self, begun: dict[str, Any], limits: Limits) -> None:
        self.begun = begun
        self.deltas = Pieces(limits)


_DELTA_OF = {"text": "text", "thinking": "thinking", "tool_use": "input", "server_tool_use": "input"}


class MessagesComposer(Composer):
    """Anthropic's `messages`."""

    __slots__ = ("_blocks", "_stop")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._blocks: dict[int, _Block] = {}
        self._stop: str | None = None

    def _event(self, name: bytes, document: dict[str, Any]) -> int:
        kind = kind_of(name, document)
        if kind == "content_block_delta":
            delta, block = document.get("delta"), self._blocks.get(index_of(document, 0))
            if block is None or not isinstance(delta, dict):
                return 0
            return block.deltas.add(delta.get("text") or delta.get("thinking") or delta.get("partial_json"))
        if kind == "content_block_start":
            begun = document.get("content_block")
            if isinstance(begun, dict) and len(self._blocks) < PARTS_MAX:
                self._blocks[index_of(document, len(self._blocks))] = _Block(begun, self._limits)
                return _size(begun)
        elif kind == "message_delta":
            delta = document.get("delta")
            if isinstance(delta, dict):
                self._stop = text_of(delta.get("stop_reason")) or self._stop
        return 0

    def _answer(self) -> dict[str, Any]:
        if not self._blocks:
            return {}
        content = []
        for _, block in sorted(self._blocks.items()):
            key = _DELTA_OF.get(str(block.begun.get("type")))
            if key is None or not block.deltas:
                content.append(block.begun)
            else:
                content.append({**block.begun, key: block.deltas.text(self._limits.mark)})
        return {"role": "assistant", "content": content, "stop_reason": self._stop}

    def _forget(self) -> None:
        self._blocks.clear()


OTHERS_MAX: Final = 16
"""Images and the like of one choice. Each event that repeats them is compared with all: 128 cost 0.1 µs a byte."""


class _Generated:
    __slots__ = ("content", "finish", "others", "reasoning", "tools")

    def __init__(self, limits: Limits) -> None:
        self.content = Grown(limits)
        self.reasoning = Grown(limits)
        self.tools: dict[int, tuple[dict[str, Any], Grown]] = {}
        self.others: list[dict[str, Any]] = []
        self.finish: str | None = None


class GenerationComposer(Composer):
    """DashScope's generations: text and parts of a message, in deltas or whole so far."""

    __slots__ = ("_choices",)

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._choices: dict[int, _Generated] = {}

    def _event(self, name: bytes, document: dict[str, Any]) -> int:
        if document.get("code"):
            self._error = document
            return 0
        output = document.get("output")
        if not isinstance(output, dict):
            return 0
        choices = output.get("choices")
        if not isinstance(choices, list):
            choices = [{"message": {"content": output.get("text")}, "finish_reason": output.get("finish_reason")}]
        held = 0
        for position, said in enumerate(choices):
            message = said.get("message") if isinstance(said, dict) else None
            if isinstance(message, dict):
                held += self._said(index_of(said, position), message, said.get("finish_reason"))
        return held

    def _said(self, index: int, message: dict[str, Any], reason: object) -> int:
        held = 0
        choice = self._choices.get(index)
        if choice is None:
            if len(self._choices) >= PARTS_MAX:
                return 0
            choice = self._choices[index] = _Generated(self._limits)
            held += PART_BYTES
        if reason != "null":
            choice.finish = text_of(reason) or choice.finish
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                if not isinstance(part, dict):
                    continue
                if "text" in part:
                    held += choice.content.add(part["text"])
                elif len(choice.others) < OTHERS_MAX and part not in choice.others:
                    choice.others.append(part)
                    held += _size(part)
        else:
            held += choice.content.add(content)
        held += choice.reasoning.add(message.get("reasoning_content"))
        calls = message.get("tool_calls")
        for position, call in enumerate(calls if isinstance(calls, list) else ()):
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and len(choice.tools) < PARTS_MAX:
                at = index_of(call, position)
                if at not in choice.tools:
                    choice.tools[at] = {}, Grown(self._limits)
                    held += PART_BYTES
                begun, arguments = choice.tools[at]
                for key, value in (("id", call.get("id")), ("name", function.get("name"))):
                    begun[key] = text_of(value) or begun.get(key)
                held += arguments.add(function.get("arguments"))
        return held

    def _answer(self) -> dict[str, Any]:
        if not self._choices:
            return {}
        mark = self._limits.mark
        choices = []
        for index, choice in sorted(self._choices.items()):
            content: list[dict[str, Any]] = [{"text": choice.content.text(mark)}] if choice.content else []
            message: dict[str, Any] = {"role": "assistant", "content": content + choice.others}
            if choice.reasoning:
                message["reasoning_content"] = choice.reasoning.text(mark)
            message["tool_calls"] = [
                {"id": begun.get("id"), "function": {"name": begun.get("name"), "arguments": arguments.text(mark)}}
                for begun, arguments in choice.tools.values()
            ]
            choices.append({"index": index, "message": message, "finish_reason": choice.finish})
        return {"output": {"choices": choices}}

    def _forget(self) -> None:
        self._choices.clear()


class LastComposer(Composer):
    """Streams whose last word has all that matters: images, transcripts. Deltas of text until it comes."""

    __slots__ = ("_last", "_text")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._last: dict[str, Any] = {}
        self._text = Pieces(limits)

    def _event(self, name: bytes, document: dict[str, Any]) -> int:
        kind = kind_of(name, document)
        if kind.endswith((".done", ".completed")):
            self._last = document
        elif kind.endswith(".delta"):
            return self._text.add(document.get("delta"))
        return 0

    def _answer(self) -> dict[str, Any]:
        return self._last or ({"text": self._text.text(self._limits.mark, cut=True)} if self._text else {})

    def _forget(self) -> None:
        self._last = {}
        self._text = Pieces(self._limits)


def _size(value: dict[str, Any]) -> int:
    """What is held of a part that came whole: once or twice in a stream."""
    return len(orjson.dumps(value))


COMPOSERS: dict[tuple[str, str], type[Composer]] = {
    ("openai", "chat.completions"): ChatComposer,
    ("openai", "completions"): ChatComposer,
    ("openai", "responses"): ResponsesComposer,
    ("anthropic", "messages"): MessagesComposer,
    ("dashscope", "text-generation"): GenerationComposer,
    ("dashscope", "multimodal-generation"): GenerationComposer,
}
"""By protocol and operation; others have the LastComposer."""
