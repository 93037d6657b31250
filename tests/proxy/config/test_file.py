"""Reading a file: the environment, secrets in files, overrides, and `sluiceway check`."""

from io import StringIO
from pathlib import Path

import pytest

from proxy.config.check import check
from proxy.config.file import ConfigError, load, parse
from tests.proxy.config.files import CONTRACT, ENVIRON, changed, complaints


class TestEnvironment:
    """`${NAME}` and `${NAME:-default}`."""

    @pytest.mark.parametrize(
        ("written", "environ", "value"),
        [
            ("${A}", {"A": "x"}, "x"),
            ("${A}", {"A": ""}, ""),
            ("${A:-d}", {"A": "x"}, "x"),
            ("${A:-d}", {"A": ""}, "d"),
            ("${A:-d}", {}, "d"),
            ("${A:-}", {}, ""),
            ("${A}-${B:-d}-${A}", {"A": "x"}, "x-d-x"),
            ("${A}", {"A": "${B}", "B": "never"}, "${B}"),
            ("$A", {"A": "x"}, "$A"),
            ("$$", {}, "$$"),
        ],
    )
    def test_texts(self, written: str, environ: dict[str, str], value: str) -> None:
        text = changed(("model_apis.0.resource_group", written))
        document = parse(text, ENVIRON | environ, "test")
        assert document.model_apis[0].resource_group == value
        assert type(document.model_apis[0].resource_group) is str

    def test_numbers_and_switches(self) -> None:
        text = changed(
            ("workers", "${N}"), ("drain_delay_ms", "${MS:-250}"), ("allow_open", "${B}"), ("observers", "${AUTO}")
        )
        document = parse(text, ENVIRON | {"N": "3", "B": "true", "AUTO": "auto"}, "test")
        assert (document.workers, document.observers) == (3, "auto")
        assert (document.drain_delay_ms, document.allow_open) == (250, True)

    def test_what_it_supplies_never_becomes_structure(self) -> None:
        text = changed(("model_apis.0.resource_group", "${A}"))
        document = parse(text, ENVIRON | {"A": "x, y: {z: 1}\nlisten: 0.0.0.0:1"}, "test")
        assert document.model_apis[0].resource_group == "x, y: {z: 1}\nlisten: 0.0.0.0:1"
        assert document.listen == "127.0.0.1:8080"

    def test_an_unset_variable_is_named(self) -> None:
        (found,) = complaints(CONTRACT, {"DASHSCOPE_API_KEY": "k"})
        assert found.path == "consumers[0].keys[0]"
        assert "SEARCH_TEAM_KEY is not set" in found.wrong
        assert "${SEARCH_TEAM_KEY:-default}" in found.right

    def test_every_unset_variable_is_told(self) -> None:
        assert [complaint.path for complaint in complaints(CONTRACT, {})] == [
            "services[0].api_keys[0]",
            "consumers[0].keys[0]",
        ]

    @pytest.mark.parametrize("written", ["${", "${A", "${1A}", "${A-b}", "x${}"])
    def test_an_incomplete_reference(self, written: str) -> None:
        (found,) = complaints(changed(("model_apis.0.resource_group", written)))
        assert found.path == "model_apis[0].resource_group"
        assert "not complete" in found.wrong


class TestSecretFiles:
    """`file:PATH`, where a secret stands."""

    def test_every_place(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("s3cret\n", encoding="utf-8")
        text = changed(
            ("admin.token", f"file:{secret}"),
            ("services.0.api_keys", ["file:${WHERE}"]),
            ("services.0.headers", {"x-secret": f"file:{secret}"}),
            ("consumers.0.keys", [f"file:{secret}"]),
            ("consumers.0.labels", {"token": f"file:{secret}"}),
        )
        document = parse(text, {"WHERE": str(secret)}, "test")
        assert document.admin.token == "s3cret"
        assert document.services[0].api_keys == ["s3cret"]
        assert document.services[0].headers == {"x-secret": "s3cret"}
        assert document.consumers[0].keys == ["s3cret"]
        assert document.consumers[0].labels == {"token": f"file:{secret}"}  # labels are shown to everybody

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        (found,) = complaints(changed(("services.0.api_keys", [f"file:{tmp_path}/nowhere"])))
        assert found.path == "services[0].api_keys[0]"
        assert f"{tmp_path}/nowhere cannot be read (No such file or directory)" in found.wrong

    @pytest.mark.parametrize(
        ("content", "wrong"), [(b"\xff\xfe", "is not text"), (b"x" * 70_000, "too large"), (b"\n", "the key is empty")]
    )
    def test_a_file_that_holds_no_secret(self, tmp_path: Path, content: bytes, wrong: str) -> None:
        (tmp_path / "secret").write_bytes(content)
        (found,) = complaints(changed(("services.0.api_keys", [f"file:{tmp_path}/secret"])))
        assert found.path == "services[0].api_keys[0]"
        assert wrong in found.wrong


def test_overrides_replace_what_the_file_says_and_are_checked_with_it() -> None:
    document = parse(CONTRACT, ENVIRON, "test", {"listen": "127.0.0.1:1", "workers": 2})
    assert (document.listen, document.workers) == ("127.0.0.1:1", 2)
    with pytest.raises(ConfigError, match=r"model_apis\[0\]\.auth"):
        parse(changed(("model_apis.0.auth", "open")), ENVIRON, "test", {"listen": "0.0.0.0:1"})


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "sluiceway.yaml"
    path.write_text(CONTRACT, encoding="utf-8")
    assert load(path, ENVIRON) == load(str(path), ENVIRON) == parse(CONTRACT, ENVIRON, path)


@pytest.mark.parametrize(("content", "wrong"), [(None, "No such file"), (b"\xff", "not UTF-8")])
def test_a_file_that_cannot_be_loaded(tmp_path: Path, content: bytes | None, wrong: str) -> None:
    path = tmp_path / "sluiceway.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    (found,) = caught.value.complaints
    assert found.path == str(path)
    assert wrong in found.wrong


class TestCheck:
    """`sluiceway check`."""

    def test_a_good_file(self, tmp_path: Path) -> None:
        path = tmp_path / "sluiceway.yaml"
        path.write_text(CONTRACT, encoding="utf-8")
        out = StringIO()
        assert check(path, ENVIRON, out) == 0
        assert out.getvalue() == f"{path}: good (1 service, 1 consumer, 1 Model API)\n"

    def test_a_bad_file(self, tmp_path: Path) -> None:
        path = tmp_path / "sluiceway.yaml"
        path.write_text(changed(("lisen", 1), ("workers", 0)), encoding="utf-8")
        out = StringIO()
        assert check(path, ENVIRON, out) == 2
        assert out.getvalue().splitlines() == [
            "workers: 0 is not possible; use auto, or a number from 1 to 1024",
            "lisen: this key is unknown; did you mean listen?",
        ]

    def test_no_file(self, tmp_path: Path) -> None:
        out = StringIO()
        assert check(tmp_path / "nowhere.yaml", {}, out) == 2
        assert "cannot be read" in out.getvalue()
