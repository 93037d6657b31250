"""How an exchange ended: the endings table of the contract, in one place."""

from typing import Final

from observability import names
from observability.findings import NOTHING_FOUND
from observability.observation import Observation

CLIENTS_FAULT: Final = frozenset((400, 404, 405, 409, 413, 415, 422))
"""Upstream statuses that blame what the client sent."""
CLIENT_LEFT_STATUS: Final = 499
"""Recorded where the client left before it got a status; nginx's number, and the field's."""


def settle(observation: Observation, *, client_left: bool) -> None:
    """Decide outcome, error type, origin and status where nobody has yet.

    `client_left`: the connection was gone before the handler had finished.
    """
    if not observation.status:
        observation.status = CLIENT_LEFT_STATUS
    if observation.outcome is not None:
        return
    findings = observation.scanner.findings if observation.scanner is not None else NOTHING_FOUND
    status = observation.upstream_status
    if findings.error_code is not None or status >= 400:
        origin = names.ORIGIN_CLIENT if status in CLIENTS_FAULT else names.ORIGIN_UPSTREAM
        observation.fail(findings.error_code or str(status), names.OUTCOME_UPSTREAM_ERROR, origin)
    elif client_left and not findings.complete:
        observation.outcome = names.OUTCOME_CLIENT_ABORTED
    else:
        observation.outcome = names.OUTCOME_OK
