"""
Modules that are imported when they are used first: those of features, which few applications use all of.

A module that needs them has both, so that tools see a plain import::

    from typing import TYPE_CHECKING

    from exponea_async._internal.lazy import LazyModule

    if TYPE_CHECKING:
        from exponea_async.features.inbox import service
    else:
        service = LazyModule("exponea_async.features.inbox.service")
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Coroutine[Any, Any, Any]])


class LazyModule(ModuleType):
    """
    Stands for a module, and imports it when one of its names is read first.

    Annotations with names of the module must be strings, which `typing.get_type_hints` evaluates.

    Args:
        name: The full name of the module.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def imports(*modules: ModuleType) -> Callable[[_Function], _Function]:
    """
    Let a coroutine function import modules before its first call: in a thread, so that the event loop goes on.

    Args:
        modules: The modules, each a `LazyModule`.
    """
    names = [each.__name__ for each in modules]

    def decorate(function: _Function) -> _Function:
        @wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            await import_in_thread(*names)
            return await function(*args, **kwargs)

        return cast("_Function", call)

    return decorate


async def import_in_thread(*names: str) -> None:
    """Import modules in a thread; return at once if they are imported already."""
    for name in names:
        if not is_imported(name):
            await asyncio.to_thread(import_module, name)


def is_imported(name: str) -> bool:
    """Return whether a module is imported, and not only being imported by another thread."""
    module = sys.modules.get(name)
    return module is not None and not getattr(module.__spec__, "_initializing", False)
