"""
Loading a module a second time, for example without an optional library.
"""

import importlib.util
import sys
from types import ModuleType

import pytest


def copy_of(name: str, *, without: str = "") -> ModuleType:
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
    with pytest.MonkeyPatch.context() as patch:
        if without:
            patch.setitem(sys.modules, without, None)
        spec.loader.exec_module(module)
    return module
