"""
The simulated visitors of a small shop.

A visit is a schedule: what a visitor does, and in which second of the hour. Nothing in this module tracks anything.
"""

import random
from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from exponea_async.models import Customer, Event, PurchasedItem

HOUR = 3600.0
#: When the last visitor arrives at the latest, in seconds, so that there is time left for the visit.
LAST_ARRIVAL = 3300.0
CURRENCY = "EUR"

FIRST_NAMES = ("Ada", "Boris", "Clara", "David", "Eva", "Filip", "Greta", "Hugo", "Iva", "Jan", "Klara", "Leo")
LAST_NAMES = ("Bauer", "Dvorak", "Fischer", "Horak", "Klein", "Moravec", "Novak", "Richter", "Svoboda", "Weber")
CITIES = ("Berlin", "Bratislava", "Brno", "Prague", "Vienna")
SEARCHES = ("beans", "decaf", "espresso", "filter", "gift", "grinder", "kettle", "mug")
PAYMENTS = ("bank transfer", "card", "cash on delivery", "wallet")


@frozen
class Product:
    """A product of the shop."""

    id: str
    title: str
    category: str
    price: float


CATALOGUE = (
    Product("B-101", "House blend 250 g", "beans", 8.90),
    Product("B-102", "Ethiopia Guji 250 g", "beans", 13.50),
    Product("B-103", "Colombia decaf 250 g", "beans", 11.90),
    Product("B-104", "House blend 1 kg", "beans", 29.00),
    Product("G-201", "Hand grinder", "grinders", 69.00),
    Product("G-202", "Electric grinder", "grinders", 189.00),
    Product("K-301", "Gooseneck kettle", "kettles", 84.50),
    Product("M-401", "Enamel mug", "mugs", 12.00),
    Product("M-402", "Double-walled glass, two", "mugs", 18.40),
    Product("F-501", "Paper filters, 100", "filters", 4.20),
)

#: What is tracked when a visitor does something.
Tracked = Event | Customer | PurchasedItem


@frozen
class Step:
    """
    One thing that a visitor does.

    Attributes:
        second: The second of the hour.
        tracked: What is to be tracked.
    """

    second: float
    tracked: Tracked


@frozen
class Visit:
    """
    The visit of one customer.

    Attributes:
        kind: ``"web"``: the customer is logged in; or ``"app"``: the customer has a device.
        name: The e-mail address of the customer, or the key of the device.
        steps: What the visitor does, in order.
    """

    kind: Literal["web", "app"]
    name: str
    steps: tuple[Step, ...]


def visits(count: int, seed: int) -> list[Visit]:
    """Return the visits of an hour; the same seed returns the same visits."""
    rng = random.Random(seed)  # noqa: S311 - not a secret
    return [_visit(number, rng) for number in range(count)]


def _visit(number: int, rng: random.Random) -> Visit:
    first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
    email = f"{first}.{last}.{number}@example.com".lower()
    customer = Customer(
        {"registered": email},
        {"email": email, "first_name": first, "last_name": last, "city": rng.choice(CITIES)},
    )
    app = rng.random() < 0.4
    steps = _scheduled(rng, _actions(customer, rng, app=app))
    return Visit("app" if app else "web", f"app:{number}" if app else email, tuple(steps))


def _scheduled(rng: random.Random, actions: Iterator[Tracked]) -> Iterator[Step]:
    """Distribute the actions of a visitor over the rest of the hour; those after its end are dropped."""
    second = rng.uniform(0.0, LAST_ARRIVAL)
    for tracked in actions:
        if second >= HOUR:
            return
        yield Step(second, tracked)
        second += rng.uniform(3.0, 75.0)


def _actions(customer: Customer, rng: random.Random, *, app: bool) -> Iterator[Tracked]:
    """Return what a visitor does. A web customer is identified at the start, an app user at checkout or never."""
    if not app:
        yield customer
    yield _page("home")
    cart: list[Product] = []
    for _ in range(rng.randint(2, 9)):
        if rng.random() < 0.3:
            query = rng.choice(SEARCHES)
            yield Event("search", {"query": query, "results": rng.randint(0, 12)})
        product = rng.choice(CATALOGUE)
        yield _page("product", item_id=product.id, category=product.category, price=product.price)
        if rng.random() < 0.35:
            cart.append(product)
            yield Event("cart_update", {"action": "add", "item_id": product.id, "items": len(cart), **_total(cart)})
    if cart and rng.random() < 0.7:
        yield from _purchase(customer, cart, rng, app=app)


def _purchase(customer: Customer, cart: list[Product], rng: random.Random, *, app: bool) -> Iterator[Tracked]:
    yield _page("cart", items=len(cart))
    if app:
        yield customer
    yield Event("checkout", {"step": "address", **_total(cart)})
    if rng.random() < 0.15:
        return  # the visitor leaves without paying
    payment = rng.choice(PAYMENTS)
    yield Event("checkout", {"step": "payment", "payment_type": payment, **_total(cart)})
    for product in cart:
        yield PurchasedItem(product.price, CURRENCY, payment, product.id, product.title)
    yield Event("purchase", {"purchase_status": "success", "items": [product.id for product in cart], **_total(cart)})


def _page(page_type: str, **properties: str | float) -> Event:
    return Event("page_visit", {"page_type": page_type, **properties})


def _total(cart: list[Product]) -> dict[str, float]:
    return {"total_price": round(sum(product.price for product in cart), 2)}
