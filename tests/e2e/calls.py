"""One call of each operation of every protocol, as its clients write it: `CALLS`.

What they lead to is known from the simulated upstream, which answers each of them. Who needs something that was made
before (a task, a file) has it made by another call, whose answer's id takes the place of `{id}` in the path.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

QUESTION = "What lifts a boat over a hill?"
MESSAGES = [{"role": "user", "content": QUESTION}]
SERVICES = "/api/v1/services"
TASK = {"X-DashScope-Async": "enable"}
SSE = {"X-DashScope-SSE": "enable", "Accept": "text/event-stream"}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
WAV = b"RIFF" + bytes(70_000)


@dataclass(frozen=True)
class Call:
    """One request, without the place where the protocol is served."""

    scenario: str
    protocol: str
    operation: str
    gen_ai_operation: str
    path: str
    body: Mapping[str, Any] | None = None
    """As JSON, or as the fields of a form where there are files."""
    files: tuple[tuple[str, str, bytes], ...] = ()
    """Of a form: name, file name and content."""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    streams: Mapping[str, Any] | None = None
    """What more the body says to have a stream; None: it never is one."""
    usage: tuple[str, ...] = ()
    """What its answer must say, under the names of the ledger."""
    output_type: str | None = None
    status: int = 200
    """Of the simulated upstream's answer."""
    after: "Call | None" = None
    """Makes what this one asks for."""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.scenario} {self.protocol} {self.method} {self.path}"

    @property
    def template(self) -> str:
        """The route, as records name it."""
        for root in ROOTS:
            if self.path.startswith(root + "/"):
                return root + "/*"
        return self.path

    @property
    def streaming(self) -> "Call":
        """The same, asking for a stream."""
        assert self.streams is not None
        headers = SSE if self.protocol == "dashscope" else {}
        return replace(self, body={**(self.body or {}), **self.streams}, headers={**self.headers, **headers})

    def request(self) -> dict[str, Any]:
        """What `aiohttp.ClientSession.request` wants, beside method and URL."""
        if self.files:
            form = aiohttp.FormData()
            for name, value in (self.body or {}).items():
                form.add_field(name, str(value).lower() if isinstance(value, bool) else str(value))
            for name, filename, content in self.files:
                form.add_field(name, content, filename=filename, content_type="application/octet-stream")
            return {"data": form}
        return {} if self.body is None else {"json": self.body}


def _openai(
    scenario: str, name: str, gen_ai_operation: str, body: Mapping[str, Any] | None, *usage: str, **more: Any
) -> Call:
    path = "/v1/" + name.replace(".", "/")
    return Call(scenario, "openai", name, gen_ai_operation, path, body, usage=usage, **more)


def _native(
    scenario: str, name: str, path: str, gen_ai_operation: str, body: Mapping[str, Any], *usage: str, **more: Any
) -> Call:
    return Call(scenario, "dashscope", name, gen_ai_operation, f"{SERVICES}/{path}", body, usage=usage, **more)


_TOKENS = ("input_tokens", "output_tokens")
_CHAT = {"model": "qwen-plus", "messages": MESSAGES}
_STREAM = {"stream": True}
_PROMPT = {"prompt": QUESTION}
_GENERATED = "generate_content"

TEXT = [
    _openai("text", "chat.completions", "chat", _CHAT, *_TOKENS, streams=_STREAM),
    _openai("text", "completions", "text_completion", {"model": "qwen-plus", **_PROMPT}, *_TOKENS, streams=_STREAM,
            output_type="text"),
    _openai("text", "responses", "chat", {"model": "gpt-5", "input": QUESTION}, *_TOKENS, streams=_STREAM),
    Call("text", "anthropic", "messages", "chat", "/v1/messages",
         {"model": "claude-sonnet-5", "max_tokens": 64, "messages": MESSAGES}, streams=_STREAM,
         usage=(*_TOKENS, "cache_read_tokens", "cache_creation_tokens")),
    Call("text", "anthropic", "messages.count_tokens", "count_tokens", "/v1/messages/count_tokens",
         {"model": "claude-sonnet-5", "messages": MESSAGES}),
    _native("text", "text-generation", "aigc/text-generation/generation", "chat",
            {"model": "qwen-plus", "input": {"messages": MESSAGES}, "parameters": {"result_format": "message"}},
            *_TOKENS, streams={}),
    _native("text", "multimodal-generation", "aigc/multimodal-generation/generation", "chat",
            {"model": "qwen3-vl-plus", "input": {"messages": [{"role": "user", "content": [{"text": QUESTION}]}]}},
            *_TOKENS, streams={}),
]  # fmt: skip

_TASK = {"model": "wanx-v1", "input": _PROMPT, "parameters": {"n": 2}}
_IMAGE_PATHS = {
    "text2image": "text2image/image-synthesis",
    "image2image": "image2image/image-synthesis",
    "out-painting": "image2image/out-painting",
    "virtual-model": "virtualmodel/generation",
    "background-generation": "background-generation/generation",
    "image-generation": "image-generation/generation",
}
IMAGE_TASKS = [
    _native("image", name, f"aigc/{path}", "generate_content", _TASK, "task_id", headers=TASK, output_type="image")
    for name, path in _IMAGE_PATHS.items()
]
VIDEO_TASKS = [
    _native("video", name, f"aigc/{path}/video-synthesis", "video_generation", _TASK, "task_id", headers=TASK)
    for name, path in (("video-generation", "video-generation"), ("image2video", "image2video"))
]


def _tasks(scenario: str, made: list[Call], *usage: str) -> list[Call]:
    """Tasks are fetched (each kind), listed and changed; PUT, PATCH and DELETE are for the upstream to judge."""
    look = Call(scenario, "dashscope", "tasks", "fetch_task", "/api/v1/tasks/{id}", method="GET")
    made = [replace(one, headers={**one.headers, "x-sim-task-steps": "0"}) for one in made]
    change = replace(look, gen_ai_operation="manage_task", after=made[0])
    return [
        *(replace(look, after=one, usage=("task_id", *usage)) for one in made),
        replace(look, path="/api/v1/tasks"),
        replace(change, path="/api/v1/tasks/{id}/cancel", method="POST"),
        *(replace(change, method=method, status=404) for method in ("PUT", "PATCH", "DELETE")),
    ]


_EDIT = {"model": "gpt-image-1", **_PROMPT, "size": "1024x1536"}
_MADE = (*_TOKENS, "images", "image_tokens", "image_width", "image_height")
_FILE = ("image", "a.png", PNG)

IMAGE = [
    *IMAGE_TASKS,
    _native("image", "multimodal-generation", "aigc/multimodal-generation/generation", "generate_content",
            {"model": "qwen-image-plus", "input": {"messages": [{"role": "user", "content": [{"text": QUESTION}]}]},
             "parameters": {"n": 2, "size": "1328*1000"}},
            "images", "image_width", "image_height", streams={}, output_type="image"),
    *_tasks("image", IMAGE_TASKS, "images"),
    _openai("image", "images.generations", _GENERATED, _EDIT, *_MADE, streams={"stream": True, "partial_images": 2},
            output_type="image"),
    _openai("image", "images.edits", _GENERATED, _EDIT, *_MADE, files=(_FILE, _FILE), streams={"stream": True, "n": 2},
            output_type="image"),
    _openai("image", "images.variations", _GENERATED, {"model": "dall-e-2", "n": 2}, "images", files=(_FILE,),
            output_type="image"),
]  # fmt: skip
VIDEO = [*VIDEO_TASKS, *_tasks("video", VIDEO_TASKS, "videos", "seconds")]

_SAID = {"input": {"text": QUESTION, "voice": "Cherry"}}
_RECORDING = ("file", "a.wav", WAV)
SPEECH = [
    _openai("speech", "audio.speech", _GENERATED, {"model": "gpt-4o-mini-tts", "input": QUESTION, "voice": "alloy"},
            streams={"stream_format": "sse"}, output_type="speech"),
    _openai("speech", "audio.transcriptions", _GENERATED, {"model": "gpt-4o-transcribe"}, *_TOKENS, "audio_tokens",
            files=(_RECORDING,), streams=_STREAM, output_type="text"),
    _openai("speech", "audio.translations", _GENERATED, {"model": "whisper-1", "response_format": "verbose_json"},
            "seconds", files=(_RECORDING,), output_type="text"),
    _native("speech", "speech-synthesizer", "audio/tts/SpeechSynthesizer", _GENERATED,
            {"model": "cosyvoice-v3-flash", **_SAID}, "characters", streams={}, output_type="speech"),
    _native("speech", "multimodal-generation", "aigc/multimodal-generation/generation", _GENERATED,
            {"model": "qwen3-tts-flash", **_SAID}, *_TOKENS, "characters", streams={}, output_type="speech"),
]  # fmt: skip

_COUNTED = ("input_tokens", "documents")
_EMBEDDED = {"input": {"texts": [QUESTION, "water"]}, "parameters": {"dimension": 8}}
EMBEDDING = [
    _openai("embedding", "embeddings", "embeddings",
            {"model": "text-embedding-v4", "input": [QUESTION, "water"], "dimensions": 8}, *_COUNTED),
    _native("embedding", "text-embedding", "embeddings/text-embedding/text-embedding", "embeddings",
            {"model": "text-embedding-v4", **_EMBEDDED}, *_COUNTED),
    _native("embedding", "multimodal-embedding", "embeddings/multimodal-embedding/multimodal-embedding", "embeddings",
            {"model": "qwen3-vl-embedding", "input": {"contents": [{"text": QUESTION}, {"image": "https://a.test/b"}]}},
            *_COUNTED, "image_tokens"),
]  # fmt: skip

_RANKED = {"query": "a lock", "documents": ["a boat", "a lock", "water"]}
_RERANK = {"model": "qwen3-rerank", **_RANKED}
_SCORE = {"model": "bge", "text_1": QUESTION, "text_2": ["a lock", "a boat"]}
RERANK = [
    _native("rerank", "text-rerank", "rerank/text-rerank/text-rerank", "rerank",
            {"model": "gte-rerank-v2", "input": _RANKED, "parameters": {"top_n": 2}}, *_COUNTED),
    Call("rerank", "dashscope", "reranks", "rerank", "/compatible-api/v1/reranks", _RERANK, usage=_COUNTED),
    *(Call("rerank", "vllm", "rerank", "rerank", path, _RERANK, usage=_COUNTED)
      for path in ("/rerank", "/v1/rerank", "/v2/rerank")),
    *(Call("rerank", "vllm", "score", "score", path, _SCORE, usage=(*_COUNTED, "output_tokens"))
      for path in ("/score", "/v1/score")),
]  # fmt: skip


def _managed(name: str, below: str, made: Call | None, *more: tuple[str, str]) -> list[Call]:
    """A collection and one of its things, with all five methods; `more`: what else is below, with its method."""
    look = Call("others", "openai", name, f"manage_{name}", f"/v1/{name}{below}", method="GET")
    one = replace(look, path=look.path + "/{id}", after=made)
    return [
        look,
        *([made] if made is not None else []),
        *(replace(one, method=method) for method in ("GET", "POST", "PUT", "PATCH", "DELETE")),
        *(replace(one, method=method, path=one.path + path) for method, path in more),
    ]


def _making(name: str, below: str, body: Mapping[str, Any], files: tuple[tuple[str, str, bytes], ...] = ()) -> Call:
    return Call("others", "openai", name, f"manage_{name}", f"/v1/{name}{below}", body, files)


_UPLOAD = _making("uploads", "", {"filename": "a", "purpose": "batch", "bytes": 3, "mime_type": "text/plain"})
_BATCH = _making("batches", "", {"input_file_id": "f", "endpoint": "/v1/responses", "completion_window": "24h"})
_JOB = _making("fine_tuning", "/jobs", {"model": "qwen3-8b", "training_file": "f"})
OTHERS = [
    *(replace(one, path=one.path.replace("{id}", "org%2Fname")) for one in _managed("models", "", None)),
    *_managed("files", "", _making("files", "", {"purpose": "batch"}, (("file", "in.jsonl", b"{}\n"),)),
              ("GET", "/content")),
    *_managed("uploads", "", _UPLOAD, ("POST", "/complete"), ("POST", "/cancel")),
    *_managed("batches", "", _BATCH, ("POST", "/cancel")),
    *_managed("fine_tuning", "/jobs", _JOB, ("GET", "/events"), ("GET", "/checkpoints"), ("POST", "/cancel"),
              ("POST", "/pause"), ("POST", "/resume")),
    Call("others", "openai", "fine_tuning", "manage_fine_tuning", "/v1/fine_tuning/checkpoints/ft%3Aa/permissions",
         method="GET"),
]  # fmt: skip

CALLS = [*TEXT, *IMAGE, *VIDEO, *SPEECH, *EMBEDDING, *RERANK, *OTHERS]
ROOTS = ("/api/v1/tasks", *(f"/v1/{name}" for name in ("models", "files", "uploads", "batches", "fine_tuning")))
"""Paths that own everything below them."""
