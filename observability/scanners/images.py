"""The OpenAI protocol: images (protocols.md §1.3, §4.1)."""

from typing import Any, ClassVar

from observability.scanners.base import Reader
from observability.scanners.openai import ENVELOPE, TypedReader
from observability.scanners.usage import size_of
from observability.wire.json_paths import Paths


class ImagesReader(TypedReader):
    """All three operations: JSON, or the events `image_generation.partial_image` and `.completed` (`image_edit.…`).

    One `.completed` comes for each image. The stream does not say how many images there will be: it counts as complete
    after a `.completed`, and no longer when a further partial image comes.
    """

    __slots__ = ()

    paths: ClassVar[Paths] = Paths([*ENVELOPE, ("size",)], counted=[("data",)])

    def _read_event(self, kind: str, document: dict[str, Any]) -> None:
        findings = self.findings
        completed = kind.endswith(".completed")
        if completed or kind.endswith(".partial_image"):
            self._read_size(document)
            self.output()
            if completed:
                findings.images = (findings.images or 0) + 1
            self._settle(completed and findings.error_code is None)

    def body(self, document: dict[str, Any]) -> None:
        """A whole answer."""
        self._read_envelope(document)
        data = document.get("data")
        if isinstance(data, list) and data:
            self.findings.images = len(data)
            self._read_size(document)
            self.output()

    def _read_size(self, document: dict[str, Any]) -> None:
        if (size := size_of(document.get("size"))) is not None:
            self.findings.image_width, self.findings.image_height = size


READERS: dict[tuple[str, str], type[Reader]] = {
    ("openai", "images.generations"): ImagesReader,
    ("openai", "images.edits"): ImagesReader,
    ("openai", "images.variations"): ImagesReader,
}
"""By protocol and operation."""
