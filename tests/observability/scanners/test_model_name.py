"""Model names in queries and paths."""

import pytest

from observability.scanners.model_name import ModelName, model_in_path, model_in_query

NONE = ModelName(None, False)
QUERIES = {
    "": NONE,
    "?": NONE,
    "?a=model&models=x&Model=y": NONE,
    "?model=qwen-omni": ModelName("qwen-omni", True),
    "model=a": ModelName("a", True),
    "?x=1&model=a%2Fb%20c+d&y=2": ModelName("a/b c d", True),
    "?mod%65l=a": ModelName("a", True),
    "?model=%E9%80%9A": ModelName("通", True),
    "?model=a=b": ModelName("a=b", True),
    "?model": ModelName(None, True),
    "?model=": ModelName(None, True),
    "?model=%ff": ModelName(None, True),
    "?model=\udcff": ModelName(None, True),
    "?model=" + "m" * 16385: ModelName(None, True),
    "?model=a&model=b": ModelName("a", True, True),
    "?model=&model=b": ModelName(None, True, True),
    "?model=a&x=1&mod%65l=%62": ModelName("a", True, True),
    "?model=a&model=%61": ModelName("a", True),
}
PATHS = {
    "": NONE,
    "/": NONE,
    "/qwen-plus": ModelName("qwen-plus", True),
    "/qwen-plus/": ModelName("qwen-plus", True),
    "/Qwen/Qwen3-8B": ModelName("Qwen/Qwen3-8B", True),
    "/Qwen%2fQwen3-8B+x": ModelName("Qwen/Qwen3-8B+x", True),
    "/%ff": ModelName(None, True),
}


@pytest.mark.parametrize(("query", "expected"), QUERIES.items())
def test_reads_the_query(query: str, expected: ModelName) -> None:
    assert model_in_query(query) == expected
    assert model_in_query(query).model_valid == (expected.model is not None)


@pytest.mark.parametrize(("rest", "expected"), PATHS.items())
def test_reads_the_path(rest: str, expected: ModelName) -> None:
    assert model_in_path(rest) == expected
