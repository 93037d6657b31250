"""What is taken out of recorded text, what is left in it, and what no hostile text can do."""

import random
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.redaction import MARGIN, REDACTED, PatternError, Redaction, compile_own, is_secret_name

PLAIN = Redaction()

# text with the secret in brackets: what is to be gone, and nothing else of the text
SECRETS = [
    "key {sk-proj-abcDEF_123456} ok",
    "{sk-ant-api03-abcdefghijkl}",
    "Authorization: {Bearer abc.def-123}",
    "the header was Bearer {eyJhbGciOi.x-1}",
    "curl -H 'x-api-key: {hunter2222}' https://example.com",
    '{{"password": "{hunter2}"}}',
    r"{{\"password\": \"{hunter2}\"}}",
    "PassWord={hunter2}; next",
    "aws_secret_access_key = {wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY}",
    "id {AKIAIOSFODNN7EXAMPLE} and",
    "{LTAI5tABCDEFGHIJKLMN}",
    "accessKeySecret: {abcdefghijklmnopqrstuvwxyz0123}",
    "{AIzaSyA-1234567890abcdefghijklmnopqrstu}",
    "{ghp_abcdefghijklmnopqrstuvwxyz0123456789} pushed",
    "{xoxb-123456789012-abcdefghij}",
    "{eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc_def-g}",
    "write to {jane.doe+x@mail.example.co.uk}, please",
    "card {4111 1111 1111 1111}.",
    "card {5500-0000-0000-0004}, thanks",
    "{378282246310005}",
    "call {+49 (0)30 1234-5678} now",
    "call {+1 415 555 2671}",
    "手机 {13812345678}，谢谢",
    "call {(415) 555-2671} or",
    "https://b.oss.example.com/a.png?Expires=1&OSSAccessKeyId={LTAI5t123}&Signature={abc%2Bdef}&x=1",
    "https://x.example/?X-Amz-Credential={AKIA/2026}&X-Amz-Signature={0123abcd}",
    "postgres://{bob:s3cret}@db.example/x",
    "a {-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----} b",
    # a text that is JSON itself, or a part of a URL: what stands before is no word
    r"text\n{sk-abcdef1234567890} ok",
    r"text\t{AKIAIOSFODNN7EXAMPLE} ok",
    r"text\u000a{ghp_abcdefghijklmnopqrstuvwxyz0123456789} ok",
    r"text\nBearer {abc.def-123} ok",
    r"text\n{+49 30 12345678}, ok",
    r"text\n{13812345678}, ok",
    "q=%3D{sk-abcdef1234567890} ok",
    r"https://x.example/?a=1\u0026Signature={abcdefgh}&b",
    "https://x.example/?a=1&amp;Signature={abcdefgh}&b",
    "https://x.example/#access_token={abcdefgh}&b",
    # whoever pays by card says more than its number
    "pay {4111 1111 1111 1111} 12/27 ok",
    "pay {4111 1111 1111 1111} 123 ok",
    "pay {4111111111111111} 123 ok",
    "pay {3782 822463 10005} 12/27 ok",
    "pay {6222-0212-3456-7890-128} 12/27 ok",
    "two: 2 {4111 1111 1111 1111} {5500-0000-0000-0004} ok",
    "call {1-415-555-2671} ok",
    "call {+49 170 1234567} 2026-11-21 ok",
    'password: "{correct horse battery staple}" ok',
    "passphrase='{a, b; c}' ok",
    r"""{{"password": "{say \"friend\", and enter}"}}""",
    r"{{\"password\": \"{ab cd efgh}\"}}",
    '"private_key": "{' + "a-b " * 300 + '}"',
    '{{"token": "{abcdefghijklmnop}"}}',
    "the token: {abcdefghijklmnop} ok",
    "redis://{:s3cret}@db.example:6379/0",
    "postgres://{bob:s3@cret}@db.example/x",
    "{gsk_abcdefghijklmnop} and {xai-abcdefghijklmnop} ok",
]
INNOCENT = [
    "The token is fine, max_tokens=4096 and top_k: 12345678.",
    "basic information about bearer certificates",
    "4111 1111 1111 1112 has the wrong check digit",
    "1732213213123 is a time, 2026-11-21 12:30:00 too, pi is 3.14159265358979",
    "the password policy of task-based desks: ask-me-anything",
    "version 1.2.3-4567890, 192.168.100.200, build 20261121",
    "a@b, @team, user@, C++ and [key]: value",
    "sk-1",
    "secret: {}",
    "token: none, next_token=7, tokens: abcdefghijklmnopqr",
    'password: "", next: "abcdefgh"',
    "1111 2222 3333 4444 5555 6666 7777",
    "2019 2020 2021 2022 of 2020 2021 2022 2023 2024 2025 2026",
    "naïve İstanbul ☃ 你好",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_taken_out(text):
    text = text.replace("{{", "\1").replace("}}", "\2")
    secrets = [part.partition("}")[0] for part in text.split("{")[1:]]
    plain = text.replace("{", "").replace("}", "").replace("\1", "{").replace("\2", "}")
    redacted = PLAIN.text(plain)
    assert all(secret not in redacted for secret in secrets), redacted
    assert REDACTED in redacted
    for around in (text.partition("{")[0][:3], text.rpartition("}")[2][-3:]):
        assert around.replace("\1", "{").replace("\2", "}") in redacted


@pytest.mark.parametrize("text", INNOCENT)
def test_the_rest_stays(text):
    assert PLAIN.text(text) == text


@given(
    before=st.text(max_size=50),
    secret=st.text(string.ascii_letters + string.digits, min_size=20, max_size=60),
    cut=st.integers(1, 70),
)
def test_a_secret_that_was_cut_does_not_show_its_beginning(before, secret, cut):
    before = before.replace(secret[:8], "")
    own = Redaction([r"CUSTOMER\[[0-9A-Za-z]+\]"])
    whole = f"{before} CUSTOMER[{secret}]"
    kept = (whole + " and more")[: max(1, len(whole) - cut)]
    assert secret[:8] not in own.text("x" * MARGIN + kept, cut=True)
    token = f"{before} sk-{secret}"
    assert secret[:8] not in PLAIN.text(token[: max(1, len(token) - min(cut, 10))])


def test_the_end_of_a_cut_text_is_given_up_whatever_redaction_made_shorter():
    text = "sk-" + "a" * 3 * MARGIN + " CUST-12"  # the last is cut: its format wants six digits
    assert "CUST" not in Redaction(["CUST-[0-9]{6}"]).text(text, cut=True)


def test_own_expressions_come_first_and_everywhere():
    own = Redaction(["CUST-[0-9]{6}", "(?i)project falcon"])
    assert own.text("CUST-123456 of Project FALCON, CUST-12") == f"{REDACTED} of {REDACTED}, CUST-12"


@pytest.mark.parametrize("pattern", ["(unbalanced", "(?<=a)b", r"(.)\1", "a*", r"\b", "((a{100}){100}){100}"])
def test_expressions_that_cannot_be_used(pattern):
    with pytest.raises(PatternError) as raised:
        compile_own(pattern)
    assert pattern not in str(raised.value)


@pytest.mark.parametrize(
    "name",
    ["password", "DB_PASSWORD", "api_key", "x-api-key", "clientSecret", "dbPassword", "api_keys", "Authorization"],
)
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["max_tokens", "token_count", "keyboard", "secretary", "input", "a" * 100 + "password"]
)
def test_other_names(name):
    assert not is_secret_name(name)


FRAGMENTS = [part for text in (*SECRETS, *INNOCENT) for part in (text.strip("{}"), *text.replace("{", " ").split())]


@given(
    st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=6), st.sampled_from(["", " ", "\n", "\u2003"])
)
def test_no_text_is_passed_over_that_has_something(parts, between):
    thorough = Redaction()
    thorough._suspicious = compile_own("(?s)^.")
    text = between.join(parts)
    assert PLAIN.text(text) == (thorough.text(text) if text else "")


HOSTILE = [
    "1-", "1 ", "+1", "a@", "a", ".a@", "key=", "secret_", "password ", "-----BEGIN PRIVATE KEY----- ", "bearer ",
    "://a:", "?aaaaaaaaaaaaaaatoken", "eyJ", "+1().", "86 1", "api_", "token" + " " * 40, "authorization    ", "sk-",
    "A=", "1().", 'password="', "password=\\\"a", "://a:b@", "4111 1111 ", r"\nsk-", "4 ", "%2",
]  # fmt: skip
SUFFIXES = ["", "@", "=", ":", "!", "1234567 key secret token password authorization bearer sk- private @ ://"]


@pytest.mark.parametrize("unit", HOSTILE)
def test_work_is_in_proportion_to_the_text(unit):
    def cost(size: int) -> float:
        costs = []
        for suffix in SUFFIXES:
            text = (unit * (size // len(unit))) + suffix
            began = time.process_time()
            PLAIN.text(text)
            costs.append(time.process_time() - began)
        return max(costs)

    small = min(cost(8_000) for _ in range(3))
    assert min(cost(64_000) for _ in range(3)) < 24 * small + 0.005  # squared it would be 64 times as much


def test_an_expression_that_would_backtrack_for_ever_elsewhere_ends():
    own = Redaction(["(a+)+$", "(a|aa)+b", "(.*)(.*)(.*)(.*)x"])
    text = "a" * 60_000
    assert own.text(text + "!") == text + "!"


@given(st.text(max_size=300))
def test_any_text_is_taken(text):
    PLAIN.text(text)
    PLAIN.text(text, cut=True)


def test_prose_is_left_as_it_is():
    generator = random.Random(7)
    words = ["".join(generator.choices(string.ascii_lowercase, k=generator.randint(2, 9))) for _ in range(500)]
    prose = " ".join(generator.choice(words) for _ in range(5000))
    assert PLAIN.text(prose) == prose
