"""
Tests of the shop with ``python -m unittest``, without pytest.
"""

import unittest

from shop import check_out, check_out_view

from exponea_async import Exponea
from exponea_async.portal import Portal
from exponea_async.sandbox import Sandbox
from exponea_async.testing import SandboxThread, assert_not_tracked, assert_tracked, sandbox_configuration


class TestCheckOut(unittest.IsolatedAsyncioTestCase):
    """Tests that are coroutines."""

    async def asyncSetUp(self) -> None:
        """Start a sandbox and a client."""
        self.sandbox = await self.enterAsyncContext(Sandbox())
        self.exponea = await self.enterAsyncContext(Exponea(sandbox_configuration(self.sandbox)))

    async def test_check_out(self) -> None:
        """The purchase is tracked for the customer."""
        await check_out(self.exponea, "jane@example.com", [4.5, 3.49])

        assert_tracked(self.sandbox, "purchase", {"total_price": 7.99}, customer={"registered": "jane@example.com"})
        assert_not_tracked(self.sandbox, "refund")


class TestView(unittest.TestCase):
    """Tests that are not."""

    def setUp(self) -> None:
        """Start a sandbox and a portal."""
        self.sandbox = self.enterContext(SandboxThread())
        self.portal = self.enterContext(Portal(Exponea(sandbox_configuration(self.sandbox))))

    def test_view(self) -> None:
        """The purchase is tracked for the customer."""
        check_out_view(self.portal, "jane@example.com", [4.5, 3.49])

        assert_tracked(self.sandbox, "purchase", {"total_price": 7.99}, customer={"registered": "jane@example.com"})


if __name__ == "__main__":
    unittest.main()
