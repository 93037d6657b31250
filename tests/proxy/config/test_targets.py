"""Where a Model API's requests may go: what the file's routing compiles to, and which target a model's name gets."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.compile import compile_snapshot
from proxy.config.file import parse
from proxy.config.snapshot import ByModel, ByWeight, ModelApi, Service, Single, Snapshot, Target
from tests.proxy.config.files import ENVIRON, changed

CHAT = "/v1/chat/completions"
VLLM = {"name": "own", "provider": "vllm", "base_url": "http://127.0.0.1:8000/gpu/v1"}
OPENAI = {"name": "gpt", "provider": "openai", "api_keys": ["k"]}


def compiled(**keys: Any) -> Snapshot:
    """The contract's file with two further services, and `keys` of its Model API replaced."""
    changes = [(f"model_apis.0.{key}", value) for key, value in keys.items()]
    return compile_snapshot(parse(changed(("services.1", VLLM), ("services.2", OPENAI), *changes), ENVIRON, "test"), 1)


def chat(**keys: Any) -> ModelApi:
    (model_api,) = compiled(**keys).model_apis
    return model_api


def shown(targets: tuple[Target, ...]) -> list[tuple[str, str | None]]:
    return [(target.service.name, target.model) for target in targets]


SOME = compiled().services["qwen"]


@pytest.fixture
def service() -> Service:
    return SOME


class TestCompiled:
    """From the file."""

    def test_single(self) -> None:
        made = chat(routing={"single": {"service": "own", "model": "m"}})
        assert isinstance(made.routing, Single)
        assert shown((made.routing.target,)) == shown(made.targets) == [("own", "m")]
        assert not made.needs_model

    def test_by_model(self) -> None:
        entries = [
            {"match": "qwen-*", "service": "qwen"},
            {"match": "gpt-?", "service": "gpt", "model": "gpt-5"},
            {"match": "*", "service": "qwen"},
        ]
        made = chat(routing={"by_model": entries})
        assert isinstance(made.routing, ByModel)
        assert [pattern for pattern, _ in made.routing.choices] == ["qwen-*", "gpt-?", "*"]
        assert shown(tuple(target for _, target in made.routing.choices)) == [
            ("qwen", None),
            ("gpt", "gpt-5"),
            ("qwen", None),
        ]
        assert shown(made.targets) == [("qwen", None), ("gpt", "gpt-5")]
        assert made.needs_model

    def test_by_weight(self) -> None:
        entries = [{"service": "qwen", "weight": 80}, {"service": "own", "weight": 0, "model": "m"}]
        made = chat(routing={"by_weight": entries}, balance="least_inflight")
        assert isinstance(made.routing, ByWeight)
        assert (made.routing.weights, made.routing.balance) == ((80, 0), "least_inflight")
        assert shown(made.routing.targets) == shown(made.targets) == [("qwen", None), ("own", "m")]
        assert not made.needs_model

    def test_fallback(self) -> None:
        made = chat(
            fallback=[{"service": "own"}, {"service": "qwen"}, {"service": "own"}, {"service": "own", "model": "m"}],
            fallback_on=[500, 500, 418],
            max_attempts=2,
            first_packet_timeout_ms=3,
            first_token_timeout_ms=4,
        )
        assert shown(made.fallback) == [("own", None), ("qwen", None), ("own", None), ("own", "m")]
        assert shown(made.targets) == [("qwen", None), ("own", None), ("own", "m")]
        assert made.fallback_on == {500, 418}
        assert (made.max_attempts, made.first_packet_timeout_ms, made.first_token_timeout_ms) == (2, 3, 4)

    def test_a_target_is_one_object_however_often_it_is_named(self) -> None:
        made = chat(fallback=[{"service": "own"}, {"service": "own"}, {"service": "qwen"}])
        assert isinstance(made.routing, Single)
        assert made.fallback[0] is made.fallback[1] is made.targets[1]
        assert made.fallback[2] is made.routing.target
        assert {made.fallback[0]: 1}[made.fallback[1]] == 1

    def test_a_route_knows_the_path_of_each_service(self) -> None:
        snapshot = compiled(fallback=[{"service": "own"}, {"service": "gpt"}])
        route = snapshot.match("POST", "", CHAT)
        assert {name: route.upstream_path(service) for name, service in snapshot.services.items()} == {
            "qwen": "/compatible-mode" + CHAT,
            "own": "/gpu" + CHAT,
            "gpt": CHAT,
        }
        assert route.rest == ""

    def test_a_service_that_no_request_reaches_has_no_path(self) -> None:
        snapshot = compiled()
        with pytest.raises(KeyError):
            snapshot.match("POST", "", CHAT).upstream_path(snapshot.services["own"])

    def test_the_folder_for_held_bodies(self) -> None:
        text = changed(("spool_dir", "/tmp/spool"), ("limits.hold_memory_bytes", 7))
        snapshot = compile_snapshot(parse(text, ENVIRON, "test"), 1)
        assert (snapshot.spool_dir, snapshot.limits.hold_memory_bytes) == ("/tmp/spool", 7)


# patterns in their order, the model's name, which of them is chosen
CHOICES: list[tuple[list[str], str, int | None]] = [
    (["qwen-max"], "qwen-max", 0),
    (["qwen-max"], "qwen-max2", None),
    (["qwen-max"], "a-qwen-max", None),
    (["qwen-max"], "Qwen-max", None),
    (["QWEN-*"], "qwen-max", None),
    (["qwen-*"], "qwen-max", 0),
    (["qwen-*"], "qwen-", 0),
    (["qwen-*"], "qwen", None),
    (["qwen-*"], "my-qwen-max", None),
    (["*-max"], "qwen-max", 0),
    (["*-max"], "qwen-max-2", None),
    (["*max*"], "qwen-max-2", 0),
    (["*"], "anything", 0),
    (["*"], "", 0),
    (["**"], "anything", 0),
    (["?"], "", None),
    (["?"], "x", 0),
    (["?"], "xy", None),
    (["gpt-?"], "gpt-5", 0),
    (["gpt-?"], "gpt-5o", None),
    (["gpt-?"], "gpt-", None),
    (["gpt-?*"], "gpt-", None),
    (["gpt-?*"], "gpt-5o", 0),
    (["*?"], "x", 0),
    (["*?"], "", None),
    (["a*b*c"], "abc", 0),
    (["a*b*c"], "a-b-b-c-c", 0),
    (["a*b*c"], "ac", None),
    (["a*b*c"], "abcd", None),
    (["a*a"], "a", None),
    (["a*a"], "aa", 0),
    (["*ab*ab"], "ab", None),
    (["*ab*ab"], "abab", 0),
    (["*a?c*c"], "abcabc", 0),
    (["*a?c*c"], "abc", None),
    (["*a?b*b?a*"], "aabbba", 0),  # the first place that fits is taken, and there is room behind it
    # nothing but ? and * has a meaning
    (["qwen-2.5"], "qwen-2x5", None),
    (["qwen-2.5*"], "qwen-2x5", None),
    (["[ab]*"], "a", None),
    (["[ab]*"], "[ab]c", 0),
    (["(a|b)*"], "a", None),
    (["a+*"], "aa", None),
    (["a\\*"], "a\\b", 0),
    (["^a*$"], "a", None),
    (["org/m:v1*"], "org/m:v1@x", 0),
    # all of a name, whatever is in it
    (["a*"], "a\nb", 0),
    (["a?b"], "a\nb", 0),
    (["a"], "a\n", None),
    (["*a"], "a\n", None),
    (["模*"], "模型", 0),
    (["?"], "型", 0),
    (["a?"], "a\ud800", 0),
    # the first that fits
    (["qwen-*", "qwen-max"], "qwen-max", 0),
    (["qwen-max", "qwen-*"], "qwen-max", 0),
    (["qwen-max", "qwen-*"], "qwen-plus", 1),
    (["gpt-?", "qwen-max", "*"], "qwen-max", 1),
    (["gpt-?", "qwen-max", "*"], "gpt-5", 0),
    (["gpt-?", "qwen-max", "*"], "other", 2),
    (["gpt-?", "*", "qwen-max"], "qwen-max", 1),
    (["same", "same"], "same", 0),
    (["s*", "s*"], "same", 0),
    (["a", "b"], "c", None),
    ([], "a", None),
]


@pytest.mark.parametrize(("patterns", "model", "chosen"), CHOICES)
def test_choose(service: Service, patterns: list[str], model: str, chosen: int | None) -> None:
    targets = [Target(service, str(position)) for position in range(len(patterns))]
    found = ByModel(tuple(zip(patterns, targets, strict=True))).choose(model)
    assert found is (None if chosen is None else targets[chosen])


def fits(pattern: str, name: str) -> bool:
    """What the file promises of `?` and `*`, in the plainest form: every way a star can be read is tried."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(fits(pattern[1:], name[begin:]) for begin in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and fits(pattern[1:], name[1:])


@given(pattern=st.text("ab?*", max_size=8), name=st.text("ab", max_size=10))
def test_choose_keeps_the_promise(pattern: str, name: str) -> None:
    target = Target(SOME, None)
    assert ByModel(((pattern, target),)).choose(name) is (target if fits(pattern, name) else None)


# pattern, the character that names are made of: each name almost fits, and not quite
HARD = [
    ("*a" * 120 + "b", "a"),
    ("a*" * 120 + "b", "a"),
    ("*" + "a*a" * 80 + "b*", "a"),
    ("*?" * 100 + "b", "a"),
    ("?*" * 100 + "b?", "a"),
    ("*" * 255 + "b", "a"),
    ("*" + "a" * 250 + "b*", "a"),
    ("*" + "a" * 250 + "b", "a"),
    ("*" + "?" * 200 + "b*", "a"),
    ("*a?a" * 60 + "*b", "a"),
    ("*ab" * 80 + "*c", "ab"),
    ("*x*" + "a" * 100 + "*", "a"),
]


@pytest.mark.parametrize(("pattern", "part"), HARD)
def test_no_pattern_makes_a_name_dear(service: Service, pattern: str, part: str) -> None:
    """The longest name that a request may have (16 KiB) takes 10 ms at most on a busy core; a matcher that goes back
    on what its stars took would need longer than the universe has."""
    by_model = ByModel(((pattern, Target(service, None)),))
    name = part * (16_384 // len(part))
    began = time.process_time()
    assert by_model.choose(name) is None
    assert time.process_time() - began < 1


@pytest.mark.parametrize(("pattern", "part"), HARD)
def test_they_fit_what_they_should(service: Service, pattern: str, part: str) -> None:
    """... and the patterns above are none that fit nothing: each fits the text that it is itself."""
    by_model = ByModel(((pattern, Target(service, None)),))
    assert by_model.choose(pattern) is not None
    assert by_model.choose(pattern.replace("*", part * 3).replace("?", part[0])) is not None


def test_names_are_found_among_many(service: Service) -> None:
    targets = [Target(service, str(position)) for position in range(1000)]
    by_model = ByModel(tuple((f"m{position}-*", target) for position, target in enumerate(targets)))
    assert by_model.choose("m999-x") is targets[999]
    assert by_model.choose("m1000-x") is None


def test_a_target_can_be_found_by(service: Service) -> None:
    assert {Target(service, "m"): 1}[Target(service, "m")] == 1
    assert Target(service, "m") != Target(service, None)
    assert Target(compiled().services["qwen"], "m") != Target(service, "m")  # of another generation
