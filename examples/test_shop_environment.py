"""
Tests of an application that creates its portal when it is imported, with settings from the environment.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

import os

import pytest
from shop import check_out_view

from exponea_async import Configuration, Exponea
from exponea_async.portal import Portal
from exponea_async.testing import SandboxThread

sandbox = SandboxThread().__enter__()  # until the process ends
os.environ["EXPONEA_PROJECT_TOKEN"] = os.environ["EXPONEA_AUTHORIZATION_TOKEN"] = "test"
os.environ["EXPONEA_BASE_URL"] = sandbox.url
os.environ["EXPONEA_STORAGE"] = "memory:"


@pytest.fixture
def exponea_sandbox():
    yield sandbox
    portal.call(portal.exponea.flush_data)
    sandbox.reset()


# In an application this is in a module of its own, which is imported after conftest.py.
portal = Portal(Exponea(Configuration.from_env()))


@pytest.mark.parametrize("email", ["jane@example.com", "joe@example.com"])
def test_view(email, assert_tracked):
    check_out_view(portal, email, [4.5, 3.49])

    (purchase,) = assert_tracked("purchase", count=1)
    assert purchase.customer_ids == {"registered": email}
