"""Embeddings and rerank of DashScope's own protocol, and rerank and score as vLLM has them.

Relevance is the share of the query's words that a document has, and the first of two alike comes first.
"""

from __future__ import annotations

from typing import Any

from benchmarks.upstream.answers import (
    CREATED,
    JSON,
    TOKENS_PER_IMAGE,
    Asked,
    Reply,
    request_id,
    tokens_of,
)
from benchmarks.upstream.dashscope_tasks import submit, texts_of_a_file
from benchmarks.upstream.fills import parts_of
from benchmarks.upstream.ledger import Usage
from benchmarks.upstream.openai import DIMENSIONS, vector


def text_embedding(asked: Asked) -> Reply:
    """``text-embedding``: of ``input.texts``, or as a task of a file."""
    if asked.is_async:
        return submit(texts_of_a_file)(asked)
    texts = _list(asked.object("input").get("texts"))
    dimensions = int(asked.object("parameters").get("dimension") or DIMENSIONS)
    vectors = [{"text_index": n, "embedding": vector(_text(one), dimensions)} for n, one in enumerate(texts)]
    tokens = sum(_tokens(one) for one in texts)
    usage = Usage(tokens, documents=len(vectors) or None)
    return _native(asked, {"embeddings": vectors}, {"total_tokens": tokens}, usage)


def multimodal_embedding(asked: Asked) -> Reply:
    """``multimodal-embedding``: of ``input.contents``."""
    contents = _list(asked.object("input").get("contents"))
    vectors, text_tokens, pictures = [], 0, 0
    for index, content in enumerate(contents):
        kind = next(iter(content)) if isinstance(content, dict) and content else "text"
        value = content.get(kind) if isinstance(content, dict) else content
        vectors.append({"index": index, "embedding": vector(_text(value), DIMENSIONS), "type": kind})
        text_tokens += _tokens(value) if kind == "text" else 0
        pictures += kind != "text"
    tokens = {"text_tokens": text_tokens, "image_tokens": TOKENS_PER_IMAGE * pictures}
    total = sum(tokens.values())
    said = {"input_tokens": total, "input_tokens_details": tokens, "output_tokens": 1, "total_tokens": total + 1}
    usage = Usage(total, 1, image_tokens=tokens["image_tokens"], documents=len(vectors) or None)
    return _native(asked, {"embeddings": vectors}, said, usage)


def text_rerank(asked: Asked) -> Reply:
    """``text-rerank``: ``input.query`` and ``input.documents``."""
    given, parameters = asked.object("input"), asked.object("parameters")
    results, tokens = _ranked(given.get("query"), given.get("documents"), parameters.get("top_n"))
    if parameters.get("return_documents") is not True:
        results = [{key: result[key] for key in ("index", "relevance_score")} for result in results]
    return _native(asked, {"results": results}, {"total_tokens": tokens}, Usage(tokens, documents=len(results) or None))


def reranks(asked: Asked) -> Reply:
    """``/compatible-api/v1/reranks``: flat, as OpenAI would have it."""
    document = asked.document
    results, tokens = _ranked(document.get("query"), document.get("documents"), document.get("top_n"))
    results = [{key: result[key] for key in ("index", "relevance_score")} for result in results]
    name = request_id(asked.upload.digest)
    body = {"object": "list", "results": results, "model": asked.model, "id": name}
    return _flat(asked, body, {"total_tokens": tokens}, Usage(tokens, documents=len(results) or None))


def rerank(asked: Asked) -> Reply:
    """``/rerank`` of vLLM."""
    document = asked.document
    results, tokens = _ranked(document.get("query"), document.get("documents"), document.get("top_n"))
    body = {"id": "rerank-" + asked.name, "model": asked.model, "results": results}
    said = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _flat(asked, body, said, Usage(tokens, documents=len(results) or None))


def score(asked: Asked) -> Reply:
    """``/score`` of vLLM: a pair for each of the second, whatever the pair of names."""
    document = asked.document
    pairs = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
    one, other = next((pair for pair in pairs if pair[0] in document and pair[1] in document), pairs[0])
    queries, items = _list(document.get(one)), _list(document.get(other))
    if len(queries) == 1:
        queries *= len(items)
    data = [{"index": n, "object": "score", "score": _relevance(_text(query), _text(item))}
            for n, (query, item) in enumerate(zip(queries, items, strict=False))]  # fmt: skip
    tokens = sum(_tokens(text) for text in (*queries, *items))
    body = {"id": "score-" + asked.name, "object": "list", "created": CREATED, "model": asked.model, "data": data}
    said = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
    return _flat(asked, body, said, Usage(tokens, 0, documents=len(data) or None))


def _native(asked: Asked, output: dict[str, Any], said: dict[str, Any], usage: Usage) -> Reply:
    name = request_id(asked.upload.digest)
    return _flat(asked, {"output": output, "request_id": name}, said, usage, name)


def _flat(asked: Asked, body: dict[str, Any], said: dict[str, Any], usage: Usage, name: str = "") -> Reply:
    if asked.script.usage == "absent":
        usage = Usage(documents=usage.documents)
    else:
        body["usage"] = said
    return Reply(JSON, name or asked.name, parts_of(body), usage=usage)


def _ranked(query: object, documents: object, top_n: object) -> tuple[list[dict[str, Any]], int]:
    """The results, best first, and the tokens of the query and of all documents."""
    asked, given = _text(query), _list(documents)
    results = [{"index": n, "relevance_score": _relevance(asked, _text(one)), "document": {"text": _text(one)}}
               for n, one in enumerate(given)]  # fmt: skip
    results.sort(key=lambda result: -float(str(result["relevance_score"])))
    count = top_n if isinstance(top_n, int) and top_n > 0 else len(results)
    return results[:count], _tokens(query) + sum(_tokens(one) for one in given)


def _relevance(query: str, document: str) -> float:
    words = set(query.lower().split())
    return round(len(words & set(document.lower().split())) / (len(words) or 1), 4)


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _text(value: object) -> str:
    return str(value.get("text", "")) if isinstance(value, dict) else str(value)


def _tokens(value: object) -> int:
    return tokens_of(len(_text(value).encode()))
