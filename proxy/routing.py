"""Which target an exchange goes to, and which comes next: the plan of one exchange.

A plan is the pick of the Model API's `routing` and then its `fallback` entries, in order. A service with several keys
is tried with the next one where a key was refused. Targets that cool down are passed over, but the last one is always
tried: an attempt that may fail is better than an answer that says so. What attempts learn goes back into the cool-downs
and the balancers, which are the worker's and outlive the plan.
"""

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final, NamedTuple

from proxy.balancer import Balancer
from proxy.config.snapshot import ModelApi, Snapshot
from proxy.config.targets import ByModel, ByWeight, Key, Service, Single, Target
from proxy.config.values import MODEL_CHARACTERS_MAX
from proxy.cooldown import Cooldowns
from proxy.errors import GatewayError, shown
from proxy.verdict import Blame, Verdict

_NOBODY: Final = Blame.NONE
NO_MODEL: Final = ""
"""In place of a model's name, for operations that have none. No scanner gives it: an empty name is none."""
_NOTHING, _ANSWER, _ALL = "nothing", "answer", "all"
"""What a plan has heard of the attempt that runs: nothing yet, that its answer began, all there is to hear."""


class Choice(NamedTuple):
    """Where an attempt goes."""

    target: Target
    key: Key
    position: int
    """In the plan: 0 is the pick, all others are fallbacks."""


class Router:
    """What one worker knows of its targets: cool-downs, balancers, whose turn it is among the keys.

    Bounded by the configuration: an entry for each service with several keys and for each Model API.
    """

    def __init__(self) -> None:
        self.cooldowns = Cooldowns()
        self._balancers: dict[str, tuple[ByWeight, Balancer]] = {}
        self._turns: dict[str, int] = {}
        self._keys: dict[str, Mapping[str, tuple[tuple[bytes, bytes], ...]]] = {}
        """Of the present generation, by name, with their credentials: to see which are new in the next."""
        self._lone: dict[str, tuple[ModelApi, tuple[Target, ...], Choice]] = {}

    def adopt(self, snapshot: Snapshot) -> None:
        """Forget what is known of services, keys and Model APIs that this generation has no more.

        A key whose secret has changed is a new one, whatever its place in the list.
        """
        services = snapshot.services.values()
        keys = {key.name: key.auth_headers for service in services for key in service.keys}
        kept = {name for name, lines in keys.items() if self._keys.get(name, lines) == lines}
        self._keys = keys
        self.cooldowns.forget(kept | {service.name for service in services})
        self._turns = {name: turn for name, turn in self._turns.items() if name in snapshot.services}
        names = {model_api.name for model_api in snapshot.model_apis}
        self._balancers = {name: known for name, known in self._balancers.items() if name in names}
        self._lone = {}

    def plan(self, model_api: ModelApi, model: str | None) -> "Plan":
        """The plan of an exchange that asks for `model`, None where it is unknown, NO_MODEL where it would be none.

        GatewayError model_missing or model_unknown.
        """
        own_keys = model_api.auth != "passthrough"
        lone = self._lone.get(model_api.name)
        if lone is not None and lone[0] is model_api:
            return Plan(self, model_api, lone[1], lone[2])
        routing = model_api.routing
        if isinstance(routing, Single):
            targets = (routing.target, *model_api.fallback)
            plan = Plan(self, model_api, targets)
            if not model_api.has_alternatives:  # it is the same for every request
                self._lone[model_api.name] = (model_api, targets, plan.choice)
            return plan
        if isinstance(routing, ByModel):
            return Plan(self, model_api, (_chosen(routing, model_api, model), *model_api.fallback))
        balancer = self._balancer(model_api.name, routing)
        available = [
            index for index, target in enumerate(routing.targets) if self.available(target.service, own_keys=own_keys)
        ]
        index = balancer.pick(available or range(len(routing.targets)))
        plan = Plan(self, model_api, (routing.targets[index], *model_api.fallback))
        plan.balance(balancer, index)
        return plan

    def _balancer(self, name: str, routing: ByWeight) -> Balancer:
        known = self._balancers.get(name)
        if known is None or known[0] != routing:
            known = self._balancers[name] = (routing, Balancer(routing.weights, routing.balance))
        return known[1]

    def available(self, service: Service, *, own_keys: bool) -> bool:
        """Neither it nor, where `own_keys` of it are used, all of those cool down."""
        return self.cooldowns.available(service.name) and (not own_keys or self.key(service, ()) is not None)

    def key(self, service: Service, tried: Sequence[Key]) -> Key | None:
        """The key whose turn it is, out of those that were not tried and do not cool down."""
        keys = service.keys
        available = self.cooldowns.available
        if len(keys) == 1:
            key = keys[0]
            return key if available(key.name) else None
        turn = self._turns.get(service.name, 0)
        for offset in range(len(keys)):
            key = keys[(turn + offset) % len(keys)]
            if key not in tried and available(key.name):
                return key
        return None

    def last_resort(self, service: Service) -> Key:
        """Where all of its keys cool down: the one that does so for the shortest time."""
        return min(service.keys, key=lambda key: self.cooldowns.ends_at(key.name))

    def took(self, service: Service, key: Key) -> None:
        """The next exchange begins with the key behind this one."""
        self._turns[service.name] = (service.keys.index(key) + 1) % len(service.keys)


class Plan:
    """The targets of one exchange, and where among them it stands. `close` must follow."""

    __slots__ = (
        "_balancer",
        "_heard",
        "_heard_of",
        "_index",
        "_key_ticket",
        "_max_attempts",
        "_own_keys",
        "_picked_at",
        "_router",
        "_service_ticket",
        "_targets",
        "_tried",
        "attempts",
        "choice",
    )

    def __init__(
        self, router: Router, model_api: ModelApi, targets: tuple[Target, ...], choice: Choice | None = None
    ) -> None:
        self._router = router
        self._targets = targets
        self._max_attempts = model_api.max_attempts
        self._own_keys = model_api.auth != "passthrough"
        self._tried: tuple[Key, ...] = ()
        self._balancer: Balancer | None = None
        self._index = 0
        self._heard = False
        self._heard_of = _ALL
        self._picked_at = 0.0
        self._service_ticket = self._key_ticket = 0
        self.attempts = 0
        """Begun so far."""
        self.choice: Choice = self._seek(0) if choice is None else choice

    def balance(self, balancer: Balancer, index: int) -> None:
        """The pick came from a balancer: it wants to hear what becomes of it, as long as the exchange is there."""
        if self.choice.position:  # it cools down, and was passed over
            return
        self._balancer = balancer
        self._index = index
        self._picked_at = monotonic()
        balancer.began(index)

    # -- where to ----------------------------------------------------------------------------------------------------

    @property
    def target_left(self) -> bool:
        """Is there a further target, and an attempt for it?"""
        return self.attempts < self._max_attempts and self.choice.position + 1 < len(self._targets)

    @property
    def key_left(self) -> bool:
        """Has the service a key that was not tried and does not cool down?"""
        service = self.choice.target.service
        if len(service.keys) == 1 or not self._own_keys or self.attempts >= self._max_attempts:
            return False
        return self._router.key(service, self._tried) is not None

    def advance(self, verdict: Verdict) -> bool:
        """Move to where the next attempt goes; False where there is none to go to."""
        if self.attempts >= self._max_attempts:
            return False
        position = self.choice.position
        if verdict is Verdict.NEXT_KEY:
            service = self.choice.target.service
            key = self._router.key(service, self._tried)
            if key is None:
                return False
            self.choice = Choice(self.choice.target, key, position)
            return True
        if position + 1 >= len(self._targets):
            return False
        self._tried = ()
        self._leave_pick()
        self.choice = self._seek(position + 1)
        return True

    def _seek(self, start: int) -> Choice:
        """The first target from `start` on that does not cool down, or the last."""
        router, targets = self._router, self._targets
        if router.cooldowns.quiet and len(targets[start].service.keys) == 1:  # as nearly always
            return Choice(targets[start], targets[start].service.keys[0], start)
        last = len(targets) - 1
        for position in range(start, last + 1):
            service = targets[position].service
            if position < last and not router.cooldowns.available(service.name):
                continue
            key = router.key(service, ()) if self._own_keys else service.keys[0]
            if key is None and position == last:
                key = router.last_resort(service)
            if key is not None:
                return Choice(targets[position], key, position)
        raise AssertionError("a plan has a target")

    # -- what came of it ---------------------------------------------------------------------------------------------

    def begin(self) -> Callable[[], None] | None:
        """An attempt goes to `choice` now. Answers what wants to hear of its first output, if anything does."""
        service, key = self.choice.target.service, self.choice.key
        self.attempts += 1
        if len(service.keys) > 1 and self._own_keys:
            self._tried = (*self._tried, key)
            self._router.took(service, key)
        cooldowns = self._router.cooldowns
        if cooldowns.quiet:  # as nearly always: one ticket, which tells when the attempt began, does for both
            self._service_ticket = self._key_ticket = cooldowns.ticket()
        else:
            self._service_ticket = cooldowns.began(service.name)
            self._key_ticket = cooldowns.began(key.name) if self._own_keys else 0
        self._heard_of = _NOTHING
        if self._balancer is None:
            return None
        began_at = monotonic()
        return lambda: self._hear(monotonic() - began_at)

    def repeat(self) -> None:
        """The attempt is made once more, because its connection was dead: that does not count."""
        self.attempts -= 1

    def report(self, blames: Blame, retry_after_s: float | None = None) -> None:
        """The attempt was answered, or failed. After an answer that blames nobody its failure may still follow."""
        heard_of = self._heard_of
        if heard_of is _ALL or (heard_of is _ANSWER and blames is _NOBODY):
            return
        self._heard_of = _ANSWER if blames is _NOBODY else _ALL
        service, key = self.choice.target.service, self.choice.key
        cooldowns = self._router.cooldowns
        if blames is _NOBODY:
            if not cooldowns.quiet:
                cooldowns.answered(service.name, self._service_ticket)
                if self._own_keys:
                    cooldowns.succeeded(key.name, self._key_ticket)
            return
        if blames is Blame.SERVICE:
            cooldowns.failed(service.name, self._service_ticket, service.cooldown, retry_after_s)
            if self._own_keys and heard_of is _NOTHING:
                cooldowns.released(key.name, self._key_ticket)
            return
        cooldowns.succeeded(service.name, self._service_ticket)
        cooldowns.refused(key.name, self._key_ticket, service.cooldown, retry_after_s)

    def succeeded(self) -> None:
        """The answer that was reported came to its end."""
        if self._heard_of is _ANSWER:
            self._heard_of = _ALL
            cooldowns = self._router.cooldowns
            if not cooldowns.quiet:
                cooldowns.succeeded(self.choice.target.service.name, self._service_ticket)

    def release(self) -> None:
        """The attempt ended without news of its target."""
        if self._heard_of is _NOTHING:
            self._heard_of = _ALL
            cooldowns = self._router.cooldowns
            cooldowns.released(self.choice.target.service.name, self._service_ticket)
            if self._own_keys:
                cooldowns.released(self.choice.key.name, self._key_ticket)

    def _hear(self, first_output_s: float) -> None:
        if self._balancer is not None and not self._heard:
            self._heard = True
            self._balancer.heard(self._index, first_output_s)

    def close(self) -> None:
        """The exchange is over."""
        self.release()
        self._leave_pick()

    def _leave_pick(self) -> None:
        if self._balancer is not None:
            self._balancer.ended(self._index, heard=self._heard, lasted_s=monotonic() - self._picked_at)
            self._balancer = None


def _chosen(routing: ByModel, model_api: ModelApi, model: str | None) -> Target:
    if model == NO_MODEL:
        return routing.choices[0][1]
    if model is None:
        raise GatewayError("model_missing", f"Model API {model_api.name} routes by model, and the request names none")
    # no name is as long as a pattern may be; each pattern would be tried on all of it
    target = routing.choose(model) if len(model) <= MODEL_CHARACTERS_MAX else None
    if target is None:
        known = ", ".join(pattern for pattern, _ in routing.choices[:8])
        message = f"no service of Model API {model_api.name} has the model {shown(model)}; it has {known}"
        raise GatewayError("model_unknown", message)
    return target
