"""Which Model API and operation a request leads to, and what its upstream path is."""

from dataclasses import replace

import pytest

from proxy.config.compile import compile_snapshot
from proxy.config.file import parse
from proxy.config.snapshot import Route, Snapshot
from proxy.errors import GatewayError
from proxy.protocols import PROTOCOLS, SCENARIOS, default_operations, openai, operations, protocols_of
from proxy.protocols.base import Operation

CHAT = "/v1/chat/completions"
GENERATION = "/api/v1/services/aigc/text-generation/generation"
MULTIMODAL = "/api/v1/services/aigc/multimodal-generation/generation"

_MANAGED = ("GET", "POST", "PUT", "PATCH", "DELETE")
_AIGC = "/api/v1/services/aigc"
DEFAULT_ROUTES: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    ("text", "openai"): dict.fromkeys((CHAT, "/v1/completions", "/v1/responses"), ("POST",)),
    ("text", "anthropic"): dict.fromkeys(("/v1/messages", "/v1/messages/count_tokens"), ("POST",)),
    ("text", "dashscope"): dict.fromkeys((GENERATION, MULTIMODAL), ("POST",)),
    ("image", "dashscope"): dict.fromkeys(
        (
            f"{_AIGC}/text2image/image-synthesis",
            f"{_AIGC}/image2image/image-synthesis",
            f"{_AIGC}/image2image/out-painting",
            f"{_AIGC}/virtualmodel/generation",
            f"{_AIGC}/background-generation/generation",
            f"{_AIGC}/image-generation/generation",
            MULTIMODAL,
        ),
        ("POST",),
    )
    | {"/api/v1/tasks/*": _MANAGED},
    ("image", "openai"): dict.fromkeys(
        ("/v1/images/generations", "/v1/images/edits", "/v1/images/variations"), ("POST",)
    ),
    ("video", "dashscope"): dict.fromkeys(
        (f"{_AIGC}/video-generation/video-synthesis", f"{_AIGC}/image2video/video-synthesis"), ("POST",)
    )
    | {"/api/v1/tasks/*": _MANAGED},
    ("speech", "dashscope"): dict.fromkeys(("/api/v1/services/audio/tts/SpeechSynthesizer", MULTIMODAL), ("POST",)),
    ("speech", "openai"): dict.fromkeys(
        ("/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations"), ("POST",)
    ),
    ("embedding", "openai"): {"/v1/embeddings": ("POST",)},
    ("embedding", "dashscope"): dict.fromkeys(
        (
            "/api/v1/services/embeddings/text-embedding/text-embedding",
            "/api/v1/services/embeddings/multimodal-embedding/multimodal-embedding",
        ),
        ("POST",),
    ),
    ("rerank", "dashscope"): dict.fromkeys(
        ("/api/v1/services/rerank/text-rerank/text-rerank", "/compatible-api/v1/reranks"), ("POST",)
    ),
    ("rerank", "vllm"): dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score"), ("POST",)),
    ("others", "openai"): dict.fromkeys(
        ("/v1/models/*", "/v1/files/*", "/v1/uploads/*", "/v1/batches/*", "/v1/fine_tuning/*"), _MANAGED
    ),
}
"""Scenario and protocol → path → methods, as users create them; /* stands for the path and all below it."""

FILE = """
services:
  - {name: qwen, provider: dashscope, api_keys: [k]}
  - {name: gpt, provider: openai, api_keys: [k], base_url: https://api.example.com/tenant/v1/}
  - {name: own, provider: vllm, base_url: "http://[::1]:8000/v1"}
consumers: [{name: c, keys: [c]}]
model_apis:
  - {name: chat, scenario: text, protocols: [openai, dashscope], routing: {single: {service: qwen}}}
  - {name: team, scenario: text, protocols: [openai], base_path: /team-a/, routing: {single: {service: gpt}}}
  - {name: kept, scenario: text, protocols: [openai], base_path: /kept, strip_base_path: false,
     routing: {single: {service: gpt}}}
  - {name: images, scenario: image, protocols: [openai], base_path: /img, routing: {single: {service: own}}}
  - {name: pictures, scenario: image, protocols: [dashscope], base_path: /img-ds, routing: {single: {service: qwen}}}
  - {name: vectors, scenario: embedding, protocols: [openai], base_path: /emb, routing: {single: {service: own}}}
  - {name: named, scenario: text, protocols: [openai], domains: [AI.example.com, other.example.com],
     routing: {single: {service: own}}}
  - {name: wild, scenario: text, protocols: [openai], domains: ["*.example.com"], routing: {single: {service: own}}}
  - {name: wilder, scenario: text, protocols: [openai], domains: ["*.eu.example.com"],
     routing: {single: {service: own}}}
"""


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return compile_snapshot(parse(FILE, {}, "test"), 7)


@pytest.mark.parametrize(
    ("path", "model_api", "operation", "template", "upstream_path"),
    [
        (CHAT, "chat", "chat.completions", CHAT, "/compatible-mode/v1/chat/completions"),
        ("/v1/completions", "chat", "completions", "/v1/completions", "/compatible-mode/v1/completions"),
        (GENERATION, "chat", "text-generation", GENERATION, GENERATION),
        (MULTIMODAL, "chat", "multimodal-generation", MULTIMODAL, MULTIMODAL),
        ("/team-a" + CHAT, "team", "chat.completions", "/team-a" + CHAT, "/tenant" + CHAT),
        ("/kept" + CHAT, "kept", "chat.completions", "/kept" + CHAT, "/tenant/kept" + CHAT),
        ("/img/v1/images/generations", "images", "images.generations", "/img/v1/images/generations",
         "/v1/images/generations"),
        ("/img-ds" + MULTIMODAL, "pictures", "multimodal-generation", "/img-ds" + MULTIMODAL, MULTIMODAL),
        ("/emb/v1/embeddings", "vectors", "embeddings", "/emb/v1/embeddings", "/v1/embeddings"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("slash", ["", "/"])
def test_paths(
    snapshot: Snapshot, path: str, slash: str, model_api: str, operation: str, template: str, upstream_path: str
) -> None:
    route = snapshot.match("POST", "gateway.internal", path + slash)
    assert (route.model_api.name, route.operation.name) == (model_api, operation)
    (target,) = route.model_api.targets
    assert (route.template, route.upstream_path(target.service)) == (template, upstream_path)


@pytest.mark.parametrize(
    ("host", "model_api"),
    [
        ("", "chat"),
        ("127.0.0.1", "chat"),
        ("[::1]", "chat"),
        ("ai.example.com", "named"),
        ("other.example.com", "named"),
        ("third.example.com", "wild"),
        ("a.b.example.com", "wild"),
        ("a.eu.example.com", "wilder"),
        ("eu.example.com", "wild"),
        ("example.com", "chat"),
        ("notexample.com", "chat"),
        ("." * 65_000, "chat"),
        ("a." * 200 + "example.com", "chat"),
    ],
)
def test_hosts(snapshot: Snapshot, host: str, model_api: str) -> None:
    assert snapshot.match("POST", host, CHAT).model_api.name == model_api


def test_a_named_domain_still_has_the_paths_of_any(snapshot: Snapshot) -> None:
    assert snapshot.match("POST", "ai.example.com", GENERATION).model_api.name == "chat"
    assert snapshot.match("POST", "ai.example.com", "/team-a" + CHAT).model_api.name == "team"


@pytest.mark.parametrize(
    "path",
    ["", "/", "*", "/v1", "/v1/chat", CHAT + "//", CHAT + "/x", "//v1/chat/completions", CHAT.upper(), "/TEAM-A" + CHAT,
     "/team-a", "/v1/chat%2Fcompletions", "/v1/embeddings"],
)  # fmt: skip
def test_no_route_names_method_and_path(snapshot: Snapshot, path: str) -> None:
    with pytest.raises(GatewayError) as caught:
        snapshot.match("POST", "", path)
    assert caught.value.kind == "no_route"
    assert f"POST {path}" in caught.value.message
    assert "paths of this host: /" in caught.value.message  # what would be right


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("/v1/chat/completion", CHAT),
        ("/chat/completions", CHAT),
        ("/v1/v1/chat/completions", CHAT),
        ("/img/v1/image/generations", "/img/v1/images/generations"),
    ],
)
def test_the_nearest_paths_come_first(snapshot: Snapshot, path: str, nearest: str) -> None:
    with pytest.raises(GatewayError) as caught:
        snapshot.match("POST", "x", path)
    assert f"paths of this host: {nearest}, " in caught.value.message


def test_a_message_shows_no_control_characters_and_no_endless_path(snapshot: Snapshot) -> None:
    with pytest.raises(GatewayError) as caught:
        snapshot.match("POST", "", "/\x1b[31m" + "x" * 60_000)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "post"])
def test_method_not_allowed_says_what_is(snapshot: Snapshot, method: str) -> None:
    with pytest.raises(GatewayError) as caught:
        snapshot.match(method, "", CHAT)
    assert (caught.value.kind, caught.value.allow) == ("method_not_allowed", ("POST",))
    assert f"{method} {CHAT}" in caught.value.message
    assert "use POST" in caught.value.message


def test_the_longer_base_path_comes_first() -> None:
    """One path, two readings: only possible where a base path is the beginning of a protocol's own path."""
    text = """
services: [{name: up, provider: dashscope, api_keys: [k]}, {name: gpt, provider: openai, api_keys: [k]}]
consumers: [{name: c, keys: [c]}]
model_apis:
  - {name: short, scenario: text, protocols: [openai, dashscope], routing: {single: {service: up}}}
  - {name: long, scenario: text, protocols: [openai], base_path: /v1/chat, routing: {single: {service: gpt}}}
"""
    snapshot = compile_snapshot(parse(text, {}, "test"), 1)
    assert snapshot.match("POST", "", CHAT).model_api.name == "short"
    assert snapshot.match("POST", "", "/v1/chat" + CHAT).model_api.name == "long"


def test_a_longer_base_path_comes_before_a_named_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    doubled = Operation("doubled", "openai", "/team" + CHAT)
    monkeypatch.setitem(openai.OPERATIONS, "text", (openai.CHAT_COMPLETIONS, doubled))
    text = """
services: [{name: up, provider: vllm, base_url: "http://127.0.0.1:1"}]
consumers: [{name: c, keys: [c]}]
model_apis:
  - {name: named, scenario: text, protocols: [openai], domains: [a.com], routing: {single: {service: up}}}
  - {name: any, scenario: text, protocols: [openai], base_path: /team, routing: {single: {service: up}}}
"""
    snapshot = compile_snapshot(parse(text, {}, "test"), 1)
    assert snapshot.match("POST", "a.com", CHAT).model_api.name == "named"
    assert snapshot.match("POST", "a.com", "/team" + CHAT).model_api.name == "any"


def test_nothing_to_serve() -> None:
    snapshot = compile_snapshot(parse("{}", {}, "test"), 1)
    with pytest.raises(GatewayError, match="no Model API takes requests"):
        snapshot.match("POST", "", CHAT)


BASES = """
services:
  - {name: zhipu, provider: openai, api_keys: [k],
     base_urls: {openai: "https://open.bigmodel.cn/api/paas/v4", anthropic: "https://open.bigmodel.cn/api/anthropic"}}
  - {name: moonshot, provider: anthropic, api_keys: [k], base_url: "https://api.moonshot.cn/anthropic",
     base_urls: {openai: "http://localhost:81/v1/"}}
  - {name: own, provider: vllm, base_url: "http://own/tenant/v2"}
  - {name: near, provider: dashscope, api_keys: [k], base_url: "http://near/v1/"}
  - {name: far, provider: dashscope, api_keys: [k], base_url: "http://far/tenant/v2"}
  - {name: google, provider: openai, api_keys: [k], base_url: "https://google/v1beta/openai/"}
consumers: [{name: c, keys: [c]}]
model_apis:
  - {name: zhipu, scenario: text, protocols: [openai, anthropic], base_path: /z, routing: {single: {service: zhipu}}}
  - {name: moon, scenario: text, protocols: [openai, anthropic], base_path: /m, routing: {single: {service: moonshot}}}
  - {name: own, scenario: rerank, protocols: [vllm], base_path: /o, routing: {single: {service: own}}}
  - {name: near, scenario: text, protocols: [openai, dashscope], base_path: /n, routing: {single: {service: near}}}
  - {name: far, scenario: text, protocols: [openai], base_path: /f, routing: {single: {service: far}}}
  - {name: google, scenario: text, protocols: [openai], base_path: /g, routing: {single: {service: google}}}
"""


@pytest.mark.parametrize(
    ("path", "place", "upstream_path"),
    [
        ("/z" + CHAT, "https open.bigmodel.cn 443", "/api/paas/v4/chat/completions"),
        ("/z/v1/messages", "https open.bigmodel.cn 443", "/api/anthropic/v1/messages"),
        ("/m" + CHAT, "http localhost 81", CHAT),
        ("/m/v1/messages", "https api.moonshot.cn 443", "/anthropic/v1/messages"),
        ("/o/rerank", "http own 80", "/tenant/v2/rerank"),
        ("/o/v1/score", "http own 80", "/tenant/v2/v1/score"),  # a version is OpenAI's clients' habit alone
        ("/g" + CHAT, "https google 443", "/v1beta/openai/chat/completions"),
        ("/n" + CHAT, "http near 80", "/compatible-mode" + CHAT),
        ("/n" + GENERATION, "http near 80", GENERATION),
        ("/f" + CHAT, "http far 80", "/tenant/v2/compatible-mode" + CHAT),  # the version is not of this path
    ],
)
def test_a_service_has_an_address_for_each_protocol(path: str, place: str, upstream_path: str) -> None:
    route = compile_snapshot(parse(BASES, {}, "test"), 1).match("POST", "", path)
    (target,) = route.model_api.targets
    found = route.places[target.service.name]
    assert f"{found.scheme} {found.host} {found.port}" == place
    assert route.upstream_path(target.service) == upstream_path
    assert found.keys == target.service.keys
    assert set(found.keys[0].auth_headers) == target.service.spoken


class TestBelow:
    """Operations that own everything below their path."""

    MODELS = Operation("models", "openai", "/v1/models", methods=("GET", "DELETE"), below=True)
    TUNED = Operation("tuned", "openai", "/v1/models/tuned", methods=("GET",), below=True)

    @pytest.fixture
    def snapshot(self, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
        table = (openai.CHAT_COMPLETIONS, self.MODELS, self.TUNED)
        monkeypatch.setitem(openai.OPERATIONS, "text", table)
        return compile_snapshot(parse(FILE, {}, "test"), 1)

    @pytest.mark.parametrize(
        ("path", "operation", "template", "upstream_path"),
        [
            ("/v1/models", "models", "/v1/models", "/compatible-mode/v1/models"),
            ("/v1/models/", "models", "/v1/models", "/compatible-mode/v1/models"),
            ("/v1/models/qwen", "models", "/v1/models/*", "/compatible-mode/v1/models/qwen"),
            ("/v1/models/qwen/", "models", "/v1/models/*", "/compatible-mode/v1/models/qwen"),
            ("/v1/models/a%2Fb/c", "models", "/v1/models/*", "/compatible-mode/v1/models/a%2Fb/c"),
            ("/v1/models/tuned", "tuned", "/v1/models/tuned", "/compatible-mode/v1/models/tuned"),
            ("/v1/models/tuned/x", "tuned", "/v1/models/tuned/*", "/compatible-mode/v1/models/tuned/x"),
            ("/v1/models/tuned-x", "models", "/v1/models/*", "/compatible-mode/v1/models/tuned-x"),
            ("/team-a/v1/models/m", "models", "/team-a/v1/models/*", "/tenant/v1/models/m"),
        ],
    )
    def test_paths(self, snapshot: Snapshot, path: str, operation: str, template: str, upstream_path: str) -> None:
        route = snapshot.match("GET", "", path)
        (target,) = route.model_api.targets
        assert (route.operation.name, route.template) == (operation, template)
        assert route.upstream_path(target.service) == upstream_path

    @pytest.mark.parametrize(
        "path",
        ["/v1/models/../files", "/v1/models/%2e%2E/files", "/v1/models/.", "/v1/modelsx", "/v1/chat/completions/x"],
    )
    def test_what_is_not_below(self, snapshot: Snapshot, path: str) -> None:
        with pytest.raises(GatewayError) as caught:
            snapshot.match("GET", "", path)
        assert caught.value.kind == "no_route"

    def test_a_named_domain_has_them_too(self, snapshot: Snapshot) -> None:
        assert snapshot.match("GET", "ai.example.com", "/v1/models/m").model_api.name == "named"
        assert snapshot.match("GET", "ai.example.com", "/team-a/v1/models/m").model_api.name == "team"

    def test_methods(self, snapshot: Snapshot) -> None:
        assert snapshot.match("DELETE", "", "/v1/models/m").operation is self.MODELS
        with pytest.raises(GatewayError) as caught:
            snapshot.match("POST", "", "/v1/models/m")
        assert caught.value.allow == ("DELETE", "GET")

    def test_two_operations_share_a_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        create = replace(self.MODELS, name="models.create", methods=("POST",), below=False)
        monkeypatch.setitem(openai.OPERATIONS, "text", (self.MODELS, create))
        snapshot = compile_snapshot(parse(FILE, {}, "test"), 1)
        assert snapshot.match("GET", "", "/v1/models").operation.name == "models"
        assert snapshot.match("POST", "", "/v1/models/").operation.name == "models.create"

    def test_a_long_path_costs_no_more_than_the_table_is_deep(self, snapshot: Snapshot) -> None:
        assert snapshot._any.below_depth == 4  # /team-a/v1/models/tuned
        with pytest.raises(GatewayError):
            snapshot.match("GET", "", "/" * 60_000)


class TestTables:
    """The protocols' own tables."""

    @pytest.mark.parametrize("scenario", SCENARIOS)
    def test_every_scenario_is_served(self, scenario: str) -> None:
        assert protocols_of(scenario)

    def test_each_path_and_method_is_one_operation(self) -> None:
        for protocol in PROTOCOLS:
            for scenario in SCENARIOS:
                table = operations(scenario, protocol)
                places = [(operation.path, method) for operation in table for method in operation.methods]
                assert len(set(places)) == len(places)
                assert all(operation.protocol == protocol for operation in table)
                assert all(operation.path.startswith("/") and operation.path[-1] != "/" for operation in table)

    def test_unknown_combinations_are_empty(self) -> None:
        assert operations("video", "openai") == ()
        assert operations("image", "anthropic") == ()

    @pytest.mark.parametrize(("scenario", "protocol"), DEFAULT_ROUTES)
    def test_default_routes_no_more_and_no_fewer(self, scenario: str, protocol: str) -> None:
        named: dict[str, tuple[str, ...]] = {}
        for operation in default_operations(scenario, [protocol]):
            path = operation.path + ("/*" if operation.below else "")
            named[path] = (*named.get(path, ()), *operation.methods)
        expected = dict(DEFAULT_ROUTES[scenario, protocol])
        if scenario == "image":
            expected["/aliyun/v1/images/generations"] = ("POST",)
        assert named == expected

    def test_no_other_combination_has_routes(self) -> None:
        built = {(scenario, one) for scenario in SCENARIOS for one in PROTOCOLS if operations(scenario, one)}
        assert built == set(DEFAULT_ROUTES)

    @pytest.mark.parametrize(
        ("scenario", "protocol", "called"),
        [
            (
                "text",
                "openai",
                {"chat.completions": "chat", "completions": "text_completion:text", "responses": "chat"},
            ),
            ("text", "anthropic", {"messages": "chat", "messages.count_tokens": "count_tokens"}),
            ("text", "dashscope", {"text-generation": "chat", "multimodal-generation": "chat"}),
            ("image", "dashscope", {"text2image": "generate_content:image", "tasks": "fetch_task"}),
            ("image", "openai", {"images.edits": "generate_content:image"}),
            (
                "speech",
                "openai",
                {"audio.speech": "generate_content:speech", "audio.translations": "generate_content:text"},
            ),
            ("speech", "dashscope", {"multimodal-generation": "generate_content:speech"}),
            ("video", "dashscope", {"video-generation": "video_generation", "image2video": "video_generation"}),
            ("embedding", "openai", {"embeddings": "embeddings"}),
            ("rerank", "vllm", {"rerank": "rerank", "score": "score"}),
        ],
    )
    def test_what_conventions_call_them(self, scenario: str, protocol: str, called: dict[str, str]) -> None:
        names: dict[str, str] = {}
        for one in operations(scenario, protocol):
            names.setdefault(one.name, one.gen_ai_operation + (f":{one.output_type}" if one.output_type else ""))
        assert names == names | called

    def test_looking_may_be_repeated_and_changing_may_not(self) -> None:
        for operation in (*operations("others", "openai"), *operations("video", "dashscope")):
            if operation.below:
                assert operation.replayable == (operation.methods == ("GET",))

    def test_only_chats_are_asked_for_usage(self) -> None:
        asked = {
            one.name
            for protocol in PROTOCOLS
            for scenario in SCENARIOS
            for one in operations(scenario, protocol)
            if one.asks_usage
        }
        assert asked == {"chat.completions", "completions"}


def test_a_route_is_the_same_object_each_time(snapshot: Snapshot) -> None:
    """What is worked out of a route once may be kept by its identity."""
    routes: list[Route] = [snapshot.match("POST", "", path) for path in (CHAT, CHAT, CHAT + "/")]
    assert routes[0] is routes[1] is routes[2]
