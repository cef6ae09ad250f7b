"""
The rights that roles need, and no others.

An *uploader* records, sends and maintains the queue. A *producer* only records: it can neither read the events that
wait nor delete any. Neither may change the schema.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

RoleKind = Literal["uploader", "producer"]

#: The rights on each table of the schema. Rights on columns keep the bodies of records from a producer.
UPLOADER: Mapping[str, str] = {
    "meta": "SELECT",
    "queue": "SELECT, INSERT, UPDATE (generation)",
    "route": "SELECT, INSERT, UPDATE, DELETE",
    # Rows are locked for leases, which needs the right to change them.
    "record": "SELECT, INSERT, UPDATE, DELETE",
    "taken": "SELECT, INSERT, UPDATE, DELETE",
    "dead": "SELECT, INSERT, DELETE",
    "mark": "SELECT, INSERT, DELETE",
    "state": "SELECT, INSERT, UPDATE, DELETE",
    "floor": "SELECT, INSERT, DELETE",
    "client": "SELECT, INSERT, UPDATE, DELETE",
    "counter": "SELECT, INSERT, UPDATE, DELETE",
    "rate_limit": "SELECT, INSERT, UPDATE",
    "move": "SELECT, INSERT, UPDATE",
    "moved": "SELECT, INSERT, UPDATE",
}
PRODUCER: Mapping[str, str] = {
    "meta": "SELECT",
    "queue": "SELECT, INSERT",
    "route": "SELECT, INSERT, UPDATE (next)",
    "record": "SELECT (id, at), INSERT",
    "dead": "SELECT (id, queue, reason)",
    "mark": "SELECT",
    "state": "SELECT, INSERT, UPDATE, DELETE",
    "floor": "SELECT, INSERT",
    "client": "SELECT, INSERT, UPDATE, DELETE",
    # Counters of clients that are gone are added up by whoever is there.
    "counter": "SELECT, INSERT, UPDATE, DELETE",
}
RIGHTS: Mapping[RoleKind, Mapping[str, str]] = {"uploader": UPLOADER, "producer": PRODUCER}


def grants(schema: str, role: str, kind: RoleKind) -> Iterator[str]:
    """
    Yield the statements that give a role its rights.

    Args:
        schema: The name of the schema.
        role: The name of the role.
        kind: What the role is for.
    """
    name = quoted(role)
    yield f"GRANT USAGE ON SCHEMA {schema} TO {name}"
    yield f"GRANT USAGE ON SEQUENCE {schema}.client_number TO {name}"
    for table, rights in RIGHTS[kind].items():
        yield f"GRANT {rights} ON {schema}.{table} TO {name}"


def quoted(name: str) -> str:
    """Return a name as an identifier in a statement."""
    return '"' + name.replace('"', '""') + '"'
