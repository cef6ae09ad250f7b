"""
A worker of Celery whose tasks are about the customer for whom they were sent.

Run it with ``python examples/celery_worker.py``. It starts a sandbox instead of Engagement, sends two tasks, runs the
worker with two processes, and ends by itself. Its broker is a folder, ``CELERY_FOLDER``, so it needs no other program.
"""

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from celery import Celery
from jobs import ORDERS, configuration, demonstrate

from exponea_async import Event, Exponea
from exponea_async.integrations.celery import CeleryIntegration
from exponea_async.portal import Portal

FOLDER = os.environ.setdefault("CELERY_FOLDER", TemporaryDirectory(ignore_cleanup_errors=True).name)
FOLDERS = {name: f"{FOLDER}/{name}" for name in ("data_folder_in", "control_folder", "processed_folder")}
OPTIONS = {**FOLDERS, "data_folder_out": FOLDERS["data_folder_in"], "store_processed": True}

app = Celery("celery_worker", broker="filesystem://", broker_transport_options=OPTIONS)
portal = Portal(Exponea(configuration()))
integration = CeleryIntegration(portal)
integration.connect()


@app.task
def ship(order: str) -> None:
    """Ship an order."""
    integration.track_event(Event("shipped", {"order": order}))


def check_out(email: str, order: str) -> None:
    """Send a task, as the web application does in a request of the customer."""
    with portal.exponea.bind(portal.exponea.for_customer({"registered": email})):
        ship.delay(order)


def send_all() -> None:
    """Send the tasks of the example."""
    for folder in FOLDERS.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    for email, order in ORDERS.items():
        check_out(email, order)


async def send() -> None:
    """Send them without blocking the event loop."""
    await asyncio.to_thread(send_all)


if __name__ == "__main__":
    asyncio.run(demonstrate(["celery", "--app", "celery_worker", "worker", "--concurrency", "2"], send))
