"""The pools of one worker: one for each service, warm from one generation of the configuration to the next.

A pool belongs to what a generation says of a service as far as its connections are concerned (`Place`). As long as the
next generation says the same, its connections stay; else it retires: its idle connections close at once, the others
when their requests are over. A request that began under an older generation is served to its end all the same.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from proxy.config.targets import Egress, Service, Tls
from proxy.errors import UpstreamError
from proxy.upstream.address import Address
from proxy.upstream.pool import Pool
from proxy.upstream.resolver import Resolver
from proxy.upstream.tls import TlsFilesError


class Place(NamedTuple):
    """What makes two pools one. Two services at one address have a pool each: `max_connections` is theirs."""

    service: str
    scheme: str
    host: str
    port: int
    tls: Tls
    egress: Egress | None
    connect_timeout_ms: int
    max_connections: int


class Pools:
    """Made and used on the thread of the running event loop. `resolver` (None: one of its own) is for all of them."""

    def __init__(self, resolver: Resolver | None = None) -> None:
        self._of: dict[Service, Pool] = {}
        self._by_place: dict[Place, Pool] = {}
        self._retired: dict[Place, Pool] = {}
        """With connections that are still in use."""
        self._resolver = Resolver() if resolver is None else resolver

    def __iter__(self) -> Iterator[Pool]:
        return iter(self._by_place.values())

    def of(self, service: Service) -> Pool:
        """The pool of a service. It need not be of the present generation."""
        pool = self._of.get(service)
        if pool is None:
            pool = self._by_place.get(_place(service))
        return self._retired_pool(service) if pool is None else pool

    def _retired_pool(self, service: Service) -> Pool:
        """For a request that began before the service went. Its limits go on, as long as anybody is connected."""
        place = _place(service)
        pool = self._retired.get(place)
        if pool is None:
            self._forget_deserted()
            try:
                pool = self._retired[place] = self._pool(place)
            except TlsFilesError:
                gone = "the files of its TLS are gone, as the service is"
                raise UpstreamError("connect_failed", f"cannot connect to the upstream: {gone}") from None
            pool.close()
        return pool

    def _forget_deserted(self) -> None:
        self._retired = {place: pool for place, pool in self._retired.items() if pool.open_connections}

    def adopt(self, services: Iterable[Service]) -> None:
        """These are the services from now on.

        TlsFilesError where a file of a service's `tls` cannot be used; it says which, and everything is as it was.
        """
        of: dict[Service, Pool] = {}
        by_place: dict[Place, Pool] = {}
        for service in services:
            place = _place(service)
            try:
                # a service with base_urls may be at one place several times
                pool = by_place.get(place) or self._by_place.get(place) or self._pool(place)
                of[service] = by_place[place] = pool
            except TlsFilesError as error:
                for pool in of.values():
                    if pool not in self._by_place.values():
                        pool.close()  # it listens to the resolver
                raise TlsFilesError(f"service {service.name}: {error}") from None
        retired = {place: pool for place, pool in self._by_place.items() if place not in by_place}
        self._of, self._by_place = of, by_place
        for pool in retired.values():
            pool.close()
        self._retired |= retired
        self._forget_deserted()

    def close(self) -> None:
        """Close the connections that are idle, and the others when they come back."""
        for pool in self._by_place.values():
            pool.close()

    def _pool(self, place: Place) -> Pool:
        return Pool(
            Address(place.scheme, place.host, place.port, place.tls, place.egress),
            resolver=self._resolver,
            connect_timeout_ms=place.connect_timeout_ms,
            max_connections=place.max_connections,
        )


def _place(service: Service) -> Place:
    return Place(
        service.name,
        service.scheme,
        service.host,
        service.port,
        service.tls,
        service.egress,
        service.connect_timeout_ms,
        service.max_connections,
    )
