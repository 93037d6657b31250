"""Model → call, by the contract's table and by `image_paths`."""

from typing import Any

import pytest

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
