"""What users read is complete and true: keys, metrics, the words of a record, and every file that is shown."""

import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from observability import counters, names
from observability.board import DROP_REASONS
from proxy.config.check import check
from proxy.config.file import load, parse
from proxy.config.model import Document, PricesConfig
from proxy.errors import CUTS, KINDS
from proxy.providers.dashscope import DASHSCOPE
from proxy.verdict import Verdict
from tests.fakes.certificates import Authority, halves

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "RESULTS.md"  # which `make bench-all` writes
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
README = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
"""All that users read."""
METRICS = [
    *(names.GEN_AI_CLIENT_OPERATION_DURATION, names.GEN_AI_SERVER_REQUEST_DURATION, names.GEN_AI_CLIENT_TOKEN_USAGE),
    *(names.GEN_AI_SERVER_TIME_TO_FIRST_TOKEN, names.GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN, names.SLUICEWAY_REQUESTS),
    *(names.SLUICEWAY_ATTEMPTS, names.SLUICEWAY_IMAGES, names.SLUICEWAY_OVERHEAD_DURATION),
    *(names.HTTP_SERVER_ACTIVE_REQUESTS, names.SLUICEWAY_CONFIG_GENERATION, names.SLUICEWAY_RECORDS_DROPPED),
    *(names.SLUICEWAY_RECORDS_QUEUED, names.SLUICEWAY_SPANS_DROPPED, names.SLUICEWAY_CONNECTIONS),
    names.SLUICEWAY_METRICS_EXPORT_FAILURES,
    *(names.SLUICEWAY_CONTENT_DROPPED, names.SLUICEWAY_COST),
    *(names.SLUICEWAY_SPANS_QUEUED, names.SLUICEWAY_LINES_QUEUED, names.SLUICEWAY_TOKENS, names.SLUICEWAY_ERRORS),
    names.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK,
    *(value for name, value in vars(names).items() if name.startswith("GEN_AI_CLIENT_INFERENCE_")),
    names.SLUICEWAY_MODEL_API_INFO,
]
NO_FIELDS = {
    *METRICS,
    *(names.GEN_AI_TOKEN_TYPE, names.GEN_AI_TOKEN_MODALITY),  # labels of metrics
    names.SLUICEWAY_LABEL_PREFIX,
} - {names.SLUICEWAY_ATTEMPTS, names.SLUICEWAY_CONTENT_DROPPED}  # both a metric and a field
VALUES = ("OUTCOME", "ORIGIN_", "USAGE_", "EVENT_", "LATEST_")
"""How the names of constants begin that are values of fields."""
FIELDS = sorted(
    value
    for name, value in vars(names).items()
    if name.isupper() and isinstance(value, str) and value not in NO_FIELDS and not name.startswith(VALUES)
)
LINE_ONLY = {names.TIMESTAMP, names.LEVEL, names.EVENT, names.TRACE_ID, names.SPAN_ID, names.SLUICEWAY_TRIED}
EVERYWHERE = {names.HTTP_RESPONSE_STATUS_CODE, names.ERROR_TYPE}
"""On the CLIENT span with a value of its own, or only where the upstream failed: the span encoder sees to both."""
SPANS_ONLY = {
    names.SERVER_ADDRESS: "client, attempt",
    names.SERVER_PORT: "client, attempt",
    names.HTTP_REQUEST_RESEND_COUNT: "attempt",
    names.SLUICEWAY_VERDICT: "attempt",
}
ON_ATTEMPT = {names.HTTP_REQUEST_METHOD, names.SLUICEWAY_SERVICE, names.SLUICEWAY_UPSTREAM_MODEL}
ENVIRON = {
    name: f"sk-{name}"
    for name in ("DASHSCOPE_API_KEY", "SEARCH_TEAM_KEY", "OPENAI_API_KEY", "ZHIPU_API_KEY", "KEY_A", "KEY_B")
} | {"PROXY_PASSWORD": "s3cret"}


def keys(model: type[BaseModel]) -> Iterator[str]:
    """All keys of a part of the file, nested ones too, by their own names."""
    for name, field in model.model_fields.items():
        yield field.alias or name
        for part in re.findall(r"proxy\.config\.model\.(\w+)", str(field.annotation)):
            import proxy.config.model as parts

            nested = getattr(parts, part, None)
            if isinstance(nested, type) and issubclass(nested, BaseModel):
                yield from keys(nested)


def table(title: str) -> dict[str, list[str]]:
    """The table whose first column has this title: each code word of that column → the cells beside it."""
    found = re.search(rf"^\| {re.escape(title)} \|.*\n\| ---.*\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert found, f"no table of {title}"
    rows: dict[str, list[str]] = {}
    for line in found.group(1).splitlines():
        first, *others = (cell.strip() for cell in line.strip().strip("|").split(" | "))
        rows.update(dict.fromkeys(re.findall(r"`([^`]+)`", first), others))
    return rows


def blocks(kind: str) -> list[str]:
    """The code blocks of one language."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("key", sorted(set(keys(Document))))
def test_every_configuration_key_is_documented(key: str) -> None:
    assert re.search(rf"`[^`\n]*\b{re.escape(key)}\b", README), f"{key} is not in the README"


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_documented(metric: str) -> None:
    assert f"`{names.prometheus_name(metric)}" in README


class TestTheRecord:
    """The words from which alerts are written."""

    def test_every_field_and_no_other(self) -> None:
        assert sorted(table("name")) == sorted([*FIELDS, f"{names.SLUICEWAY_LABEL_PREFIX}NAME"])

    @pytest.mark.parametrize("field", FIELDS)
    def test_where_it_stands(self, field: str) -> None:
        expected = SPANS_ONLY.get(field)
        if field in EVERYWHERE:
            expected = "all"
        elif field in LINE_ONLY:
            expected = "line"
        elif expected is None:
            places = {
                "line": True,
                "server": names.on_server(field),
                "client": names.on_client(field),
                "attempt": field in ON_ATTEMPT,
            }
            expected = ", ".join(place for place, there in places.items() if there)
        assert table("name")[field][0] == expected

    def test_outcomes(self) -> None:
        assert set(table(f"`{names.SLUICEWAY_OUTCOME}`")) == set(names.OUTCOMES)

    def test_verdicts(self) -> None:
        assert set(table(f"`{names.SLUICEWAY_VERDICT}`")) == {verdict.value for verdict in Verdict}

    def test_sources_of_usage(self) -> None:
        sources = {names.USAGE_UPSTREAM, names.USAGE_PARTIAL, names.USAGE_ESTIMATED, names.USAGE_NONE}
        assert set(table(f"`{names.SLUICEWAY_USAGE_SOURCE}`")) == sources

    def test_kinds_of_errors(self) -> None:
        shown = {kind: (cells[0], cells[1]) for kind, cells in table("kind").items()}
        answered = {kind: (str(facts.status), facts.origin) for kind, facts in KINDS.items()}
        assert shown == {kind: ("–", facts.origin) for kind, facts in CUTS.items()} | answered

    def test_reasons_of_lost_records(self) -> None:
        records = table("`reason` of `sluiceway_records_dropped_total`")
        assert set(records) == {*DROP_REASONS, *counters.RECORDS}
        assert set(table("`reason` of `sluiceway_spans_dropped_total`")) == set(counters.SPANS)


class TestFiles:
    """Every configuration that is shown."""

    WHOLE = tuple(block for block in blocks("yaml") if "model_apis:" in block)
    PARTS = tuple(block for block in blocks("yaml") if "model_apis:" not in block)

    def test_there_are_some(self) -> None:
        assert len(self.WHOLE) >= 4
        assert len(self.PARTS) >= 3

    @pytest.mark.parametrize("text", [text for text in WHOLE if "lisen" not in text])
    def test_whole_files_are_good(self, text: str) -> None:
        parse(text, ENVIRON, "README.md")

    @pytest.fixture
    def certificates(self, tmp_path: Path) -> Path:
        """The folder of the files that are named."""
        authority = Authority(tmp_path)
        certificate, key = halves(authority.issue("gateway"))
        for path, name in ((authority.ca_file, "authority.pem"), (certificate, "gateway.pem"), (key, "gateway.key")):
            path.rename(tmp_path / name)
        return tmp_path

    @pytest.mark.parametrize("text", PARTS)
    def test_parts_are_good(self, text: str, certificates: Path) -> None:
        yaml = YAML(typ="safe", pure=True)
        whole: dict[str, Any] = yaml.load(self.WHOLE[0])
        whole["services"].append({"name": "openai", "provider": "openai", "api_keys": ["${OPENAI_API_KEY}"]})
        whole["model_apis"][0]["protocols"] = ["openai"]
        part = yaml.load(text.replace("/etc/sluiceway", str(certificates)))
        if "services" in part:
            whole["services"][0] = part["services"][0]
        elif part.keys() <= PricesConfig.model_fields.keys():
            whole["prices"] = part
        elif part.keys() <= Document.model_fields.keys():
            whole |= part
        else:
            whole["model_apis"][0] |= part
        out = StringIO()
        yaml.dump(whole, out)
        parse(out.getvalue(), ENVIRON, "README.md")

    def test_the_demo_calls_the_same_region_as_a_service_without_base_url(self) -> None:
        demo = Path(__file__).parent.parent / "benchmarks" / "demo.yaml"
        assert [load(demo, ENVIRON).services[0].base_url] == [DASHSCOPE.base_url]

    def test_check_says_of_the_broken_file_what_is_shown(self, tmp_path: Path) -> None:
        (text,) = (text for text in self.WHOLE if "lisen" in text)
        path = tmp_path / "sluiceway.yaml"
        path.write_text(text, encoding="utf-8")
        out = StringIO()
        assert check(path, {}, out) == 2
        assert f"$ sluiceway check -c sluiceway.yaml\n{out.getvalue()}$ echo $?\n2\n" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        other = (page.parent / file).resolve() if file else page
        if other.suffix != ".md":
            assert other.is_file(), target
            continue
        assert other in {*PAGES, RESULTS}, target
        headings = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor in {
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
        }
