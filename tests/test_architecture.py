"""
The floors of the house: who may know whom, and how large a thing may grow.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = "exponea_async"
ROOT = Path(__file__).parent.parent / PACKAGE

#: The floor of each part; the longest name that fits counts. An import runs downwards.
FLOORS = {
    "integrations": 6,
    "testing": 6,
    "cli": 6,
    "__main__": 6,
    "client": 5,
    "flushes": 5,
    "devices": 4,
    "subjects": 4,
    "sweeper": 4,
    "_pipeline": 4,
    "features": 3,
    "hooks": 3,
    "observability": 3,
    "storage": 2,
    "config": 2,
    "models": 2,
    "errors": 1,
    "_version": 1,
    "sandbox": 1,
    # It hands names out, and is not part of the house.
    "": 9,
}

#: Imports within a floor, beside those within one part. Each has its reason.
BESIDE = {
    ("config", "models"): "settings name event types and flush modes",
    ("config", "settings"): "those of queue and upload are a file of their own",
    ("settings", "_checks"): "and are checked by the same rules",
    ("config", "_checks"): "the rules of settings are a file of their own",
    ("config", "_environment"): "and so is how they are read from variables",
    ("_environment", "_checks"): "variables are read by the same rules",
    ("hooks", "_checks"): "hooks are checked as settings are",
    ("client", "flushes"): "the flush modes are a part of the client, and a file of their own",
    ("subjects", "devices"): "what a device remembers is a file of its own",
    ("subjects", "scopes"): "and so is how the rooms see a subject",
    ("scopes", "devices"): "a device's scope changes what it remembers",
    ("sweeper", "devices"): "and so is the task that ends the sessions of all devices",
    ("__main__", "cli"): "python -m is the command line",
}
FLOORS |= {"_checks": 2, "_environment": 2, "_places": 3, "_json": 1, "messages": 2, "settings": 2, "scopes": 4}

#: Who meets the pipeline only through the hall.
APART = ("features", "devices", "scopes", "subjects", "sweeper")

#: Who may import what comes from outside.
RESERVED = {
    "aiohttp": ("_pipeline.transport", "sandbox", "testing", "integrations"),
    "tenacity": ("_pipeline.retrying",),
    "aiosqlite": ("storage.sqlite",),
    "redis": ("storage.redis",),
    "sqlite3": ("storage.sqlite", "storage._"),
    "nh3": ("features._html",),
    "selectolax": ("features._html",),
    "tinycss2": ("features._css",),
    "regex": ("features._patterns",),
}

#: The doors at which anything may come in, and must not get through.
DOORS = {
    "hooks.Hooks.tell": "a listener of the user's",
    "sweeper.Sweeper._end": "a hook of the user's, for which other sessions are not to stay open",
    "_pipeline.uploader.Uploader._claim_for_ever": "the upload's loop",
    "_pipeline.uploader.Uploader._send_for_ever": "the upload's loop",
    "_pipeline.calls.Calls._customer_token": "a function of the user's, which may raise anything",
    "features._carousel_order._asked": "a function of the user's; the carousel is shown without it",
    "features._resource_cache._loaded": "a function of the user's; the message is not shown without what it loads",
    "cli.app.main": "a script wants one line and a code",
    "storage._group._look": "a look's trouble is not that of the writes beside it",
    "storage._group.Job.run_apart": "a look's trouble is its caller's, who gets it",
    "storage._commits.Commits._serve": "the commits' loop: every caller hears of it",
    "storage.sqlite.SQLiteStorage._hop": "translates SQLite's errors, and raises all others again",
}

LONGEST_FILE = 400
LONGEST_FUNCTION = 60

Sources = Mapping[str, str]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def package() -> Sources:
    """Read all modules, by their name without that of the package."""
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(ROOT.rglob("*.py"))}
    return {name.removesuffix("__init__").rstrip("."): path.read_text() for path, name in names.items()}


SOURCES = package()


def imports(module: str, sources: Sources) -> Iterator[str]:
    """Tell what a module imports, late and for types only too, as full names of modules."""
    for node in ast.walk(ast.parse(sources[module])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full.removeprefix(f"{PACKAGE}.") in sources else node.module or ""


def graph(sources: Sources) -> dict[str, set[str]]:
    """Tell for each module which others of the package it imports."""
    inner = {
        name: {each.removeprefix(PACKAGE).lstrip(".") for each in imports(name, sources) if each.startswith(PACKAGE)}
        for name in sources
    }
    return {name: others - {name} for name, others in inner.items()}


def part(module: str) -> str:
    """Tell to which part of the house a module belongs."""
    return module.partition(".")[0]


def climbing(sources: Sources) -> list[str]:
    """Find the imports that don't run downwards."""
    return [
        f"{module} -> {other}"
        for module, others in graph(sources).items()
        for other in others
        if part(module) != part(other)
        and FLOORS[part(module)] <= FLOORS[part(other)]
        and (part(module), part(other)) not in BESIDE
    ]


def circle(sources: Sources) -> list[str]:
    """Find modules that import each other in a circle."""
    others = {name: set(each) for name, each in graph(sources).items()}
    while free := {name for name, each in others.items() if not each & others.keys()}:
        others = {name: each for name, each in others.items() if name not in free}
    return sorted(others)


def meetings(sources: Sources) -> list[str]:
    """Find imports between parts that don't know each other."""
    return [
        f"{module} -> {other}"
        for module, others in graph(sources).items()
        for other in others
        if are_strangers(module, other)
    ]


def are_strangers(module: str, other: str) -> bool:
    one, two = part(module), part(other)
    if is_room(module) and is_room(other):
        return True
    if one == "storage":
        return two not in ("storage", "errors")
    if "sandbox" in (one, two):
        return one not in (two, "cli", "testing")
    if one == "features" and two == "storage":
        return other != "storage.base"
    return (one, two) == ("_pipeline", "features") or (two == "_pipeline" and one in APART)


def is_room(module: str) -> bool:
    return module.startswith("features.") and not module.startswith("features._")


def strangers(sources: Sources) -> list[str]:
    """Find imports of libraries that only some may import."""
    return [
        f"{module} -> {each}"
        for module in sources
        for each in imports(module, sources)
        if part(each) in RESERVED
        and not any(
            module == allowed
            or module.startswith(f"{allowed}.")
            or (allowed.endswith("_") and module.startswith(allowed))
            for allowed in RESERVED[part(each)]
        )
    ]


def functions(sources: Sources) -> Iterator[tuple[str, Function]]:
    """Walk through all functions, named by module and class."""
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


def broad_doors(sources: Sources) -> set[str]:
    """Find the functions that catch anything without raising it again."""
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
    """Find public things without a docstring."""
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


class TestFloors:
    def test_every_part_has_a_floor(self) -> None:
        """There is no module that the plan does not know."""
        assert {part(module) for module in SOURCES} <= FLOORS.keys()

    def test_imports_run_downwards(self) -> None:
        """No module imports one of a higher floor, nor of its own but for the exceptions."""
        assert climbing(SOURCES) == []

    def test_every_exception_is_needed(self) -> None:
        """No exception stays when its reason has gone."""
        used = {(part(module), part(other)) for module, others in graph(SOURCES).items() for other in others}
        assert BESIDE.keys() - used == set()

    def test_no_circle(self) -> None:
        """No chain of imports leads back to where it began."""
        assert circle(SOURCES) == []

    def test_who_does_not_know_whom(self) -> None:
        """Rooms, pipeline, devices, storage and sandbox meet only through the hall, or by the values at their doors."""
        assert meetings(SOURCES) == []

    def test_libraries_have_one_place_each(self) -> None:
        """A library that may be exchanged one day is known in one place."""
        assert strangers(SOURCES) == []

    def test_the_sandbox_is_no_client(self) -> None:
        """The sandbox takes only the server of aiohttp."""
        named = [each for module in SOURCES if part(module) == "sandbox" for each in imports(module, SOURCES)]
        source = "".join(source for module, source in SOURCES.items() if part(module) == "sandbox")
        assert "aiohttp" in named
        assert "ClientSession" not in source


class TestSizes:
    @pytest.mark.parametrize("module", SOURCES)
    def test_files_are_short(self, module: str) -> None:
        """A module has one reason to change, and room on a few screens."""
        assert len(SOURCES[module].splitlines()) <= LONGEST_FILE

    def test_functions_are_short(self) -> None:
        """A function fits on a screen."""
        assert long_functions(SOURCES) == []


class TestHabits:
    def test_anything_is_caught_at_known_doors_only(self) -> None:
        """Bugs come to light, but for the doors where one must not take the rest down."""
        assert broad_doors(SOURCES) == DOORS.keys()

    def test_what_is_public_is_told(self) -> None:
        """Each public module, class, function and method has a docstring."""
        assert undocumented(SOURCES) == []


WRONG = {
    "errors": '"""Errors."""\nfrom exponea_async.models import Event\n',
    "models": '"""Values."""\ndef late():\n    """Tell."""\n    from exponea_async import errors\n',
    "storage": '"""Storage."""\nimport aiohttp\nfrom exponea_async.config import Configuration\n',
    "config": '"""Settings."""\nclass Settings:\n    """Settings."""\n    def undocumented(self): ...\n',
    "features.a": '"""A room."""\nif TYPE_CHECKING:\n    from exponea_async.features import b\n',
    "features.b": '"""A room."""\ntry:\n    import tenacity\nexcept ImportError:\n    pass\n'
    "from exponea_async.storage import base, memory\n",
    "storage.base": '"""The door."""\n',
    "storage.memory": '"""A storage."""\n',
    "devices": '"""Devices."""\nfrom exponea_async._pipeline import x\n',
    "_pipeline.x": '"""Pipe."""\ndef f():\n    """Try."""\n    try: pass\n    except (ValueError, Exception): pass\n',
    "sandbox.y": '"""Sandbox."""\nimport exponea_async.errors\ndef long():\n    """Go on."""\n' + "    pass\n" * 60,
    "features": '"""Rooms."""',
    "cli": '"""Command line."""\nimport exponea_async.sandbox.y\nimport redis.asyncio\n',
}


class TestTheTest:
    """A test that cannot fail proves nothing."""

    def test_it_finds_climbing_imports(self) -> None:
        """Upward and sideward imports are found, wherever in a module they stand."""
        assert set(climbing(WRONG)) == {
            "errors -> models",
            "storage -> config",
            "sandbox.y -> errors",
            "devices -> _pipeline.x",
        }

    def test_it_finds_circles(self) -> None:
        """A circle is found through an import within a function; those outside of it are not blamed."""
        assert {"errors", "models"} <= set(circle(WRONG))
        assert not {"features.a", "features.b"} & set(circle(WRONG))

    def test_it_finds_meetings(self) -> None:
        """Parts that don't know each other are found, for types only too."""
        assert set(meetings(WRONG)) == {
            "features.a -> features.b",
            "features.b -> storage.memory",
            "devices -> _pipeline.x",
            "storage -> config",
            "sandbox.y -> errors",
        }

    def test_it_finds_strangers(self) -> None:
        """Libraries out of place are found, their submodules too."""
        assert strangers(WRONG) == ["storage -> aiohttp", "features.b -> tenacity", "cli -> redis.asyncio"]

    def test_it_finds_bad_habits(self) -> None:
        """Long functions, wide nets and silent methods are found."""
        assert long_functions(WRONG) == ["sandbox.y.long"]
        assert broad_doors(WRONG) == {"_pipeline.x.f"}
        assert undocumented(WRONG) == ["config.Settings.undocumented"]
