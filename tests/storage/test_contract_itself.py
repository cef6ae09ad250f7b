"""
The contract of storages finds storages that break it.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.faulty_storages import FAULTS
from helpers.pytest_runs import PytestRun, run_pytest

from exponea_async.storage.memory import MemoryStorage
from exponea_async.testing.storage_contract import StorageContract

TESTS = Path(__file__).parent.parent

#: A class of tests for each fault.
FAULTY = """
import pytest_asyncio
from exponea_async.testing.storage_contract import storage_factory
from helpers.faulty_storages import FAULTS

def contract_of(storage, part):
    @pytest_asyncio.fixture
    async def make_storage(self):
        async with storage_factory(storage) as make:
            yield make

    return type(part)(f"Test{storage.__name__}", (part,), {"make_storage": make_storage})

globals().update({f"Test{storage.__name__}": contract_of(storage, part) for storage, part in FAULTS.items()})
"""

#: A backend that deletes a record too many, in the strict mode of pytest-asyncio.
OWN = """
import pytest
import pytest_asyncio
from exponea_async.storage.memory import MemoryStorage
from exponea_async.testing.storage_contract import StorageContract, storage_factory

class Greedy(MemoryStorage):
    async def drop_waiting(self, routes):
        return await super().drop_waiting([*routes, "y"])

@pytest.mark.asyncio
class TestGreedy(StorageContract):
    @pytest_asyncio.fixture
    async def make_storage(self):
        async with storage_factory(Greedy) as make:
            yield make
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> PytestRun:
    options = ("-o", "asyncio_mode=auto", "-o", f"pythonpath={TESTS}", "-rfE", "--tb=line")
    return run_pytest(tmp_path_factory.mktemp("faulty"), FAULTY, *options)


def names_of(outcome: str, run: PytestRun) -> list[str]:
    """Return the names of the classes that have tests with an outcome."""
    return re.findall(rf"^{outcome} test_application.py::Test(\w+)::", run.output, re.MULTILINE)


class TestFaults:
    @pytest.mark.parametrize("storage", FAULTS, ids=lambda storage: storage.__name__)
    def test_a_fault_is_found(self, faulty: PytestRun, storage: type[MemoryStorage]) -> None:
        """The part of the contract that is about the subject of a fault finds it."""
        assert storage.__name__ in names_of("FAILED", faulty), faulty.output[-3000:]

    def test_most_tests_pass(self, faulty: PytestRun) -> None:
        """A fault fails the tests that it concerns, and no test breaks or hangs."""
        assert names_of("ERROR", faulty) == []
        assert faulty.outcomes["passed"] > faulty.outcomes["failed"]

    def test_each_part_is_proven(self) -> None:
        """Each part of the contract finds some fault."""
        assert set(FAULTS.values()) == set(StorageContract.__bases__)


class TestUse:
    def test_a_failure_shows_values(self, tmp_path: Path) -> None:
        """One class with one fixture runs all tests, once, and a failure shows the values that differ."""
        run = run_pytest(tmp_path, OWN)

        assert run.outcomes["failed"] == 1
        assert run.outcomes["passed"] > 180
        assert "test_dropping_routes" in run.output
        assert "E       assert 4 == 3" in run.output, run.output

    def test_imports(self) -> None:
        """Functions for tests of applications need neither pytest nor hypothesis; the contract needs only pytest."""
        script = """
import sys
import exponea_async.testing
assert not {"pytest", "hypothesis"} & sys.modules.keys()
import exponea_async.testing.storage_contract
assert "hypothesis" not in sys.modules
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)

        assert (done.returncode, done.stderr) == (0, "")
