"""The `prices` file: read where the configuration names it, and looked up by service and model.

What the file says becomes a part of the document, so that its complaints have their place, every process goes by the
same prices, and SIGHUP finds a changed one as it finds a changed secret.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, BeforeValidator

from observability.prices import Price
from proxy.config.complaints import Complaint, ConfigError, near_miss, shown, wrong_value
from proxy.config.targets import matcher
from proxy.config.yaml_text import plain_values

FILE_BYTES_MAX: Final = 1 << 20
"""A thousand entries with every price have 0.2 MiB."""

RATE_MAX: Final = 1_000_000.0
"""Above any price of a million tokens, also in yen or won."""

KNOWN_MAX: Final = 4096
"""Models remembered with their price, or with none: their names are the callers' to choose."""

NAME_CHARACTERS_MAX: Final = 256
"""A longer one is no model's and has no price. A request may have one of 16 KiB: 4096 of them would be 64 MiB in each
worker, and to hold one against a thousand patterns takes its loop 50 ms."""


def _content(value: Any) -> Any:
    """The file's values in place of its name; what is no text is on its way from another process."""
    if not isinstance(value, str):
        return value
    right = "name a readable YAML file of prices"
    try:
        with open(value, "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        values = plain_values(content.decode(), value) if len(content) <= FILE_BYTES_MAX else None
    except OSError as error:
        raise wrong_value(f"{{value}} cannot be read ({error.strerror})", right) from None
    except ConfigError as error:
        (complaint,) = error.complaints
        raise wrong_value(f"{{value}} is not to be understood: {complaint.wrong}", complaint.right) from None
    except ValueError:  # no UTF-8, or a name with a NUL
        raise wrong_value("{value} is no text", right) from None
    if len(content) > FILE_BYTES_MAX:
        raise wrong_value(f"{{value}} has more than {FILE_BYTES_MAX} bytes", right)
    if not isinstance(values, dict):
        raise wrong_value("{value} holds no mapping", "begin with keys such as currency: and models:")
    return values


def _rate(value: float) -> float:
    if 0 <= value <= RATE_MAX:
        return float(value)
    raise wrong_value("{value} is no price", f"use a number from 0 to {RATE_MAX:.0f}, without a currency")


def _currency(value: str) -> str:
    if len(value) == 3 and value.isascii() and value.isalpha() and value.isupper():
        return value
    raise wrong_value("{value} is no currency", "use three capitals as USD or CNY (ISO 4217)")


from_file = BeforeValidator(_content)
Rate = Annotated[float, AfterValidator(_rate)]
Currency = Annotated[str, AfterValidator(_currency)]


def unknown_services(named: Iterable[str | None], known: frozenset[str]) -> Iterator[Complaint]:
    """A price of a service that is not there would never count. `named`: of each entry in its order."""
    for index, service in enumerate(named):
        if service is not None and service not in known:
            wrong, right = f"there is no service {shown(service)}", near_miss(service, sorted(known))
            yield Complaint(f"prices.models[{index}].service", wrong, right)


Entry = tuple[str | None, str, Price]
"""Service (None: any), pattern of model names, price."""


class PriceTable:
    """The first entry that fits counts, as with `routing.by_model`. One for each generation."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries: list[tuple[str | None, Callable[[str], object], orjson.Fragment]] = [
            (service, matcher(pattern), orjson.Fragment(orjson.dumps(tuple(price))))
            for service, pattern, price in entries
        ]
        self._known: dict[tuple[str, str], orjson.Fragment | None] = {}

    def of(self, service: str, model: str) -> orjson.Fragment | None:
        """The `observability.prices.Price`, as JSON, of a model as this service knows it; None: it has none."""
        if len(model) > NAME_CHARACTERS_MAX:
            return None
        key = service, model
        if key in self._known:
            return self._known[key]
        price = next((price for of, fits, price in self._entries if of in (None, service) and fits(model)), None)
        if len(self._known) < KNOWN_MAX:
            self._known[key] = price
        return price
