"""Plans and what attempts tell of their targets: old attempts say nothing of what came after them."""

from collections.abc import Sequence

import orjson
import pytest

from proxy.config import file as config_file
from proxy.config.compile import compile_snapshot
from proxy.config.snapshot import ModelApi, Snapshot
from proxy.routing import Plan, Router
from proxy.verdict import Blame, Verdict
from tests.fakes.worker import document_of


@pytest.fixture
def model_api() -> ModelApi:
    document = document_of("http://127.0.0.1:1", service={"cooldown": {"failures": 2, "base_ms": 10_000}})
    return compile_snapshot(config_file.parse(orjson.dumps(document).decode(), {}, "test"), 1).model_apis[0]


def begun(router: Router, model_api: ModelApi) -> Plan:
    plan = router.plan(model_api, None)
    plan.begin()
    return plan


def test_an_attempt_from_before_a_cool_down_does_not_end_it(model_api: ModelApi):
    router = Router()
    plans = [begun(router, model_api) for _ in range(3)]
    for plan in plans[:2]:
        plan.report(Blame.SERVICE)
    assert not router.cooldowns.available("sim")
    plans[2].report(Blame.NONE)
    assert not router.cooldowns.available("sim")


def test_keys_that_are_refused_together_cool_down_once(model_api: ModelApi):
    router = Router()
    for plan in [begun(router, model_api) for _ in range(8)]:
        plan.report(Blame.KEY, 0.0)
    begun(router, model_api).report(Blame.KEY)  # the probe: the second refusal, whose cool-down is twice the first
    assert 10 < router.cooldowns.cooling()["sim/0"] <= 20


def test_an_attempt_without_news_leaves_failures_as_they_are(model_api: ModelApi):
    router = Router()
    begun(router, model_api).report(Blame.SERVICE)
    begun(router, model_api).release()
    begun(router, model_api).report(Blame.SERVICE)
    assert not router.cooldowns.available("sim")


def weighted(cooldown: dict[str, int]) -> ModelApi:
    """Two targets by weight, the least loaded first, and a fallback."""
    document = document_of(
        "http://127.0.0.1:1",
        service={"cooldown": cooldown},
        model_api={
            "routing": {"by_weight": [{"service": "sim", "weight": 1}, {"service": "two", "weight": 1}]},
            "balance": "least_inflight",
            "fallback": [{"service": "three"}],
        },
    )
    for name in ("two", "three"):
        document["services"].append({**document["services"][0], "name": name})
    return compile_snapshot(config_file.parse(orjson.dumps(document).decode(), {}, "test"), 1).model_apis[0]


def picked(router: Router, model_api: ModelApi) -> str:
    plan = router.plan(model_api, None)
    try:
        return plan.choice.target.service.name
    finally:
        plan.close()


def test_a_target_that_an_exchange_has_left_is_not_busy_with_it():
    router, model_api = Router(), weighted({"failures": 0})
    plan = router.plan(model_api, None)
    plan.begin()
    left = plan.choice.target.service.name
    assert {picked(router, model_api) for _ in range(4)} == {"sim", "two"} - {left}
    assert plan.advance(Verdict.NEXT_TARGET)
    assert {picked(router, model_api) for _ in range(4)} == {"sim", "two"}
    plan.close()
    assert {picked(router, model_api) for _ in range(4)} == {"sim", "two"}


def test_a_pick_that_is_passed_over_is_not_busy_either():
    router, model_api = Router(), weighted({"failures": 1, "base_ms": 60_000})
    services = [target.service for target in model_api.targets]
    for service in services[:2]:
        router.cooldowns.failed(service.name, router.cooldowns.began(service.name), service.cooldown)
    plan = router.plan(model_api, None)
    assert plan.choice.target.service.name == "three"
    balancer = router._balancer(model_api.name, model_api.routing)
    assert [load.running for load in balancer._loads] == [0, 0]
    plan.close()


def passing(keys: list[str]) -> ModelApi:
    """The callers' own keys go to a service that has some, too, and to a fallback."""
    document = document_of(
        "http://127.0.0.1:1",
        service={"api_keys": keys},
        model_api={"auth": "passthrough", "fallback": [{"service": "two"}]},
    )
    document["services"].append({**document["services"][0], "name": "two"})
    return compile_snapshot(config_file.parse(orjson.dumps(document).decode(), {}, "test"), 1).model_apis[0]


def test_the_cool_downs_of_keys_are_not_for_those_who_bring_their_own():
    router, model_api = Router(), passing(["sk-a", "sk-b"])
    service = model_api.targets[0].service
    for key in service.keys:
        router.cooldowns.refused(key.name, router.cooldowns.began(key.name), service.cooldown, 600.0)
    cooling = router.cooldowns.cooling()
    plan = begun(router, model_api)
    assert plan.choice.target.service is service
    assert not plan.key_left
    plan.report(Blame.NONE)
    plan.succeeded()
    begun(router, model_api).release()
    assert set(router.cooldowns.cooling()) == set(cooling) == {"sim/0", "sim/1"}


def test_the_last_resort_is_the_key_that_is_back_first():
    document = document_of("http://127.0.0.1:1", service={"api_keys": ["sk-a", "sk-b", "sk-c"]})
    model_api = compile_snapshot(config_file.parse(orjson.dumps(document).decode(), {}, "test"), 1).model_apis[0]
    router = Router()
    for wait_s in (60.0, 20.0, 40.0):
        begun(router, model_api).report(Blame.KEY, wait_s)
    assert router.plan(model_api, None).choice.key.name == "sim/1"


def test_a_service_that_answers_and_then_breaks_off_fails(model_api: ModelApi):
    router = Router()
    for available in (True, False):
        plan = begun(router, model_api)
        plan.report(Blame.NONE)
        plan.report(Blame.SERVICE)
        plan.close()
        assert router.cooldowns.available("sim") is available


def test_only_an_answer_that_came_to_its_end_makes_up_for_failures(model_api: ModelApi):
    router = Router()
    begun(router, model_api).report(Blame.SERVICE)
    plan = begun(router, model_api)
    plan.report(Blame.NONE)
    assert not router.cooldowns.quiet
    plan.succeeded()
    assert router.cooldowns.quiet


def test_an_attempt_fails_once(model_api: ModelApi):
    router = Router()
    plan = begun(router, model_api)
    for _ in range(2):
        plan.report(Blame.SERVICE)
    assert router.cooldowns.available("sim")


def keyed(*keys: str, weights: Sequence[int] = ()) -> Snapshot:
    targets = [{"service": "sim", "weight": weight} for weight in weights]
    model_api = {"routing": {"by_weight": targets}} if weights else {}
    document = document_of("http://127.0.0.1:1", service={"api_keys": list(keys)}, model_api=model_api)
    return compile_snapshot(config_file.parse(orjson.dumps(document).decode(), {}, "test"), 1)


def test_the_next_generation_forgets_keys_whose_secret_is_another():
    router = Router()
    first = keyed("sk-a", "sk-b")
    router.adopt(first)
    for _ in range(2):
        begun(router, first.model_apis[0]).report(Blame.KEY, 60.0)
    assert set(router.cooldowns.cooling()) == {"sim/0", "sim/1"}
    router.adopt(keyed("sk-a", "sk-b"))
    assert set(router.cooldowns.cooling()) == {"sim/0", "sim/1"}
    second = keyed("sk-a", "sk-new")
    router.adopt(second)
    assert set(router.cooldowns.cooling()) == {"sim/0"}
    assert router.plan(second.model_apis[0], None).choice.key.name == "sim/1"


def test_plans_of_the_next_generation_are_its_own():
    router = Router()
    for snapshot in (keyed("sk-a"), keyed("sk-b"), keyed("sk-c", weights=(1, 2))):
        router.adopt(snapshot)
        plan = router.plan(snapshot.model_apis[0], None)
        assert plan.choice.target.service is snapshot.services["sim"]
        assert plan.choice.key is snapshot.services["sim"].keys[0]
        plan.close()
