"""
A part of an application: the check-out of a shop, as a coroutine and for synchronous code.
"""

from collections.abc import Sequence

from exponea_async import Customer, Event, Exponea
from exponea_async.portal import Portal


async def check_out(exponea: Exponea, email: str, prices: Sequence[float]) -> None:
    """Sell some products to a customer."""
    customer = exponea.for_customer({"registered": email})
    await customer.identify_customer(Customer({"registered": email}, {"has_bought": True}))
    await customer.track_event(Event("purchase", {"total_price": round(sum(prices), 2), "products": len(prices)}))


def check_out_view(portal: Portal, email: str, prices: Sequence[float]) -> str:
    """Do so in a view of a framework that is not asynchronous."""
    portal.call(check_out, portal.exponea, email, prices)
    return "Thank you!"
