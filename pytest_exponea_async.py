"""
The pytest plugin of exponea_async: fixtures, and the marker ``exponea``.

pytest imports this module at each start, in every project of an environment in which the package is installed. So it is
not a part of the package, and imports nothing of it before a test uses one of the fixtures.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from exponea_async import Configuration, Exponea
    from exponea_async.portal import Portal
    from exponea_async.sandbox import Sandbox
    from exponea_async.testing import Clock, TrackedEvent

# Shows the values in assertions that fail; imports nothing.
pytest.register_assert_rewrite("exponea_async.testing.storage_contract")

MARKER = "exponea(faults=..., definitions=..., rate_limit=...): what the sandbox of the test does"
#: The keywords of the marker.
OPTIONS = ("faults", "definitions", "rate_limit")
#: The names under which pytest knows pytest-asyncio.
ASYNCIO_PLUGINS = ("asyncio", "pytest_asyncio", "pytest_asyncio.plugin")
#: The event loops that pytest-asyncio has.
LOOP_SCOPES = ("function", "class", "module", "package", "session")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the fixtures for the event loops of pytest-asyncio where that is there."""
    config.addinivalue_line("markers", MARKER)
    if _has_asyncio(config):
        config.pluginmanager.register(_asyncio_fixtures(), "pytest_exponea_async: pytest-asyncio")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test whose marker has a keyword that there is not."""
    for mark in item.iter_markers("exponea"):
        trouble = _trouble(mark)
        if trouble:
            pytest.fail(f"@pytest.mark.exponea: {trouble}", pytrace=False)


def _trouble(mark: pytest.Mark) -> str:
    if mark.args:
        return f"expected keywords only, got {mark.args[0]!r}. Use {', '.join(f'{each}=...' for each in OPTIONS)}."
    for name in mark.kwargs:
        if name not in OPTIONS:
            close = get_close_matches(name, OPTIONS, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Use {', '.join(OPTIONS)}."
            return f"unknown keyword {name!r}. {hint}"
    return ""


def _options(node: Any) -> Mapping[str, Any]:
    options: dict[str, Any] = {}
    # The closest marker comes first.
    for mark in node.iter_markers("exponea"):
        options = {**mark.kwargs, **options}
    return options


# Fixtures


@pytest.fixture
def exponea_sandbox(request: pytest.FixtureRequest) -> "Iterator[Sandbox]":
    """A running sandbox of the Engagement API, with what the marker ``exponea`` says."""
    from exponea_async.testing import SandboxThread
    from exponea_async.testing.fixtures import new_sandbox

    try:
        sandbox = new_sandbox(_options(request.node))
    except (TypeError, ValueError) as error:
        # Raised here, not by pytest.fail, so that pytest does not show the cause a second time.
        raise pytest.fail.Exception(f"@pytest.mark.exponea: {error}", pytrace=False) from None
    with SandboxThread(sandbox):
        yield sandbox


@pytest.fixture
def exponea_configuration(exponea_sandbox: "Sandbox") -> "Configuration":
    """
    The settings of a client that sends to the sandbox: a queue in memory, and uploads on demand only.

    Override it for other settings.
    """
    from exponea_async.testing import sandbox_configuration

    return sandbox_configuration(exponea_sandbox)


@pytest.fixture
def exponea_clock() -> "Clock":
    """The clock of the events of ``exponea`` and ``exponea_portal``: the system's time until the test sets it."""
    from exponea_async.testing import Clock

    return Clock()


@pytest.fixture
def exponea(request: pytest.FixtureRequest) -> "Exponea":
    """A started client that sends to the sandbox, in the event loop of the test."""
    client: Exponea = request.getfixturevalue(_client_fixture(request))
    return client


@pytest.fixture
def exponea_portal(exponea_configuration: "Configuration", exponea_clock: "Clock") -> "Iterator[Portal]":
    """A portal to a client that sends to the sandbox, for tests that are not coroutines."""
    from exponea_async.testing.fixtures import open_portal

    with open_portal(exponea_configuration, exponea_clock) as portal:
        yield portal


@pytest.fixture
def assert_tracked(exponea_sandbox: "Sandbox") -> "Callable[..., list[TrackedEvent]]":
    """``exponea_async.testing.assert_tracked`` for the sandbox of the test."""
    from exponea_async.testing.fixtures import assertion

    return assertion(exponea_sandbox)


@pytest.fixture
def assert_not_tracked(exponea_sandbox: "Sandbox") -> Callable[..., None]:
    """``exponea_async.testing.assert_not_tracked`` for the sandbox of the test."""
    from exponea_async.testing.fixtures import opposite_assertion

    return opposite_assertion(exponea_sandbox)


# The client, in the event loop that the plugin for coroutines gives the test


async def _client(exponea_configuration: "Configuration", exponea_clock: "Clock") -> "AsyncIterator[Exponea]":
    from exponea_async.testing.fixtures import running_client

    async with running_client(exponea_configuration, exponea_clock) as client:
        yield client


#: For anyio, which runs each asynchronous fixture of a test that uses its backends.
_exponea_of_anyio = pytest.fixture(_client, name="_exponea_of_anyio")


def _asyncio_fixtures() -> ModuleType:
    """Return a plugin with one fixture for each of the event loops of pytest-asyncio."""
    import pytest_asyncio

    def fixture(scope: Any) -> Any:
        async def client(exponea_configuration: "Configuration", exponea_clock: "Clock") -> "AsyncIterator[Exponea]":
            async for each in _client(exponea_configuration, exponea_clock):
                yield each

        return pytest_asyncio.fixture(client, loop_scope=scope, name=_asyncio_fixture(scope))

    # pytest looks for fixtures in modules and classes only.
    plugin = ModuleType("pytest_exponea_async_loops")
    vars(plugin).update({_asyncio_fixture(scope): fixture(scope) for scope in LOOP_SCOPES})
    return plugin


def _asyncio_fixture(scope: str) -> str:
    return f"_exponea_of_{scope}_loop"


def _client_fixture(request: pytest.FixtureRequest) -> str:
    """Return the name of the fixture that starts the client in the event loop of a test."""
    if "anyio_backend" in request.fixturenames:
        if request.getfixturevalue("anyio_backend_name") != "asyncio":
            raise _unusable("it needs asyncio. Let the fixture anyio_backend return 'asyncio'.")
        return "_exponea_of_anyio"
    mark = request.node.get_closest_marker("asyncio")
    if mark is not None and _has_asyncio(request.config):
        return _asyncio_fixture(mark.kwargs.get("loop_scope") or mark.kwargs.get("scope") or _loop_scope(request))
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        raise _unusable(
            "nothing runs the test, which is a coroutine function. Install pytest-asyncio and mark the test with"
            " @pytest.mark.asyncio (or set asyncio_mode = auto), or install anyio and use @pytest.mark.anyio."
        )
    raise _unusable("the test is not a coroutine function. Use the fixture exponea_portal, or write 'async def'.")


def _loop_scope(request: pytest.FixtureRequest) -> str:
    try:
        return str(request.config.getini("asyncio_default_test_loop_scope"))
    except (KeyError, ValueError):  # an older pytest-asyncio
        return "function"


def _has_asyncio(config: pytest.Config) -> bool:
    return any(config.pluginmanager.hasplugin(each) for each in ASYNCIO_PLUGINS)


def _unusable(trouble: str) -> BaseException:
    return pytest.fail.Exception(f"The fixture exponea can't be used here: {trouble}", pytrace=False)
