"""
The worker of Celery that the tests run.
"""

import os
import time
from pathlib import Path

from celery import Celery, Task, chain
from celery.exceptions import SoftTimeLimitExceeded
from helpers.celery_files import file_settings
from helpers.job_users import TIME_LIMIT

from exponea_async import Configuration, Event, Exponea
from exponea_async.integrations.celery import CeleryIntegration
from exponea_async.portal import Portal

portal = Portal(Exponea(Configuration.from_env()))
integration = CeleryIntegration(portal)
integration.connect()
app = Celery("celery_app")
app.conf.update(file_settings(Path(os.environ["CELERY_FOLDER"])))


@app.task(name="visit", bind=True, max_retries=1, default_retry_delay=0)
def visit(self: Task, user: str, kind: str) -> str:
    """Track an event, and end in one of the ways in which tasks end."""
    properties = {"user": user, "kind": kind, "attempt": self.request.retries, "process": os.getpid()}
    integration.track_event(Event("visit", properties))
    if kind == "fail":
        raise ValueError(user)
    if kind == "retry":
        raise self.retry(exc=ValueError(user))
    if kind == "send":
        visit.delay(user, "sent")
    return user


@app.task(name="link")
def link(user: str, kind: str) -> str:
    """Track an event of a task that follows another one in a chain."""
    integration.track_event(Event("visit", {"user": user, "kind": kind}))
    return user


@app.task(name="chains")
def chains(user: str) -> None:
    """Start a chain."""
    chain(link.s(user, "first"), link.s("second")).delay()


@app.task(name="hang", soft_time_limit=TIME_LIMIT)
def hang(user: str) -> None:
    """Track an event, wait until the time limit, and track another one."""
    integration.track_event(Event("visit", {"user": user, "kind": "hang"}))
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        integration.track_event(Event("visit", {"user": user, "kind": "cancelled"}))
