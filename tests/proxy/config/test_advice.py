"""What is possible and probably not meant: each warning, and that a file with warnings is good all the same."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from proxy.config.advice import advice
from proxy.config.check import check
from proxy.config.file import parse
from tests.proxy.config.files import CONTRACT, ENVIRON, changed

SPARE: dict[str, Any] = {"name": "spare", "provider": "vllm", "base_url": "http://127.0.0.1:8000"}
KEYED = SPARE | {"api_keys": ["hidden-key"]}
PASSING: tuple[str, Any] = ("model_apis.0.auth", "passthrough")
OTHER: dict[str, Any] = {
    "name": "other",
    "scenario": "text",
    "protocols": ["openai"],
    "base_path": "/other",
    "routing": {"single": {"service": "qwen"}},
}


def BY_MODEL(*patterns: str) -> tuple[str, Any]:
    return "model_apis.0.routing", {"by_model": [{"match": pattern, "service": "qwen"} for pattern in patterns]}


# changes to the contract's file, path of the warning, words of what is odd, words of what would be right
ODD: list[tuple[list[tuple[str, Any]], str, str, str]] = [
    ([("trusted_proxies", ["10.0.0.0/8", "0.0.0.0/0"])], "trusted_proxies[1]", "is everybody", "your own proxies"),
    ([("trusted_proxies", ["::/0"])], "trusted_proxies[0]", "::/0 is everybody", "your own proxies"),
    ([("cors.origins", ["https://a.example", "*"])], "cors.origins[1]", "in it already", "take it out"),
    ([("cors.origins", ["*"]), ("model_apis.0.auth", "open")], "model_apis[0].auth", "web page", "name the origins"),
    ([("model_apis", []), ("services", [])], "model_apis", "the file has none", "add at least one"),
    ([("services.1", SPARE)], "services[1].name", "no Model API uses service spare", "take it out"),
    ([("services.1", KEYED)], "services[1].name", "no Model API uses service spare", "take it out"),
    ([PASSING], "services[0].api_keys", "Model API chat passes the caller's own key on", "take them out"),
    ([PASSING, ("services.1", KEYED), ("services.0.api_keys", []), ("model_apis.0.fallback", [{"service": "spare"}])],
     "services[1].api_keys", "Model API chat passes the caller's own key on", "set auth to consumers"),
    ([("services.0.api_keys", ["fine", "$HIDDEN"])], "services[0].api_keys[1]", "looks like a variable", "${NAME}"),
    ([("services.0.headers", {"X-Key": "$HIDDEN"})], "services[0].headers.x-key", "like a variable", "with braces"),
    ([("services.0.headers", {"X-Key": "Basic $HIDDEN"})], "services[0].headers.x-key", "like a variable", "${NAME}"),
    ([("consumers.0.keys", ["$HIDDEN"])], "consumers[0].keys[0]", "looks like a variable", "${NAME} with braces"),
    ([("services.0.tls.insecure", True)], "services[0].tls.insecure", "can read everything", "in tls.ca"),
    ([BY_MODEL("*", "gpt-*")], "model_apis[0].routing.by_model[1].match", "'gpt-*' fits '*' before", "narrower"),
    ([BY_MODEL("gpt-*", "gpt-?-mini")], "model_apis[0].routing.by_model[1].match", "fits 'gpt-*' before", "narrower"),
    ([BY_MODEL("qwen", "qwen")], "model_apis[0].routing.by_model[1].match", "every name that fits 'qwen'", "narrower"),
    ([BY_MODEL("gpt-4|gpt-5")], "model_apis[0].routing.by_model[0].match", "only names with these very", "no regular"),
    ([BY_MODEL("qwen* ")], "model_apis[0].routing.by_model[0].match", "these very characters", "a pattern is"),
    ([("model_apis.0.routing", {"single": {"service": "qwen", "model": "gpt-*"}})],
     "model_apis[0].routing.single.model", "asked for a model of the very name 'gpt-*'", "write the name"),
    ([("services.1", SPARE), ("model_apis.0.fallback", [{"service": "spare"}]), ("model_apis.0.max_attempts", 1)],
     "model_apis[0].max_attempts", "1 attempts do not reach the last of 1", "set it to 2 or more"),
    ([("admin.token", "$HIDDEN")], "admin.token", "looks like a variable", "${NAME} with braces"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "path", "wrong", "right"), ODD)
def test_one_oddity_makes_one_warning(changes: list[tuple[str, Any]], path: str, wrong: str, right: str) -> None:
    (found,) = advice(parse(changed(*changes), ENVIRON, "test", starting=True))
    assert found.path == path
    assert wrong in found.wrong
    assert right in found.right
    assert "hidden" not in str(found).lower()


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [PASSING, ("services.0.api_keys", [])],
        [PASSING, ("model_apis.1", OTHER)],  # the other one uses the keys
        [("services.1", SPARE), ("model_apis.0.fallback", [{"service": "spare"}])],
        [("services.1", SPARE), ("model_apis.0.routing", {"by_weight": [{"service": "qwen", "weight": 1},
                                                                         {"service": "spare", "weight": 0}]})],
        [("services.0.api_keys", ["a$b", "$", "$1", "price-$NAME"])],
        [("services.0.headers", {"x-note": "costs $5"})],
        [BY_MODEL("gpt-?", "gpt-*", "*-mini", "qwen2.5-*", "org/model:v1", "*")],
    ],
)  # fmt: skip
def test_what_is_not_odd(changes: list[tuple[str, Any]]) -> None:
    assert [str(one) for one in advice(parse(changed(*changes), ENVIRON, "test", starting=True))] == []


def test_check_prints_them_and_the_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "sluiceway.yaml"
    path.write_text(changed(("services.1", SPARE), ("services.0.api_keys", ["$KEY"])), encoding="utf-8")
    out = StringIO()
    assert check(path, ENVIRON, out) == 0
    first, second, summary = out.getvalue().splitlines()
    assert first.startswith("warning: services[0].api_keys[0]: it looks like a variable")
    assert second.startswith("warning: services[1].name: no Model API uses service spare")
    assert summary == f"{path}: good (2 services, 1 consumer, 1 Model API), 2 warnings"


def test_check_of_a_file_without_any(tmp_path: Path) -> None:
    path = tmp_path / "sluiceway.yaml"
    path.write_text(CONTRACT, encoding="utf-8")
    out = StringIO()
    assert check(path, ENVIRON, out) == 0
    assert out.getvalue() == f"{path}: good (1 service, 1 consumer, 1 Model API)\n"
