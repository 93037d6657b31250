"""DashScope's JSON, written while its images still come: what stands before, between and behind them.

The members of a JSON object have no order, so all that is known only at the end of a request (the prompt may stand
behind the files) is written behind the images. Pure.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from proxy.errors import GatewayError, TargetUnusableError, shown
from proxy.translate.models import Layout

IMAGES_MAX: Final = 16
"""Of one request: OpenAI's own limit. DashScope's models take 1 to 14."""
_IN_PARAMETERS: Final = ("size", "n", "seed", "watermark", "prompt_extend")


class Envelope:
    """One request's JSON. `begin_image`, the image's value, `end_image` (or a mask's) any number of times, then `end`.

    Raises GatewayError for what no target could take, TargetUnusableError for what this call cannot.
    """

    __slots__ = ("_images", "_layout", "_masks", "_members", "_model", "_wants_image")

    def __init__(self, layout: Layout, model: str, *, wants_image: bool) -> None:
        """`wants_image`: a request without one is malformed."""
        self._layout = layout
        self._model = model
        self._wants_image = wants_image
        self._images = self._masks = 0
        self._members = 0  # of `input`, where images are members of it

    def begin_image(self) -> bytes:
        """What stands before an image: a JSON string."""
        self._images += 1
        if self._images > IMAGES_MAX:
            raise GatewayError("bad_request", f"the request has more than {IMAGES_MAX} images")
        match self._layout:
            case Layout.MESSAGES:
                return (self._opening() if self._images == 1 else b",") + b'{"image":'
            case Layout.IMAGES:
                return self._opening() if self._images == 1 else b","
            case Layout.BASE_IMAGE:
                if self._images > 1:
                    raise TargetUnusableError(
                        "bad_request", f"{shown(self._model)} edits one image, and there are several"
                    )
                return self._member() + b'"base_image_url":'
            case Layout.PROMPT:
                raise TargetUnusableError("bad_request", f"{shown(self._model)} makes images out of text alone")

    def end_image(self) -> bytes:
        """What stands behind it."""
        return b"}" if self._layout is Layout.MESSAGES else b""

    def begin_mask(self) -> bytes:
        """What stands before a mask: a JSON string. Nothing stands behind it."""
        if self._layout is not Layout.BASE_IMAGE:
            message = f"{shown(self._model)} takes no mask: leave it out, or use another model"
            raise TargetUnusableError("bad_request", message)
        self._masks += 1
        if self._masks > 1:
            raise GatewayError("bad_request", "the request has more than one mask")
        return self._member() + b'"mask_image_url":'

    def end(self, texts: Mapping[str, Any]) -> bytes:
        """The rest, out of the request's other fields: `prompt` and what else is known of them (`request`)."""
        prompt = texts.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise GatewayError("bad_request", "the request has no prompt")
        if self._wants_image and not self._images:
            raise GatewayError("bad_request", "the request has no image to edit")
        parameters = {key: texts[key] for key in _IN_PARAMETERS if key in texts}
        parameters.setdefault("n", 1)  # OpenAI's default; some of DashScope's models make four
        negative = {"negative_prompt": texts["negative_prompt"]} if "negative_prompt" in texts else {}
        closing = b""
        match self._layout:
            case Layout.MESSAGES:
                parameters |= negative
                closing = (self._opening() if not self._images else b",") + _json({"text": prompt}) + b"]}]}"
            case Layout.IMAGES:
                listed = (self._opening() if not self._images else b"") + b"],"
                closing = listed + _json({"prompt": prompt, **negative})[1:]
            case Layout.BASE_IMAGE:
                usual = "description_edit_with_mask" if self._masks else "description_edit"
                function = texts.get("function", usual)
                members = {"prompt": prompt, **negative, "function": function}
                closing = self._member() + _json(members)[1:]
            case Layout.PROMPT:
                closing = self._opening() + _json({"prompt": prompt, **negative})[1:]
        parameters |= texts.get("parameters", {})
        return closing + b"," + _json({"model": self._model, "parameters": parameters})[1:]

    def _opening(self) -> bytes:
        """Up to the first image."""
        if self._layout is Layout.MESSAGES:
            return b'{"input":{"messages":[{"role":"user","content":['
        return b'{"input":{"images":[' if self._layout is Layout.IMAGES else b'{"input":{'

    def _member(self) -> bytes:
        """Up to the next member of `input`."""
        self._members += 1
        return self._opening() if self._members == 1 else b","


def _json(members: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(members)
    except TypeError:  # it reads 1024 levels and writes 254
        raise GatewayError("bad_request", "a value of the request is nested too deeply") from None
