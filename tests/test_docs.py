"""What users read is complete: every configuration key and every metric stands in the README."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from observability import names
from proxy.config.model import Document

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
METRICS = [
    *(names.GEN_AI_CLIENT_OPERATION_DURATION, names.GEN_AI_SERVER_REQUEST_DURATION, names.GEN_AI_CLIENT_TOKEN_USAGE),
    *(names.GEN_AI_SERVER_TIME_TO_FIRST_TOKEN, names.GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN, names.SLUICEWAY_REQUESTS),
    *(names.SLUICEWAY_ATTEMPTS, names.SLUICEWAY_IMAGES, names.SLUICEWAY_OVERHEAD_DURATION),
    *(names.HTTP_SERVER_ACTIVE_REQUESTS, names.SLUICEWAY_CONFIG_GENERATION, names.SLUICEWAY_RECORDS_DROPPED),
]


def keys(model: type[BaseModel]) -> Iterator[str]:
    """All keys of a part of the file, nested ones too, by their own names."""
    for name, field in model.model_fields.items():
        yield field.alias or name
        for part in re.findall(r"proxy\.config\.model\.(\w+)", str(field.annotation)):
            import proxy.config.model as parts

            nested = getattr(parts, part, None)
            if isinstance(nested, type) and issubclass(nested, BaseModel):
                yield from keys(nested)


@pytest.mark.parametrize("key", sorted(set(keys(Document))))
def test_every_configuration_key_is_documented(key: str) -> None:
    assert re.search(rf"`[^`\n]*\b{re.escape(key)}\b", README), f"{key} is not in the README"


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_documented(metric: str) -> None:
    assert f"`{names.prometheus_name(metric)}" in README
