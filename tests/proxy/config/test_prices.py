"""The `prices` file: what it may say, what is complained about, and which entry counts."""

from pathlib import Path

import orjson
import pytest

from observability.prices import Price
from proxy.config.compile import compile_snapshot
from proxy.config.file import parse, validated
from proxy.config.prices import KNOWN_MAX, NAME_CHARACTERS_MAX, PriceTable
from proxy.config.seal import plain_of, seal_of
from tests.proxy.config.files import ENVIRON, changed, complaints

GOOD = """\
currency: CNY
models:
  - {match: qwen-plus, service: qwen, input: 0.8, cached_input: 0.16, output: 2, reasoning: 8}
  - {match: "qwen-*", input: 1, output: 4}
  - {match: wan-image, image: 0.2}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


def table_of(path: Path) -> PriceTable:
    document = parse(changed(("prices", str(path))), ENVIRON, "sluiceway.yaml")
    # as a worker gets it from control: it must not need the file
    again = validated(orjson.loads(orjson.dumps(plain_of(document))))
    table = compile_snapshot(again, 1, {}).telemetry.prices
    assert isinstance(table, PriceTable)
    return table


def price(table: PriceTable, service: str, model: str) -> Price | None:
    found = table.of(service, model)
    assert table.of(service, model) is found is table._known[service, model]
    return None if found is None else Price._make(orjson.loads(orjson.dumps(found)))


def test_the_first_entry_that_fits_counts(file: Path) -> None:
    table = table_of(file)
    assert price(table, "qwen", "qwen-plus") == Price("CNY", 0.8, 0.16, None, 2.0, 8.0, None, None, None)
    assert price(table, "other", "qwen-plus") == Price("CNY", 1.0, None, None, 4.0, None, None, None, None)
    assert price(table, "other", "wan-image") == Price("CNY", None, None, None, None, None, 0.2, None, None)
    assert price(table, "qwen", "gpt-5") is None
    assert price(table, "qwen", "") is None


def test_what_is_remembered_is_bounded() -> None:
    table = PriceTable([(None, "*", Price("USD", 1.0, None, None, None, None, None, None, None))])
    for number in range(KNOWN_MAX + 10):
        assert table.of("qwen", f"m-{number}") is not None
    assert len(table._known) == KNOWN_MAX


def test_a_name_that_no_model_has_is_neither_priced_nor_remembered() -> None:
    table = PriceTable([(None, "*", Price("USD", 1.0, None, None, None, None, None, None, None))])
    assert table.of("qwen", "m" * NAME_CHARACTERS_MAX) is not None
    assert table.of("qwen", "m" * (NAME_CHARACTERS_MAX + 1)) is None
    assert len(table._known) == 1


def test_without_a_file_there_are_none() -> None:
    assert compile_snapshot(parse(changed(), ENVIRON, "f"), 1, {}).telemetry.prices is None


def test_a_changed_file_is_another_configuration(file: Path) -> None:
    text = changed(("prices", str(file)))
    seals = []
    for content in (GOOD, GOOD, GOOD.replace("0.16", "0.17")):
        file.write_text(content, encoding="utf-8")
        seals.append(seal_of(parse(text, ENVIRON, "f"), "00"))
    assert seals[0] == seals[1] != seals[2]


@pytest.mark.parametrize(
    ("content", "path", "wrong", "right"),
    [
        (GOOD.replace("output: 4", "outptu: 4"), "prices.models[1].outptu", "", "did you mean output?"),
        (GOOD.replace("0.8", "-1"), "prices.models[0].input", "-1", "a number from 0 to 1000000"),
        (GOOD.replace("0.8", "'0.8'"), "prices.models[0].input", "", "a number is expected"),
        (GOOD.replace("0.8", ".nan"), "prices.models[0].input", "nan", "a number from 0"),
        (GOOD.replace("0.8", "true"), "prices.models[0].input", "", "a number is expected"),
        (GOOD.replace("CNY", "yuan"), "prices.currency", "yuan", "CNY"),
        (GOOD.replace("match: qwen-plus, ", ""), "prices.models[0].match", "", ""),
        (GOOD.replace("service: qwen", "service: quen"), "prices.models[0].service", "quen", "did you mean qwen?"),
        ("currency: USD\n", "prices.models", "", ""),
        ("- a\n", "prices", "holds no mapping", "currency: and models:"),
        ("", "prices", "holds no mapping", ""),
        ("models: [a\nb: 1", "prices", "a bracket [ is opened and not closed", "close it"),
        ("a: 1\na: 2\n", "prices", "the key a stands there twice", "keep one of the two"),
        ("x" * (1 << 20) + "yy", "prices", "has more than 1048576 bytes", ""),
    ],
)
def test_complaints(file: Path, content: str, path: str, wrong: str, right: str) -> None:
    file.write_text(content, encoding="utf-8")
    (found,) = complaints(changed(("prices", str(file))))
    assert found.path == path
    assert wrong in found.wrong
    assert right in found.right


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (found,) = complaints(changed(("prices", str(tmp_path / "none.yaml"))))
    assert (found.path, found.right) == ("prices", "name a readable YAML file of prices")
    assert "No such file" in found.wrong


def test_bytes_that_are_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    (found,) = complaints(changed(("prices", str(file))))
    assert found.path == "prices"
    assert "is no text" in found.wrong
