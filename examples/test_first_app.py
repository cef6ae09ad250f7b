"""
A test of the smallest application, with pytest and the fixtures of exponea_async.
"""

# mypy: allow-untyped-defs

from first_app import create_app
from httpx import ASGITransport, AsyncClient


async def test_order(exponea, assert_tracked):
    async with AsyncClient(transport=ASGITransport(create_app(exponea)), base_url="http://shop") as browser:
        await browser.post("/orders")

    assert_tracked("purchase", {"total_price": 7.99}, customer={"registered": "jane@example.com"})
