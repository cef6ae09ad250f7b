"""
A shop in Django, whose events are part of the transactions of its database.

Run it with the URL of a PostgreSQL database, ``EXPONEA_STORAGE=postgresql://... python examples/django_orders.py``. It
places some orders, prints what arrived in a sandbox, and ends. It needs django, psycopg and asyncpg.
"""

import os
from urllib.parse import unquote, urlsplit

import django
from django.conf import settings

from exponea_async import Event
from exponea_async.integrations.django import call, get_client
from exponea_async.testing import SandboxThread


def configure(storage: str, base_url: str) -> None:
    """Configure Django, as the settings of a project do."""
    url = urlsplit(storage)
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": url.path[1:],
                "USER": unquote(url.username or ""),
                "PASSWORD": unquote(url.password or ""),
                "HOST": url.hostname,
                "PORT": url.port,
            }
        },
        # The queue is in the same database.
        EXPONEA={
            "CONFIGURATION": {
                "project_token": "shop",
                "authorization_token": "key",
                "base_url": base_url,
                "storage": storage,
            }
        },
    )
    django.setup()


async def record(host: object, email: str, event: Event) -> None:
    """Track an event in the transaction of Django's connection."""
    async with get_client().transaction(host) as tracked:
        await tracked.for_customer({"registered": email}).track_event(event)


def buy(product: str, email: str) -> int:
    """Place an order; the event exists exactly if the order does."""
    from django.db import connection, transaction  # noqa: PLC0415 - needs the settings

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO shop_order (product) VALUES (%s) RETURNING id", [product])
            (order,) = cursor.fetchone()
        call(record, connection.connection, email, Event("purchase", {"order": order, "product": product}))
        if product == "teapot":
            raise LookupError("There are no teapots.")
    return int(order)


def place_orders() -> None:
    """Place some orders, one of which fails."""
    from django.db import connection, transaction  # noqa: PLC0415 - needs the settings

    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE shop_order (id serial, product text)")
    for product in ("mug", "teapot", "plate"):
        try:
            buy(product, "jane@example.com")
        except LookupError as error:
            print(error)
    with transaction.atomic():
        buy("bowl", "joe@example.com")
        try:
            # Within a transaction, atomic() is a savepoint.
            buy("teapot", "joe@example.com")
        except LookupError as error:
            print(error)
    with connection.cursor() as cursor:
        cursor.execute("SELECT product FROM shop_order ORDER BY product")
        print("orders", *(product for (product,) in cursor.fetchall()))


def main() -> None:
    """Place orders, and print what arrived."""
    with SandboxThread() as sandbox:
        configure(os.environ["EXPONEA_STORAGE"], sandbox.url)
        place_orders()
        call(get_client().flush_data, timeout=10)
        print("events", *sorted(event.properties["product"] for event in sandbox.engine.events()))


if __name__ == "__main__":
    main()
