"""Where a credential is read, and whom it lets in."""

from hashlib import sha256

import pytest
from multidict import CIMultiDict

from proxy.auth import admit, authenticate, credential_of
from proxy.config.compile import compile_snapshot
from proxy.config.file import parse
from proxy.config.snapshot import Snapshot
from proxy.errors import GatewayError

FILE = """
services: [{name: up, provider: vllm, base_url: "http://127.0.0.1:1"}]
consumers:
  - {name: search, keys: [k-search, k-search-2], labels: {team: search}}
  # the key is k-hashed
  - {name: hashed, keys: ["sha256:F72DC5244548ED78AAA1BC935A4FD11E4E9F8DE6D3DA6C29ADBCF48F442E604B"]}
model_apis:
  - {name: all, scenario: text, protocols: [openai], routing: {single: {service: up}}}
  - {name: some, scenario: text, protocols: [openai], base_path: /some, consumers: [search],
     routing: {single: {service: up}}}
  - {name: through, scenario: text, protocols: [openai], base_path: /through, auth: passthrough,
     routing: {single: {service: up}}}
  - {name: open, scenario: text, protocols: [openai], base_path: /open, auth: open, routing: {single: {service: up}}}
"""


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return compile_snapshot(parse(FILE, {}, "test"), 1)


def enter(snapshot: Snapshot, name: str, credential: str | None) -> str | None:
    """The consumer's name, or the kind of the error."""
    model_api = next(one for one in snapshot.model_apis if one.name == name)
    try:
        consumer = authenticate(model_api, snapshot, credential)
        if consumer is not None:
            admit(consumer, model_api)
    except GatewayError as error:
        return error.kind
    return consumer.name if consumer else None


@pytest.mark.parametrize(
    ("headers", "credential"),
    [
        ({"Authorization": "Bearer k"}, "k"),
        ({"authorization": "bearer   k "}, "k"),
        ({"X-Api-Key": "k"}, "k"),
        ({"api-key": " k "}, "k"),
        ({"Authorization": "Bearer first", "x-api-key": "second"}, "first"),
        ({"Authorization": "Basic dTpw", "x-api-key": "second"}, "second"),
        ({"Authorization": "Bearer ", "api-key": "third"}, "third"),
        ({"Authorization": "k"}, None),
        ({"Authorization": "Bearer a b"}, None),
        ({"x-api-key": ""}, None),
        ({"x-api-key": "schlüssel"}, None),
        ({"x-api-key": "\udcff"}, None),
        ({}, None),
    ],
)
def test_where_a_credential_is_read(headers: dict[str, str], credential: str | None) -> None:
    assert credential_of(CIMultiDict(headers)) == credential


@pytest.mark.parametrize(
    ("model_api", "credential", "result"),
    [
        ("all", "k-search", "search"),
        ("all", "k-search-2", "search"),
        ("all", "k-hashed", "hashed"),
        ("all", "k-other", "unauthenticated"),
        ("all", None, "unauthenticated"),
        ("some", "k-search", "search"),
        ("some", "k-hashed", "forbidden"),
        ("some", "k-other", "unauthenticated"),
        ("through", "anything", None),
        ("through", None, "unauthenticated"),
        ("open", None, None),
        ("open", "anything", None),
    ],
)
def test_who_may_enter(snapshot: Snapshot, model_api: str, credential: str | None, result: str | None) -> None:
    assert enter(snapshot, model_api, credential) == result


def test_a_digest_is_no_credential(snapshot: Snapshot) -> None:
    digest = sha256(b"k-hashed").hexdigest()
    assert enter(snapshot, "all", f"sha256:{digest}") == "unauthenticated"
    assert enter(snapshot, "all", digest) == "unauthenticated"


def test_the_consumer_comes_with_its_labels(snapshot: Snapshot) -> None:
    consumer = snapshot.consumer_of("k-search")
    assert consumer is not None
    assert consumer.labels == {"team": "search"}


def test_messages_say_what_would_be_right(snapshot: Snapshot) -> None:
    some = next(one for one in snapshot.model_apis if one.name == "some")
    with pytest.raises(GatewayError, match="Authorization: Bearer"):
        authenticate(some, snapshot, None)
    with pytest.raises(GatewayError, match="hashed may not use Model API some"):
        admit(snapshot.consumers["hashed"], some)


def test_messages_repeat_no_credential(snapshot: Snapshot) -> None:
    for model_api in snapshot.model_apis[:2]:
        with pytest.raises(GatewayError) as caught:
            authenticate(model_api, snapshot, "k-other")
        assert "k-other" not in caught.value.message


def test_no_plain_key_is_kept(snapshot: Snapshot) -> None:
    assert "k-search" not in repr(snapshot)
    assert all(len(digest) == 32 for digest in snapshot._by_digest)
