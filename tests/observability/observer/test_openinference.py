"""Recorded content in OpenInference's attributes: what Phoenix would show wrong is said in its own words."""

import json

import pytest

from observability import names
from observability.observer.content.fit import fit
from observability.observer.events import without_content
from observability.observer.openinference import PREVIEW_CHARACTERS, add_content
from observability.observer.spans import SpanEncoder
from tests.fakes.otlp_sink import attributes_of
from tests.observability.observer.content.test_messages import ANSWERED, ASKED
from tests.observability.observer.test_spans import spans_of
from tests.observability.records import record

TEXT = {"type": "text", "content": "What is this?"}
IMAGE = {
    "type": "blob",
    "modality": "image",
    "mime_type": "image/png",
    "content": "",
    "bytes": 40073,
    "sha256": "545089b951fc6b96",
    "width": 640,
    "height": 480,
}
SOUND = {"type": "blob", "modality": "audio", "mime_type": "audio/wav", "content": "", "bytes": 12}
SHOWN = "[image/png, 640x480, 40,073 bytes, sha256 545089b951fc]"
CALL = {"type": "tool_call", "name": "stock", "arguments": {"article": "cleat"}, "id": "call_1"}
RESPONSE = {"type": "tool_call_response", "response": [{"pieces": 12}], "id": "call_1"}


def said(role, *parts, **more):
    return {"role": role, "parts": list(parts), **more}


def added(fields):
    server, client = {}, {}
    add_content(fields, server, client)
    return server, client


def asked(*messages, **fields):
    return added({names.GEN_AI_INPUT_MESSAGES: json.dumps(messages), **fields})


def test_nothing_of_nothing():
    assert added({names.GEN_AI_OPERATION_NAME: "chat"}) == ({}, {})
    assert asked() == ({}, {})  # messages that did not fit at all


def test_both_spans_have_the_last_message_as_text():
    answer = {names.GEN_AI_OUTPUT_MESSAGES: json.dumps([said("assistant", {"type": "text", "content": "A boat."})])}
    server, client = asked(said("system", {"type": "text", "content": "Be brief."}), said("user", TEXT), **answer)
    assert (
        server
        == client
        == {
            "input.value": "What is this?",
            "input.mime_type": "text/plain",
            "output.value": "A boat.",
            "output.mime_type": "text/plain",
        }
    )


def test_the_first_span_has_its_beginning_alone():
    text = "x" * (PREVIEW_CHARACTERS + 1)
    server, client = asked(said("user", {"type": "text", "content": text}))
    assert (server["input.value"], client["input.value"]) == (text[:-1] + "…", text)


def test_what_phoenix_shows_right_is_not_said_twice():
    picture = {"type": "uri", "modality": "image", "uri": "https://x.example/a.png"}
    _, client = asked(said("user", TEXT, picture), said("assistant", CALL), said("tool", RESPONSE))
    assert client == {"input.value": '[{"pieces":12}]', "input.mime_type": "text/plain"}


def test_files_are_shown_by_their_facts():
    system = {names.GEN_AI_SYSTEM_INSTRUCTIONS: json.dumps([{"type": "text", "content": "Be brief."}])}
    server, client = asked(said("user", IMAGE, TEXT), said("assistant", CALL), said("tool", RESPONSE), **system)
    assert server["input.value"] == '[{"pieces":12}]'
    place = "llm.input_messages"
    assert {name: value for name, value in client.items() if name.startswith("llm.")} == {
        f"{place}.0.message.role": "system",
        f"{place}.0.message.contents.0.message_content.type": "text",
        f"{place}.0.message.contents.0.message_content.text": "Be brief.",
        f"{place}.1.message.role": "user",
        f"{place}.1.message.contents.0.message_content.type": "text",
        f"{place}.1.message.contents.0.message_content.text": SHOWN,
        f"{place}.1.message.contents.1.message_content.type": "text",
        f"{place}.1.message.contents.1.message_content.text": "What is this?",
        f"{place}.2.message.role": "assistant",
        f"{place}.2.message.tool_calls.0.tool_call.id": "call_1",
        f"{place}.2.message.tool_calls.0.tool_call.function.name": "stock",
        f"{place}.2.message.tool_calls.0.tool_call.function.arguments": '{"article":"cleat"}',
        f"{place}.3.message.role": "tool",
        f"{place}.3.message.tool_call_id": "call_1",
        f"{place}.3.message.contents.0.message_content.type": "text",
        f"{place}.3.message.contents.0.message_content.text": '[{"pieces":12}]',
    }


def test_an_answer_with_a_file():
    picture = {"type": "uri", "modality": "image", "uri": "https://x.example/a.png"}
    thought = {"type": "reasoning", "content": "Let me see."}
    file = {"type": "file", "modality": "document", "file_id": "file-1"}
    message = said("assistant", thought, picture, SOUND, file, finish_reason="stop")
    server, client = added({names.GEN_AI_OUTPUT_MESSAGES: json.dumps([message])})
    assert server["output.value"] == "https://x.example/a.png\n[audio/wav, 12 bytes]\n[document file-1]"
    place = "llm.output_messages.0.message"
    assert client[f"{place}.finish_reason"] == "stop"
    assert [client[f"{place}.contents.{n}.message_content.type"] for n in range(4)] == [
        "reasoning",
        "image",
        "text",
        "text",
    ]
    assert client[f"{place}.contents.1.message_content.image.image.url"] == "https://x.example/a.png"


def test_what_was_embedded():
    texts = [{"type": "text", "content": text} for text in ("mooring lines", "fenders")]
    server, client = asked(said("user", *texts, IMAGE), **{names.GEN_AI_OPERATION_NAME: "embeddings"})
    assert server["input.value"] == f"mooring lines\nfenders\n{SHOWN}"
    embedded = [client[f"embedding.embeddings.{number}.embedding.text"] for number in range(3)]
    assert embedded == ["mooring lines", "fenders", SHOWN]


def test_an_error_stands_where_the_answer_would():
    error = '{"error":{"code":"bad"}}'
    server, client = asked(said("user", TEXT), **{names.SLUICEWAY_ERROR_BODY: error})
    shown = (client["output.value"], client["output.mime_type"], server["output.value"])
    assert shown == (error, "application/json", error)
    begun = json.dumps([said("assistant", TEXT, finish_reason="error")])
    _, client = added({names.GEN_AI_OUTPUT_MESSAGES: begun, names.SLUICEWAY_ERROR_BODY: error})
    assert client["output.value"] == "What is this?"


def test_where_spans_carry_no_content_they_carry_none_of_it():
    fields = {names.GEN_AI_INPUT_MESSAGES: json.dumps([said("user", IMAGE, TEXT)]), names.SLUICEWAY_ERROR_BODY: "1"}
    content = record(fields, compat=["openinference"])
    assert "input.value" in attributes_of(spans_of(content)[0])
    spared = [attributes_of(span) for span in spans_of(without_content(content))]
    assert not [name for attributes in spared for name in attributes if name.startswith(("input.", "output.", "llm."))]


def test_names_with_numbers_in_them_are_not_remembered():
    encoder = SpanEncoder(length_max=200)
    encoder.encode(record(compat=["openinference"]))
    fields = {names.GEN_AI_INPUT_MESSAGES: json.dumps([said("user", IMAGE)] * 50)}
    content = record(fields, compat=["openinference"])
    encoder.encode(content)
    assert not [name for name in encoder._fields if "0" in name]
    _, client = spans_of(content)
    assert attributes_of(client)["llm.input_messages.49.message.contents.0.message_content.text"] == SHOWN


@pytest.mark.parametrize("operation", ["chat", "embeddings"])
@pytest.mark.parametrize("max_bytes", [200, 500, 65536])
@pytest.mark.parametrize("document", [*(case[2] for case in ASKED), *(case[2] for case in ANSWERED)])
def test_any_shape_of_any_length_becomes_texts(document, max_bytes, operation):
    said = fit(document, max_bytes).json
    server, client = added(
        {
            names.GEN_AI_OPERATION_NAME: operation,
            names.GEN_AI_INPUT_MESSAGES: said,
            names.GEN_AI_SYSTEM_INSTRUCTIONS: fit([TEXT, IMAGE] * 20, max_bytes).json,
            names.GEN_AI_OUTPUT_MESSAGES: said,
        }
    )
    assert {type(value) for value in (*server.values(), *client.values())} <= {str}
