"""
Optional libraries that are not installed, and second copies of modules.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType

import pytest

from exponea_async import integrations


def import_copy(name: str, *, without: str = "") -> ModuleType:
    """
    Load another copy of a module.

    Args:
        name: The full name of the module.
        without: A library that the copy cannot import, as if it were not installed.
    """
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with uninstalled(without) if without else nullcontext():
        spec.loader.exec_module(module)
    return module


@contextmanager
def uninstalled(library: str) -> Iterator[None]:
    """Make imports of a library, or of one of its modules, fail within the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, library, None)
        yield


def public_integrations() -> list[str]:
    """Return the names of the public modules of ``exponea_async.integrations``."""
    return sorted(path.stem for path in Path(integrations.__path__[0]).glob("[!_]*.py"))
