"""
Environment variables and module constants that hold for one test.
"""

from pathlib import Path
from types import ModuleType
from typing import Any, Protocol


class Environment(Protocol):
    """Sets environment variables until the end of the test; None removes one."""

    def __call__(self, **variables: str | Path | None) -> None: ...


class SetConstants(Protocol):
    """Changes constants of a module until the end of the test, such as a limit that would take long to reach."""

    def __call__(self, module: ModuleType, **constants: Any) -> None: ...
