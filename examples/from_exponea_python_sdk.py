"""
The same calls with ``exponea-python-sdk``, the vendor's synchronous SDK, and with this package.

Run it: both leave the same data in the sandbox.
"""

import asyncio
from typing import Any

import exponea_python_sdk  # type: ignore[import-untyped]

from exponea_async import BasicAuth, Configuration, Customer, Event, Exponea
from exponea_async.sandbox import Sandbox
from exponea_async.testing import SandboxThread

JANE = {"registered": "jane@example.com"}
NOON = 1_767_268_800.0


def before(url: str) -> Any:
    """Track with the vendor's SDK: each call is a request, and raises an exception where that fails."""
    exponea = exponea_python_sdk.Exponea("my-project", username="key-id", password="secret", url=url)

    exponea.tracking.update_customer_properties(JANE, {"first_name": "Jane"})
    exponea.tracking.add_event(JANE, "purchase", {"total_price": 7.99}, timestamp=NOON)
    exponea.tracking.batch_commands(
        [
            exponea.tracking.add_event(JANE, "view_item", {"item": number}, timestamp=NOON + number, batch=True)
            for number in (1, 2, 3)
        ]
    )
    return exponea.customer.get_customer_attributes(JANE, properties=["first_name"])


async def after(url: str) -> Any:
    """Track with this package: each call returns once the event is in the queue, which is uploaded in batches."""
    configuration = Configuration(
        project_token="my-project",
        authorization_token=BasicAuth("key-id", "secret"),
        base_url=url,
        storage="memory:",
    )
    async with Exponea(configuration) as exponea:
        jane = exponea.for_customer(JANE)
        await jane.identify_customer(Customer(JANE, {"first_name": "Jane"}))
        await jane.track_event(Event("purchase", {"total_price": 7.99}, NOON))
        await exponea.track_many((JANE, Event("view_item", {"item": number}, NOON + number)) for number in (1, 2, 3))

        await exponea.flush_data()  # only since what follows asks for what was sent just now
        return await jane.fetch_attributes([{"type": "property", "property": "first_name"}])


def show(sandbox: Sandbox) -> None:
    """Print what has arrived."""
    for event in sorted(sandbox.engine.events(), key=lambda event: event.timestamp):
        print(f"  {event.event_type} {dict(event.properties)}")
    for customer in sandbox.engine.customers():
        print(f"  {customer.ids} {customer.properties}")


def main() -> None:
    """Run both, each with a sandbox of its own."""
    with SandboxThread() as sandbox:
        print("exponea-python-sdk:", before(sandbox.url))
        show(sandbox)
    with SandboxThread() as sandbox:
        print("exponea_async:", asyncio.run(after(sandbox.url)))
        show(sandbox)


if __name__ == "__main__":
    main()
