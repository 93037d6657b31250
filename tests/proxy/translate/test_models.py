"""Model → call, by the contract's table and by `image_paths`."""

from typing import Any

import pytest

from proxy.config.compile import compile_snapshot
from proxy.config.file import parse
from proxy.translate.models import Layout, call_of
from tests.proxy.config.files import ENVIRON, changed, complaints

BASE = "/api/v1/services/aigc/"
AT_ONCE = (f"{BASE}multimodal-generation/generation", Layout.MESSAGES, False)
OF_TEXT = (f"{BASE}text2image/image-synthesis", Layout.PROMPT, True)
OF_IMAGES = (f"{BASE}image2image/image-synthesis", Layout.IMAGES, True)
OF_ONE_IMAGE = (f"{BASE}image2image/image-synthesis", Layout.BASE_IMAGE, True)
NEWER_TASK = (f"{BASE}image-generation/generation", Layout.MESSAGES, True)

TABLE = [
    ("qwen-image", AT_ONCE, AT_ONCE),
    ("qwen-image-edit-plus", AT_ONCE, AT_ONCE),
    ("qwen-image-2.0-pro", AT_ONCE, AT_ONCE),
    ("z-image-turbo", AT_ONCE, AT_ONCE),
    ("wan2.6-t2i", AT_ONCE, AT_ONCE),
    ("wan2.6-image", AT_ONCE, AT_ONCE),
    ("wan2.7-image-pro", AT_ONCE, AT_ONCE),
    ("wan3.0-image", AT_ONCE, AT_ONCE),
    ("a-model-that-nobody-knows", AT_ONCE, AT_ONCE),
    ("wan2.5-t2i-preview", OF_TEXT, OF_IMAGES),
    ("wan2.5-i2i-preview", OF_TEXT, OF_IMAGES),
    ("wan2.2-t2i-flash", OF_TEXT, OF_IMAGES),
    ("wan2.1-anything", OF_TEXT, OF_IMAGES),
    ("wanx-v1", OF_TEXT, OF_ONE_IMAGE),
    ("wanx2.1-t2i-turbo", OF_TEXT, OF_ONE_IMAGE),
    ("wanx2.1-imageedit", OF_TEXT, OF_ONE_IMAGE),
]


@pytest.mark.parametrize(("model", "generations", "edits"), TABLE, ids=[row[0] for row in TABLE])
def test_the_contracts_table(model: str, generations: Any, edits: Any) -> None:
    assert call_of("images.generations", model)[:3] == generations
    assert call_of("images.edits", model)[:3] == edits


PATHS = (
    ("qwen-image-slow", "async"),
    ("qwen-*", f"{BASE}image-generation/generation"),
    ("wanx*", "sync"),
    ("*-here", "/own/multimodal-generation/generation"),
)


@pytest.mark.parametrize(
    ("model", "generations", "edits"),
    [
        ("qwen-image-slow", OF_TEXT, OF_IMAGES),
        ("qwen-image", NEWER_TASK, NEWER_TASK),
        ("wanx-v1", AT_ONCE, AT_ONCE),
        ("wan2.2-t2i", OF_TEXT, OF_IMAGES),
        ("wan2.2-here", ("/own/multimodal-generation/generation", Layout.MESSAGES, False), None),
    ],
)
def test_image_paths_stand_over_it(model: str, generations: Any, edits: Any) -> None:
    assert call_of("images.generations", model, PATHS)[:3] == generations
    assert call_of("images.edits", model, PATHS)[:3] == (edits or generations)


def test_a_good_configuration() -> None:
    paths = {"qwen-*": "sync", "wan*": "async", "x": f"{BASE}image-generation/generation"}
    document = parse(changed(("services.0.image_paths", paths)), ENVIRON, "test")
    assert document.services[0].image_paths == paths


@pytest.mark.parametrize(
    ("paths", "wrong"),
    [
        ({"qwen-*": "later"}, "no way to make images"),
        ({"qwen-*": "/api/v1/services/aigc/image2image/out-painting"}, "no way to make images"),
        ({"qwen-*": "/a/../multimodal-generation/generation"}, "not usable"),
        ({"qwen-*": "/a?b/multimodal-generation/generation"}, "not usable"),
        ({"": "sync"}, "pattern is empty"),
    ],
)
def test_a_bad_one(paths: dict[str, str], wrong: str) -> None:
    [complaint] = complaints(changed(("services.0.image_paths", paths)))
    assert complaint.path.startswith("services[0].image_paths")
    assert wrong in complaint.wrong


FILE = """
services:
  - {name: plain, provider: dashscope, api_keys: [k]}
  - {name: prefixed, provider: dashscope, api_keys: [k], base_url: https://example.com/up}
  - name: several
    provider: dashscope
    api_keys: [k]
    base_urls: {dashscope: https://native.example.com/ds, openai: https://compatible.example.com}
  - {name: foreign, provider: dashscope, api_keys: [k], base_urls: {openai: https://compatible.example.com}}
  - {name: openai, provider: openai, api_keys: [k]}
consumers: [{name: c, keys: [c]}]
model_apis:
  - {name: one, scenario: image, protocols: [openai], base_path: /one, strip_base_path: false,
     routing: {single: {service: prefixed}}}
  - {name: two, scenario: image, protocols: [openai], base_path: /two, routing: {single: {service: several, model: m}}}
  - {name: three, scenario: image, protocols: [openai], base_path: /three, routing: {single: {service: foreign}}}
  - {name: four, scenario: image, protocols: [openai], base_path: /four,
     routing: {single: {service: openai}}, fallback: [{service: plain, model: m}]}
  - {name: five, scenario: image, protocols: [openai], base_path: /five,
     routing: {single: {service: openai, model: m}}, fallback: [{service: plain}]}
"""

ROUTES = [
    # path, translated for, the model must be known, it must not be doubled, host and what stands before the path
    ("/one/v1/images/edits", ["prefixed"], True, True, ("example.com", "/up/one")),
    ("/one/v1/images/variations", ["prefixed"], False, False, ("example.com", "/up/one")),
    ("/two/v1/images/generations", ["several"], False, True, ("native.example.com", "/ds")),
    ("/three/v1/images/generations", [], False, False, ("compatible.example.com", "/v1/images/generations")),
    ("/four/v1/images/generations", ["plain"], False, True, ("dashscope.aliyuncs.com", "")),
    ("/five/v1/images/generations", ["plain"], True, True, ("dashscope.aliyuncs.com", "")),
    ("/five/v1/images/variations", ["plain"], False, True, ("dashscope.aliyuncs.com", "")),
    ("/five/aliyun/v1/images/generations", [], False, True, None),
]


@pytest.mark.parametrize(("path", "translated", "known", "single", "place"), ROUTES, ids=[row[0] for row in ROUTES])
def test_which_routes_are_translated(
    path: str, translated: list[str], known: bool, single: bool, place: tuple[str, str] | None
) -> None:
    route = compile_snapshot(parse(FILE, {}, "test"), 1, {}).match("POST", "", path)
    assert sorted(route.translated) == translated
    assert (route.needs_model, route.model_matters) == (known, single)
    if place is not None:
        name = (*translated, "foreign")[0]
        assert (route.places[name].host, route.upstream_paths[name]) == place
