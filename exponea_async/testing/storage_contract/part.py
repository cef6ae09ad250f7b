"""
The base of all parts of the contract.
"""

import pytest_asyncio

from exponea_async.storage.base import Storage
from exponea_async.testing.storage_contract.builders import MakeStorage


class ContractPart:
    """
    Tests of a storage that share its fixtures.

    A class of tests that inherits from it has a fixture ``make_storage``, which returns a `MakeStorage`.
    """

    @pytest_asyncio.fixture
    async def storage(self, make_storage: MakeStorage) -> Storage:
        """An open storage without a limit that matters."""
        return await make_storage()
