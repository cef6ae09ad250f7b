"""
The architecture: which part may import which, and how large a file or a function may grow.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = "exponea_async"
ROOT = Path(__file__).parent.parent / PACKAGE

#: The layer of each part. An import runs from a higher layer to a lower one, late and type-only imports included.
LAYERS = {
    "cli": 7,
    "portal": 7,
    "integrations": 7,
    "testing": 7,
    "__main__": 8,
    "client": 6,
    "_lifecycle": 5,
    "subjects": 5,
    "transactions": 5,
    "features": 4,
    "devices": 3,
    "_pipeline": 2,
    "storage": 1,
    "config": 1,
    "hooks": 1,
    "observability": 1,
    "models": 0,
    "messages": 0,
    "projects": 0,
    "requests": 0,
    "config_sections": 0,
    "errors": 0,
    "_internal": 0,
    "_version": 0,
    # The sandbox imports nothing of the SDK, so that it is an independent implementation of the API.
    "sandbox": 0,
    # The package itself only re-exports public names.
    "": 9,
}

#: Imports between parts of one layer. Each has its reason.
SAME_LAYER = {
    ("integrations", "portal"): "frameworks that are not asynchronous call the client in a portal",
    ("storage", "config"): "the storage is chosen by the configuration",
    ("models", "_internal"): "a push notification names its action as messages do",
    ("models", "errors"): "a receipt raises the errors of a delivery",
    ("_internal", "errors"): "the shared rules raise the errors of the package",
    ("errors", "_internal"): "the messages of errors are made printable",
    ("projects", "_internal"): "projects are checked by the shared rules",
    ("projects", "models"): "a mapping of projects names kinds of events",
    ("projects", "errors"): "projects raise the errors of settings",
    ("messages", "_internal"): "messages read the fields of their payloads",
    ("testing", "portal"): "the client of a portal is tested as others are",
    ("config_sections", "_internal"): "settings are checked by the shared rules",
    ("config_sections", "errors"): "settings that contradict each other are an error",
    ("transactions", "subjects"): "the subjects of a transaction are those of the client",
    ("requests", "_internal"): "the limits of requests are settings, which are checked",
}

#: Parts whose folders and files must not import each other; the folders named here are shared by the others.
FEATURES = "features"
SHARED_FEATURES = "features._shared"

#: The modules that may import a third-party library.
RESERVED = {
    "aiohttp": (
        "_pipeline.transport",
        "_pipeline.resolver",
        "sandbox",
        "testing",
        "integrations",
        "cli.worker.monitoring",
    ),
    "tenacity": ("_pipeline.retry",),
    "aiosqlite": ("storage.sqlite",),
    "sqlite3": ("storage.sqlite",),
    "asyncpg": ("storage.postgres",),
    "platformdirs": ("storage.selection",),
    "nh3": ("features._shared.html.reader",),
    "selectolax": ("features._shared.html.reader",),
    "tinycss2": ("features._shared.html.css",),
    "rich": ("cli.styled",),
    "shtab": ("cli.commands.completion",),
    "regex": ("features._shared.targeting.patterns",),
    # The middleware for all ASGI applications needs no framework.
    "fastapi": ("integrations.fastapi",),
    "litestar": ("integrations.litestar",),
    "starlette": ("integrations.starlette",),
}

#: The functions that catch every exception, each with its reason.
BROAD_HANDLERS = {
    "hooks.Hooks.notify": "a listener of the user",
    "hooks.Hooks.report": "a function of the user",
    "_internal.user_code.reliable_clock.read": "a clock of the user, which may raise anything",
    "_internal.encoding._call_encoder": "the encoder is the application's",
    "_internal.encoding._Walk._convert": "a value of the user, whose methods may raise anything",
    "_internal.arguments._datetime_seconds": "a value of the user, whose methods may raise anything",
    "_internal.arguments.read_id": "a function of the user, which may raise anything",
    "_internal.arguments.read_mapping": "a mapping of the user, whose methods may raise anything",
    "_pipeline.recorder.EventRecorder._changed": "a hook of the user, for which a sign-out must not fail",
    "storage.postgres.committer.Committer._commit_next": "the callers get the error, and the task goes on",
    "storage.postgres.committer._report": "what was committed stays committed",
    "storage.postgres.undecided._call": "the outcome of a transaction must not prevent that of the others",
    "_pipeline.acknowledger.Acknowledger.store": "publishing one verdict must not prevent that of the others",
    "_pipeline.receipts.Receipts._look_up": "looking up the records of receipts goes on",
    "_pipeline.uploader.Uploader._lease_forever": "the upload loop",
    "_pipeline.uploader.Uploader._send_forever": "the upload loop",
    "_pipeline.api.ApiClient._customer_token": "a function of the user, which may raise anything",
    "features.content_blocks.carousel._call_safely": "a function of the user; the carousel is shown without it",
    "features._shared.html.resources._load": "a function of the user; messages that need it are not shown",
    "integrations._bots.SubjectRule.choose": "functions of the user; the bot goes on, and nothing is tracked",
    "integrations._bots.SubjectRule.choose_now": "functions of the user; the bot goes on, and nothing is tracked",
    "integrations._request._called": "a function of the user, which may raise anything",
    "integrations._request._awaited": "a function of the user, which may raise anything",
    "integrations.asgi._Lifespan.run": "an application that does not support lifespan may raise anything",
    "portal.Portal._run": "the caller gets it, whatever it is",
    "testing.threads.SandboxThread._run": "the caller gets it, whatever it is",
    "cli.app.main": "a script expects one line and an exit code",
    "storage.sqlite.commit_batch._call": "what was committed stays committed for all callers",
    "storage.sqlite.jobs.run_reads": "an error of a read must not fail the writes beside it",
    "storage.sqlite.jobs.Job.run_isolated": "an error of a read is raised to its caller only",
    "storage.sqlite.group_commit.GroupCommitter._run": "the commit loop: every caller gets the error",
    "storage.sqlite.storage.SQLiteStorage._call": "translates SQLite's errors, and raises all others again",
}

#: What ``import exponea_async`` does not import, with all modules below it.
NOT_IMPORTED = {
    "aiohttp.web": "the server of aiohttp is for the sandbox and the worker",
    "aiosqlite": "a queue in PostgreSQL or in memory does not need it",
    "sqlite3": "a queue in PostgreSQL or in memory does not need it",
    "asyncpg": "a queue in a file does not need it",
    "exponea_async.storage.postgres": "a queue in a file does not need it",
    "exponea_async.storage.sqlite": "a queue in PostgreSQL or in memory does not need it",
    "exponea_async.messages": "only messages need it",
    "exponea_async.features.content_blocks.service": "only content blocks need it",
    "exponea_async.features.in_app.service": "only in-app messages need it",
    "exponea_async.features.inbox.service": "only the app inbox needs it",
    "exponea_async.features.segments.service": "only segments need it",
    "exponea_async.features.fetch.parsing": "only recommendations, consents and attributes need it",
    "exponea_async.features._shared.html": "only messages need it",
    "exponea_async.features._shared.targeting": "only messages need it",
    "exponea_async.features._shared.payload": "only push notifications need it",
    "exponea_async._pipeline.uploader": "a client that is not started does not need it",
    "exponea_async.transactions": "only transactions of the application need it",
    "exponea_async.cli": "it is a program of its own",
    "exponea_async.integrations": "an application uses one of them at most",
    "exponea_async.portal": "applications without an event loop need it",
    "exponea_async.sandbox": "it is for tests",
    "exponea_async.testing": "it is for tests",
    "decimal": "only applications that use its numbers need it",
    "difflib": "only the errors of settings need it",
    "html.parser": "only messages need it",
    "numpy": "the application may not have it",
    "nh3": "only messages need it",
    "opentelemetry": "only metrics and spans need it",
    "pydantic": "the application may not have it",
    "regex": "only messages need it",
    "rich": "only the command line needs it",
    "selectolax": "only messages need it",
    "tinycss2": "only messages need it",
}

#: Tracks in a client that is started, and prints the modules that are imported by that.
TRACKING = """
import asyncio
import sys
from exponea_async import Configuration, Event, Exponea, FlushMode

async def main():
    configuration = Configuration(
        project_token="token", authorization_token="key", storage=sys.argv[1], flush_mode=FlushMode.MANUAL
    )
    async with Exponea(configuration) as exponea:
        before = set(sys.modules)
        await exponea.track_event(Event("event", {"key": "value"}))
        await exponea.identify_customer({"registered": "jane@example.com"})
        await exponea.device("other").track_event(Event("event"))
        await exponea.for_customer({"registered": "jane@example.com"}).track_event(Event("event"))
        print(*(set(sys.modules) - before))

asyncio.run(main())
"""

LONGEST_FILE = 500
LONGEST_FUNCTION = 60

Sources = Mapping[str, str]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def package() -> Sources:
    """Return the sources of all modules, by module name without that of the package."""
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(ROOT.rglob("*.py"))}
    return {name.removesuffix("__init__").rstrip("."): path.read_text() for path, name in names.items()}


SOURCES = package()


def imports(module: str, sources: Sources) -> Iterator[str]:
    """Return what a module imports, late and type-only imports included, as full module names."""
    for node in ast.walk(ast.parse(sources[module])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full.removeprefix(f"{PACKAGE}.") in sources else node.module or ""


def graph(sources: Sources) -> dict[str, set[str]]:
    """Return for each module the other modules of the package that it imports."""
    inner = {
        name: {each.removeprefix(PACKAGE).lstrip(".") for each in imports(name, sources) if each.startswith(PACKAGE)}
        for name in sources
    }
    return {name: others - {name} for name, others in inner.items()}


def part(module: str) -> str:
    """Return the part that a module belongs to."""
    return module.partition(".")[0]


def upward_imports(sources: Sources) -> list[str]:
    """Return the imports that do not run downwards."""
    return [
        f"{module} -> {other}"
        for module, others in graph(sources).items()
        for other in others
        if part(module) != part(other)
        and LAYERS[part(module)] <= LAYERS[part(other)]
        and (part(module), part(other)) not in SAME_LAYER
    ]


def cycle(sources: Sources) -> list[str]:
    """Return the modules that import each other in a circle."""
    others = {name: set(each) for name, each in graph(sources).items()}
    while free := {name for name, each in others.items() if not each & others.keys()}:
        others = {name: each for name, each in others.items() if name not in free}
    return sorted(others)


def forbidden_imports(sources: Sources) -> list[str]:
    """Return the imports between parts that must not know each other."""
    return [
        f"{module} -> {other}"
        for module, others in graph(sources).items()
        for other in others
        if is_forbidden(module, other)
    ]


def is_forbidden(module: str, other: str) -> bool:
    one, two = part(module), part(other)
    if "sandbox" in (one, two):
        return one not in (two, "cli", "testing")
    if one == "storage":
        return two not in ("storage", "errors", "config", "_internal")
    if one == FEATURES and two == FEATURES:
        return other != FEATURES and feature(module) != feature(other) and not is_shared(other)
    if one == FEATURES and two == "storage":
        return other != "storage.base"
    return one == FEATURES and two == "_pipeline"


def feature(module: str) -> str:
    """Return the folder or file directly below ``features`` that a module belongs to."""
    return ".".join(module.split(".")[:2])


def is_shared(module: str) -> bool:
    return module == SHARED_FEATURES or module.startswith(f"{SHARED_FEATURES}.")


def misplaced_libraries(sources: Sources) -> list[str]:
    """Return the imports of libraries that only some modules may import."""
    return [
        f"{module} -> {each}"
        for module in sources
        for each in imports(module, sources)
        if part(each) in RESERVED
        and not any(module == allowed or module.startswith(f"{allowed}.") for allowed in RESERVED[part(each)])
    ]


def functions(sources: Sources) -> Iterator[tuple[str, Function]]:
    """Iterate over all functions, named by module and class."""
    for module, source in sources.items():
        yield from inner_functions(module, ast.parse(source))


def inner_functions(place: str, node: ast.AST) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            name = f"{place}.{child.name}"
            if isinstance(child, Function):
                yield name, child
            yield from inner_functions(name, child)
        else:
            yield from inner_functions(place, child)


def long_functions(sources: Sources) -> list[str]:
    return [name for name, each in functions(sources) if (each.end_lineno or 0) - each.lineno >= LONGEST_FUNCTION]


def broad_handlers(sources: Sources) -> set[str]:
    """Return the functions that catch every exception without raising it again."""
    return {name for name, each in functions(sources) if any(map(is_broad, own_nodes(each)))}


def own_nodes(function: Function) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, Function):
            yield child
            yield from ast.walk(child)


def is_broad(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    names = {each.id for each in ast.walk(node.type) if isinstance(each, ast.Name)} if node.type else {"BaseException"}
    raises = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
    return bool(names & {"Exception", "BaseException"}) and not raises


def undocumented(sources: Sources) -> list[str]:
    """Return the public things without a docstring."""
    return [
        name
        for module, source in sources.items()
        for name, each in documentable(module, ast.parse(source))
        if not ast.get_docstring(each)
    ]


def documentable(place: str, node: ast.AST) -> Iterator[tuple[str, ast.Module | Function | ast.ClassDef]]:
    if isinstance(node, ast.Module):
        yield place or PACKAGE, node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef) and not child.name.startswith("_"):
            yield f"{place}.{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from documentable(f"{place}.{child.name}", child)


class TestLayers:
    def test_every_part_has_a_layer(self) -> None:
        """Every module belongs to a part whose layer is known."""
        assert {part(module) for module in SOURCES} <= LAYERS.keys()

    def test_imports_run_downwards(self) -> None:
        """No module imports one of a higher layer, nor of its own layer without a reason."""
        assert upward_imports(SOURCES) == []

    def test_every_exception_is_needed(self) -> None:
        """No exception outlives its reason."""
        used = {(part(module), part(other)) for module, others in graph(SOURCES).items() for other in others}
        assert SAME_LAYER.keys() - used == set()

    def test_no_import_cycle(self) -> None:
        """No chain of imports leads back to its start, late and type-only imports included."""
        assert cycle(SOURCES) == []

    def test_parts_that_do_not_know_each_other(self) -> None:
        """Features, storage and sandbox are kept apart; what features share is in one folder."""
        assert forbidden_imports(SOURCES) == []

    def test_libraries_have_one_place_each(self) -> None:
        """A library that may be replaced is imported in one place."""
        assert misplaced_libraries(SOURCES) == []

    def test_the_sandbox_is_not_a_client(self) -> None:
        """The sandbox uses only the server of aiohttp."""
        named = [each for module in SOURCES if part(module) == "sandbox" for each in imports(module, SOURCES)]
        source = "".join(source for module, source in SOURCES.items() if part(module) == "sandbox")
        assert "aiohttp" in named
        assert "ClientSession" not in source


class TestSizes:
    @pytest.mark.parametrize("module", SOURCES)
    def test_files_are_short(self, module: str) -> None:
        """A module has at most 500 lines."""
        assert len(SOURCES[module].splitlines()) <= LONGEST_FILE

    def test_functions_are_short(self) -> None:
        """A function fits on a screen."""
        assert long_functions(SOURCES) == []


class TestHabits:
    def test_broad_handlers_are_known(self) -> None:
        """Only the functions listed above catch every exception."""
        assert broad_handlers(SOURCES) == BROAD_HANDLERS.keys()

    def test_public_things_are_documented(self) -> None:
        """Each public module, class, function and method has a docstring."""
        assert undocumented(SOURCES) == []


def run(script: str, *arguments: str) -> list[str]:
    """Return the words that a script prints in an interpreter of its own."""
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True, cwd=ROOT.parent).stdout.split()


@pytest.fixture(scope="module")
def imported() -> list[str]:
    return run("import exponea_async, sys; print(*sys.modules)")


class TestLateImports:
    @pytest.mark.parametrize("name", NOT_IMPORTED)
    def test_what_few_applications_need(self, name: str, imported: list[str]) -> None:
        """``import exponea_async`` does not import what only some applications need."""
        assert "exponea_async.client" in imported
        assert [each for each in imported if each == name or each.startswith(f"{name}.")] == []

    def test_each_exists(self) -> None:
        """The list has no module of the package that does not exist."""
        inner = [each.removeprefix(f"{PACKAGE}.") for each in NOT_IMPORTED if part(each) == PACKAGE]
        assert [each for each in inner if each not in SOURCES] == []

    def test_tracking_imports_nothing(self, tmp_path: Path) -> None:
        """A client that is started imports nothing while it tracks and identifies."""
        assert run(TRACKING, str(tmp_path / "queue.sqlite")) == []


WRONG = {
    "errors": '"""Errors."""\nfrom exponea_async.models import Event\n',
    "models": '"""Values."""\ndef late():\n    """Return."""\n    from exponea_async import errors\n',
    "storage": '"""Storage."""\nimport aiohttp\nfrom exponea_async.models import Event\n',
    "config": '"""Settings."""\nclass Settings:\n    """Settings."""\n    def undocumented(self): ...\n',
    "features.a": '"""A feature."""\nif TYPE_CHECKING:\n    from exponea_async.features.b import _c\n'
    "from exponea_async.features._shared import d\n",
    "features.b": '"""A feature."""\ntry:\n    import tenacity\nexcept ImportError:\n    pass\n'
    "from exponea_async.storage import base, memory\n",
    "features.b._c": '"""A part of a feature."""\nfrom exponea_async.features import b\n',
    "features._shared.d": '"""Shared."""\nfrom exponea_async.features.b import x\n',
    "storage.base": '"""Values."""\n',
    "storage.memory": '"""A storage."""\n',
    "devices": '"""Devices."""\nfrom exponea_async.features import a\n',
    "_pipeline.x": '"""Pipe."""\ndef f():\n    """Try."""\n    try: pass\n    except (ValueError, Exception): pass\n',
    "sandbox.y": '"""Sandbox."""\nimport exponea_async.errors\ndef long():\n    """Run."""\n' + "    pass\n" * 60,
    "features": '"""Features."""',
    "cli": '"""Command line."""\nimport exponea_async.sandbox.y\nimport aiosqlite.core\n',
}


class TestTheTest:
    """A test that cannot fail proves nothing."""

    def test_it_finds_upward_imports(self) -> None:
        """Imports upwards and sidewards are found, wherever in a module they stand."""
        assert set(upward_imports(WRONG)) == {"errors -> models", "sandbox.y -> errors", "devices -> features.a"}

    def test_it_finds_cycles(self) -> None:
        """A circle is found through an import within a function; modules outside of it are not reported."""
        assert {"errors", "models"} <= set(cycle(WRONG))
        assert "config" not in cycle(WRONG)

    def test_it_finds_forbidden_imports(self) -> None:
        """Parts that must not know each other are found, for type-only imports and modules of a folder too."""
        assert set(forbidden_imports(WRONG)) == {
            "features.a -> features.b._c",
            "features._shared.d -> features.b",
            "features.b -> storage.memory",
            "storage -> models",
            "sandbox.y -> errors",
        }

    def test_it_finds_misplaced_libraries(self) -> None:
        """Libraries out of place are found, their submodules too."""
        assert misplaced_libraries(WRONG) == ["storage -> aiohttp", "features.b -> tenacity", "cli -> aiosqlite.core"]

    def test_it_finds_bad_habits(self) -> None:
        """Long functions, broad handlers and undocumented methods are found."""
        assert long_functions(WRONG) == ["sandbox.y.long"]
        assert broad_handlers(WRONG) == {"_pipeline.x.f"}
        assert undocumented(WRONG) == ["config.Settings.undocumented"]
