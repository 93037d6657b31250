"""Which call of DashScope's an OpenAI image request becomes: by its model, and by what a service says of its own.

The table is the contract's. `image_paths` of a service stands over it, in the order of the file. Pure.
"""

from collections.abc import Collection, Sequence
from enum import Enum
from typing import Final, NamedTuple

from proxy.config.targets import Service, matcher
from proxy.protocols.base import Operation

CALLS: Final = ("images.generations", "images.edits")
"""Operations of the OpenAI protocol that become a call of DashScope's, as their model is."""
REFUSED: Final = ("images.variations",)
"""DashScope has nothing like them."""
_BASE: Final = "/api/v1/services/aigc/"


class Layout(Enum):
    """Where prompt and images stand in `input`."""

    MESSAGES = "messages"
    """In the parts of one message."""
    PROMPT = "prompt"
    """A prompt, no images."""
    IMAGES = "images"
    """A prompt and a list of images (wan2.5-i2i)."""
    BASE_IMAGE = "base_image"
    """A prompt, one image, a mask and what is to be done with them (wanx2.1-imageedit)."""


class Call(NamedTuple):
    """One call."""

    path: str
    """What the upstream is asked for."""
    layout: Layout
    is_task: bool
    """It makes a task, whose result is fetched."""
    operation: str
    """Whose answers its answers are, in the tables of the scanners."""


class Kind(NamedTuple):
    """What is known of a path, by its end."""

    layout: Layout
    is_task: bool
    operation: str


KINDS: Final[dict[str, Kind]] = {
    "multimodal-generation/generation": Kind(Layout.MESSAGES, False, "multimodal-generation"),
    "image-generation/generation": Kind(Layout.MESSAGES, True, "image-generation"),
    "text2image/image-synthesis": Kind(Layout.PROMPT, True, "text2image"),
    "image2image/image-synthesis": Kind(Layout.IMAGES, True, "image2image"),
}
"""The paths of DashScope that can be translated to, below `/services/aigc/`. The first is that of `sync`."""
_SYNC: Final = "multimodal-generation/generation"
_TASKS: Final = {"images.generations": "text2image/image-synthesis", "images.edits": "image2image/image-synthesis"}

_ASYNC: Final = tuple(map(matcher, ("wan2.1*", "wan2.2*", "wan2.3*", "wan2.4*", "wan2.5*", "wanx*")))
"""Models that make tasks. All others, qwen-image, z-image, wan2.6 and whatever comes next, answer at once: so did every
family since wan2.5, and a model that does not says so itself (403, "does not support synchronous calls")."""
_ONE_IMAGE: Final = matcher("wanx*")


def translates(operation: Operation, service: Service) -> bool:
    """Are requests of the operation translated for the service?"""
    translated = operation.protocol == "openai" and operation.name in (*CALLS, *REFUSED)
    return translated and translates_for(service.provider.name, service.spoken)


def translates_for(provider: str, spoken: Collection[str]) -> bool:
    """Are OpenAI's image requests translated for a service of a provider that speaks these protocols?"""
    return provider == "dashscope" and "dashscope" in spoken


def call_of(operation: str, model: str, image_paths: Sequence[tuple[str, str]] = ()) -> Call:
    """The call that a request for `model` becomes; `operation` is one of CALLS."""
    way = next((way for pattern, way in image_paths if matcher(pattern)(model)), None)
    if way is None:
        way = "async" if any(fits(model) for fits in _ASYNC) else "sync"
    if way == "sync":
        way = _BASE + _SYNC
    elif way == "async":
        way = _BASE + _TASKS[operation]
    kind = KINDS[kind_of_path(way)]
    layout = kind.layout
    if layout is Layout.IMAGES and _ONE_IMAGE(model):
        layout = Layout.BASE_IMAGE
    return Call(way, layout, kind.is_task, kind.operation)


def kind_of_path(path: str) -> str:
    """The key of KINDS that a path ends with. KeyError for another path."""
    for end in KINDS:
        if path.endswith("/" + end):
            return end
    raise KeyError(path)
