"""The clocks of an exchange."""

from observability.observation import Observation
from observability.sampling import TraceContext
from observability.scanners import response_scanner

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'


def test_the_first_event_is_no_comment_and_the_first_token_no_role():
    seen = Observation("0" * 32, TraceContext("a" * 32, None, None, None), "c" * 16, "d" * 16)
    seen.scanner = response_scanner("openai", "chat.completions", "text/event-stream", 200)
    told = []
    for piece in (b": keep-alive\n\n", ROLE[:9], ROLE[9:], TEXT, TEXT):
        seen.tap(piece)
        told.append((bool(seen.first_event_ns), bool(seen.first_token_ns)))
    assert told == [(False, False), (False, False), (True, False), (True, True), (True, True)]
    assert seen.accepted_ns <= seen.first_event_ns <= seen.first_token_ns
