"""
A small shop's visitors, made up.

A visit is a plan: what somebody does, and at which second of the hour. Nothing here tracks anything.
"""

import random
from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from exponea_async.models import Customer, Event, PurchasedItem

HOUR = 3600.0
#: By when the last visitor has come, in seconds; he should have the time to look round.
LAST_ARRIVAL = 3300.0
CURRENCY = "EUR"

FIRST_NAMES = ("Ada", "Boris", "Clara", "David", "Eva", "Filip", "Greta", "Hugo", "Iva", "Jan", "Klara", "Leo")
LAST_NAMES = ("Bauer", "Dvorak", "Fischer", "Horak", "Klein", "Moravec", "Novak", "Richter", "Svoboda", "Weber")
CITIES = ("Berlin", "Bratislava", "Brno", "Prague", "Vienna")
SEARCHES = ("beans", "decaf", "espresso", "filter", "gift", "grinder", "kettle", "mug")
PAYMENTS = ("bank transfer", "card", "cash on delivery", "wallet")


@frozen
class Product:
    """Something on the shelves."""

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

What = Event | Customer | PurchasedItem


@frozen
class Step:
    """
    Something that a visitor does.

    Attributes:
        at: When, as a second of the hour.
        what: What is to be tracked.
    """

    at: float
    what: What


@frozen
class Visit:
    """
    A visitor's plan.

    Attributes:
        kind: A customer of the ``"web"`` shop, whom the backend knows, or of the ``"app"``, on a device of his own.
        name: The customer's e-mail address, or the device's key.
        steps: What happens, in order.
    """

    kind: Literal["web", "app"]
    name: str
    steps: tuple[Step, ...]


def visits(count: int, seed: int) -> list[Visit]:
    """Make up the hour's visits; the same seed makes the same hour."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    return [_visit(number, chance) for number in range(count)]


def _visit(number: int, chance: random.Random) -> Visit:
    first, last = chance.choice(FIRST_NAMES), chance.choice(LAST_NAMES)
    email = f"{first}.{last}.{number}@example.com".lower()
    known = Customer(
        {"registered": email},
        {"email": email, "first_name": first, "last_name": last, "city": chance.choice(CITIES)},
    )
    app = chance.random() < 0.4
    walk = _in_time(chance, _walk(known, chance, app=app))
    return Visit("app" if app else "web", f"app:{number}" if app else email, tuple(walk))


def _in_time(chance: random.Random, walk: Iterator[What]) -> Iterator[Step]:
    """Spread what somebody does over the rest of the hour; whoever is still here at its end leaves."""
    at = chance.uniform(0.0, LAST_ARRIVAL)
    for what in walk:
        if at >= HOUR:
            return
        yield Step(at, what)
        at += chance.uniform(3.0, 75.0)


def _walk(known: Customer, chance: random.Random, *, app: bool) -> Iterator[What]:
    """Walk through the shop. In the app one is nobody until one checks out; on the web one has logged in."""
    if not app:
        yield known
    yield _page("home")
    cart: list[Product] = []
    for _ in range(chance.randint(2, 9)):
        if chance.random() < 0.3:
            words = chance.choice(SEARCHES)
            yield Event("search", {"query": words, "results": chance.randint(0, 12)})
        product = chance.choice(CATALOGUE)
        yield _page("product", item_id=product.id, category=product.category, price=product.price)
        if chance.random() < 0.35:
            cart.append(product)
            yield Event("cart_update", {"action": "add", "item_id": product.id, "items": len(cart), **_total(cart)})
    if cart and chance.random() < 0.7:
        yield from _purchase(known, cart, chance, app=app)


def _purchase(known: Customer, cart: list[Product], chance: random.Random, *, app: bool) -> Iterator[What]:
    yield _page("cart", items=len(cart))
    if app:
        yield known
    yield Event("checkout", {"step": "address", **_total(cart)})
    if chance.random() < 0.15:
        return  # changed his mind
    payment = chance.choice(PAYMENTS)
    yield Event("checkout", {"step": "payment", "payment_type": payment, **_total(cart)})
    for product in cart:
        yield PurchasedItem(product.price, CURRENCY, payment, product.id, product.title)
    yield Event("purchase", {"purchase_status": "success", "items": [product.id for product in cart], **_total(cart)})


def _page(kind: str, **more: str | float) -> Event:
    return Event("page_visit", {"page_type": kind, **more})


def _total(cart: list[Product]) -> dict[str, float]:
    return {"total_price": round(sum(product.price for product in cart), 2)}
