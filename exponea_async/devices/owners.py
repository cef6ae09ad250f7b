"""
Whom something is told of that was loaded for a customer, who may be somebody else by now. Pure.
"""

from collections.abc import Mapping

from exponea_async.devices.context import Street
from exponea_async.devices.state import DeviceState
from exponea_async.models import Identity


def owner_of(recorder: Street, state: DeviceState, ids: Mapping[str, str] | None) -> DeviceState | Identity:
    """
    Tell whom something is about.

    Args:
        recorder: Makes identities.
        state: The device as it is now.
        ids: The ids that it was loaded for; None stands for the device's own.
    """
    if not ids or dict(ids) == state.customer_ids:
        return state
    moved = state.project is not None or state.mapping is not None
    routes = recorder.routes(state.project, state.mapping) if moved else None
    return recorder.identity(ids, state.device_id, routes)
