"""
The tests that every storage backend passes, for pytest with pytest-asyncio.

A backend is tested by a class with one fixture, which inherits all tests::

    from functools import partial

    import pytest
    import pytest_asyncio
    from exponea_async.testing.storage_contract import StorageContract, storage_factory


    @pytest.mark.asyncio
    class TestMine(StorageContract):
        @pytest_asyncio.fixture
        async def make_storage(self, tmp_path):
            async with storage_factory(partial(MyStorage, tmp_path / "queue")) as make:
                yield make

`MyStorage` stands for the class that is tested. `storage_factory` calls it with the keywords `max_records`, `when_full`
and `max_bytes`. All storages of one test have the same data, which is empty at its start.

The bases of `StorageContract` are its parts, by subject. A backend that is not complete yet can be tested by some of
them.
`exponea_async.testing.storage_contract.model` compares any sequence of calls with a model; it needs hypothesis.

The assertions are plain ``assert`` statements. The package's plugin for pytest has them rewritten, so that a test that
fails shows the values.
"""

from exponea_async.testing.storage_contract.activity import ActivityContract
from exponea_async.testing.storage_contract.builders import MakeStorage, storage_factory
from exponea_async.testing.storage_contract.capacity import CapacityContract
from exponea_async.testing.storage_contract.dead_letters import DeadLetterContract
from exponea_async.testing.storage_contract.erasing import ErasingContract
from exponea_async.testing.storage_contract.leasing import LeasingContract
from exponea_async.testing.storage_contract.life_cycle import LifeCycleContract
from exponea_async.testing.storage_contract.reading import ReadingContract
from exponea_async.testing.storage_contract.routes import RouteContract
from exponea_async.testing.storage_contract.settling import SettlingContract
from exponea_async.testing.storage_contract.sharing import SharingContract
from exponea_async.testing.storage_contract.states import StateContract
from exponea_async.testing.storage_contract.writing import WritingContract

__all__ = [
    "ActivityContract",
    "CapacityContract",
    "DeadLetterContract",
    "ErasingContract",
    "LeasingContract",
    "LifeCycleContract",
    "MakeStorage",
    "ReadingContract",
    "RouteContract",
    "SettlingContract",
    "SharingContract",
    "StateContract",
    "StorageContract",
    "WritingContract",
    "storage_factory",
]


class StorageContract(
    WritingContract,
    RouteContract,
    LeasingContract,
    SettlingContract,
    ReadingContract,
    ErasingContract,
    DeadLetterContract,
    StateContract,
    ActivityContract,
    CapacityContract,
    SharingContract,
    LifeCycleContract,
):
    """All tests of a storage backend."""
