"""
The documentation is true: its examples run and print what it says, its links lead somewhere, and its names exist.
"""

import ast
import asyncio
import doctest
import importlib
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from inspect import CO_COROUTINE
from itertools import pairwise
from pathlib import Path
from types import FunctionType
from typing import Any

import attrs
import pytest
from helpers.documents import (
    ROOT,
    Block,
    Page,
    commands_in_strings,
    defined_names,
    docstring_blocks,
    docstrings,
    pages,
    shell_commands,
)
from helpers.environment import SetConstants
from helpers.modules import public_integrations
from test_architecture import LAYERS

import exponea_async
from exponea_async import (
    Configuration,
    Exponea,
    PostgresSettings,
    QueueSettings,
    RequestLimits,
    UploadSettings,
    sandbox,
    testing,
)
from exponea_async.cli.app import create_parser
from exponea_async.features.segments import watcher
from exponea_async.sandbox import Definitions, Sandbox

PAGES = {str(page): page for page in pages()}
MANUAL = [page for page in PAGES.values() if page.path.parent != ROOT]
BLOCKS = [block for page in PAGES.values() for block in page.blocks()]
PYTHON = [block for block in BLOCKS if block.kind == "python" and not block.reason and not block.source]
EXCERPTS = [block for block in BLOCKS if block.source]
PROGRAMS = [block for block in PYTHON if "asyncio.run(" in block.code]
EXAMPLES = [block for block in PYTHON if block not in PROGRAMS]
DOCSTRING_EXAMPLES = [block for block in docstring_blocks() if block.kind == "python"]
COMMANDS = [line for block in BLOCKS if block.kind == "sh" for line in shell_commands(block.code)]

#: What the examples assume to be imported.
IMPORTED = ("Configuration", "Customer", "Event", "Exponea")
#: The kinds of blocks that there are, each checked below. Text is output, a picture, or a tree of files; HTML is for
#: the page of an application.
KINDS = {"python", "sh", "toml", "text", "html", "{toctree}", "{eval-rst}"}
#: A comment that says what a line prints.
PROMISED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)
#: The definitions of the messages that the examples show.
(DEFINITIONS,) = [block for block in PAGES["docs/sandbox.md"].blocks() if block.kind == "toml"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


async def run(code: str, names: dict[str, Any]) -> None:
    """Run code as if it stood inside the block of an ``async with``."""
    compiled = compile(code, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = FunctionType(compiled, names)()
    if compiled.co_flags & CO_COROUTINE:
        await result


async def run_in_client(code: str, storage: Path, names: dict[str, Any]) -> list[str]:
    """Run code inside a client's block, and return the lines that it prints."""
    printed: list[str] = []
    async with Sandbox(definitions=tomllib.loads(DEFINITIONS.code)) as platform:
        configuration = Configuration(
            project_token="my-project",
            authorization_token="my-public-api-key",
            base_url=platform.url,
            storage=storage,
        )
        async with Exponea(configuration) as exponea, asyncio.timeout(60):
            own = {"exponea": exponea, "configuration": configuration}
            await run(code, {**names, **own, "print": lambda *args: printed.append(" ".join(map(str, args)))})
    return printed


def promised(code: str) -> list[str]:
    return PROMISED.findall(code)


class TestExamples:
    def test_every_block_is_of_a_known_kind(self) -> None:
        """Each block is of a kind that is checked; one that is not run gives its reason in a comment."""
        assert [str(block) for block in BLOCKS if block.kind not in KINDS] == []
        assert [str(block) for block in BLOCKS if block.reason and block.kind != "python"] == []

    def test_there_are_examples(self) -> None:
        """The examples are found at all."""
        assert len(PROGRAMS) >= 1
        assert len(EXAMPLES) > 25
        assert len(DOCSTRING_EXAMPLES) >= 4

    @pytest.mark.parametrize("block", PROGRAMS, ids=str)
    def test_whole_programs_run_by_themselves(self, block: Block, tmp_path: Path) -> None:
        """A whole program runs in a file of its own, and shows what arrived."""
        (tmp_path / "program.py").write_text(block.code, encoding="utf-8")

        done = subprocess.run(
            [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )

        assert done.stderr == ""
        assert re.search(r"<Receipt \S+: delivered>", done.stdout)
        names = [line.split()[0] for line in done.stdout.splitlines()[1:]]
        assert sorted(names) == ["installation", "purchase", "session_start"]
        assert "purchase {'cookie': '" in done.stdout
        assert "'registered': 'jane@example.com'" in done.stdout

    @pytest.mark.parametrize("block", EXAMPLES, ids=str)
    async def test_each_example_runs(self, block: Block, tmp_path: Path, set_constants: SetConstants) -> None:
        """Each example runs inside a client's block, and prints what stands beside it."""
        set_constants(watcher, DEBOUNCE=0.05)
        names: dict[str, Any] = {name: getattr(exponea_async, name) for name in IMPORTED}

        printed = await run_in_client(block.code, tmp_path / "events.sqlite", names)

        assert [line for line in printed if line in promised(block.code)] == promised(block.code)

    @pytest.mark.parametrize("block", EXCERPTS, ids=str)
    def test_each_excerpt_is_in_its_example(self, block: Block) -> None:
        """An excerpt stands in the example that it names, at any depth; the example is run by a test of its own."""
        source = (ROOT / block.source).read_text(encoding="utf-8")

        assert any(textwrap.indent(block.code, " " * depth) in source for depth in (0, 4, 8))

    @pytest.mark.parametrize("block", DOCSTRING_EXAMPLES, ids=str)
    async def test_each_example_in_a_docstring_runs(self, block: Block, tmp_path: Path) -> None:
        """Each example in a docstring runs with the names of its module."""
        path = block.place.partition(":")[0]
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))

        names = {"asyncio": asyncio, "attrs": attrs, **vars(sandbox), **vars(exponea_async), **vars(module)}
        printed = await run_in_client(block.code, tmp_path / "events.sqlite", names)

        assert [line for line in printed if line in promised(block.code)] == promised(block.code)

    def test_interactive_examples_in_docstrings_run(self) -> None:
        """Each ``>>>`` in a docstring gives what follows it."""
        parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
        for place, text in (each for each in docstrings() if ">>>" in each[1]):
            runner.run(parser.get_doctest(text, vars(exponea_async).copy(), place, place, 0))

        assert runner.summarize(verbose=False).failed == 0

    @pytest.mark.parametrize("command", [*COMMANDS, *commands_in_strings()])
    def test_each_command_exists(self, command: str) -> None:
        """Each command of a shell block has the options and arguments that the programs have."""
        words = shlex.split(command, comments=True)
        check = CHECKS.get(words[0])

        assert check is not None, f"unknown program {words[0]}"
        check(words[1:])

    @pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "toml"], ids=str)
    def test_definitions_are_valid(self, block: Block) -> None:
        """The sandbox accepts each definition of messages."""
        Definitions().load(tomllib.loads(block.code))


def check_cli(words: list[str]) -> None:
    create_parser().parse_args(words)


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert words[0] in targets


def check_pip(words: list[str]) -> None:
    extras = [extra for word in words for found in re.findall(r"\[(.*)\]", word) for extra in found.split(",")]
    groups = [after for word, after in pairwise(words) if word == "--group"]
    assert words[0] == "install"
    assert set(extras) <= PROJECT["project"]["optional-dependencies"].keys()
    assert set(groups) <= PROJECT["dependency-groups"].keys()


def check_python(words: list[str]) -> None:
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1])
    else:
        assert (ROOT / words[0]).is_file()


def check_pytest(words: list[str]) -> None:
    assert all((ROOT / word).exists() for word in words if word.startswith(("tests/", "examples/")))


def check_uvicorn(words: list[str]) -> None:
    (application,) = [word for word in words if ":" in word]
    module, _, name = application.partition(":")
    source = (ROOT / words[words.index("--app-dir") + 1] / f"{module}.py").read_text(encoding="utf-8")
    assert f"def {name}(" in source


def check_curl(words: list[str]) -> None:
    assert words[-1].startswith("http://127.0.0.1:")


def check_export(words: list[str]) -> None:
    Configuration.from_env(dict(word.split("=", 1) for word in words))


#: The programs of shell blocks, each with the check of its arguments.
CHECKS = {
    "exponea-async": check_cli,
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
    "pytest": check_pytest,
    "export": check_export,
    "uvicorn": check_uvicorn,
    "curl": check_curl,
}


class TestLinks:
    @pytest.mark.parametrize("page", PAGES.values(), ids=str)
    def test_links_lead_somewhere(self, page: Page) -> None:
        """Each relative link leads to a file, and its anchor to a heading of that page."""
        assert [link for link in page.links() if "://" not in link and not is_target(page, link)] == []

    def test_every_page_is_in_the_contents(self) -> None:
        """The manual's contents name each page, and no other one."""
        contents = [block for block in PAGES["docs/index.md"].blocks() if block.kind == "{toctree}"]
        named = [line for block in contents for line in block.code.splitlines() if line and not line.startswith(":")]

        assert sorted(["index", *named]) == sorted(page.path.stem for page in MANUAL)

    @pytest.mark.parametrize("page", PAGES.values(), ids=str)
    def test_files_exist(self, page: Page) -> None:
        """Each file or folder of this repository that a page names in backticks exists."""
        named = [
            code
            for code in page.inline_code()
            if re.fullmatch(r"(exponea_async|docs|tests|examples|benchmarks)/[\w./]*", code)
        ]

        assert [name for name in named if not (ROOT / name).exists()] == []


def is_target(page: Page, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.path.parent / path).resolve() if path else page.path
    if not target.exists():
        return False
    return not anchor or anchor in PAGES[str(target.relative_to(ROOT))].anchors()


#: Calls in backticks that are not of this package.
FOREIGN = {
    "HTTPBearer",
    "copy_context",
    "evolve",
    "getLogger",
    "install",
    "login",
    "logout",
    "override_settings",
    "print",
    "timeout",
}


#: The methods of the vendor's Flutter SDK, without those of the same name for events without consent.
FLUTTER = """
    configure isConfigured getCustomerCookie checkPushSetup getFlushMode setFlushMode getFlushPeriod setFlushPeriod
    getLogLevel setLogLevel getDefaultProperties setDefaultProperties anonymize identifyCustomer flushData trackEvent
    trackSessionStart trackSessionEnd fetchConsents fetchRecommendations openedPushStream receivedPushStream
    inAppMessageActionStream requestPushAuthorization requestIosPushAuthorization setAppInboxProvider
    trackAppInboxOpened trackAppInboxClick markAppInboxAsRead fetchAppInbox fetchAppInboxItem
    trackInAppContentBlockClick trackInAppMessageClick trackInAppMessageClose trackPaymentEvent trackPushToken
    trackHmsPushToken handlePushToken handleHmsPushToken trackClickedPush trackDeliveredPush isBloomreachNotification
    handleCampaignClick handlePushNotificationOpened getSegments segmentationDataStream stopIntegration
    clearLocalCustomerData verifyPushStatusAndTrackPushToken ExponeaPlugin ExponeaConfiguration ExponeaProject
    ExponeaConfigurationChange Customer Event InAppContentBlockPlaceholder InAppContentBlockCarousel AppInboxProvider
    AppInboxListView AppInboxDetailView
"""
#: The methods of exponea-python-sdk.
PYTHON_SDK = """
    configure add_event update_customer_properties batch_commands get_system_time get_customer_attributes
    get_customer_consents get_customer get_customers get_events anonymize_customer catalog analyses
"""

DEFINED = defined_names()
PARTS = sorted(path.stem for path in (ROOT / "exponea_async").iterdir() if path.suffix in {"", ".py"})


class TestNames:
    @pytest.mark.parametrize("page", [page for page in PAGES.values() if page.path.name != "CHANGELOG.md"], ids=str)
    def test_calls_exist(self, page: Page) -> None:
        """Each function that a page names in backticks exists; the vendor's are in the first column of a table."""
        own = (
            re.sub(r"^\| (?!Flutter).*? \|", "|", page.prose(), flags=re.MULTILINE) if "migration" in str(page) else ""
        )
        called = re.findall(r"\b(\w+)\(", " ".join(re.findall(r"`([^`\n]+)`", own or page.prose())))

        assert {name for name in called if name not in DEFINED | FOREIGN} == set()

    @pytest.mark.parametrize(("heading", "names"), [("SDKs for phones", FLUTTER), ("exponea-python-sdk", PYTHON_SDK)])
    def test_the_migration_names_all_calls(self, heading: str, names: str) -> None:
        """The first column of the migration's tables has each call of the vendor's SDK."""
        section = PAGES["docs/migration.md"].text.partition(f"## From {'the ' if ' ' in heading else ''}{heading}\n")[2]
        rows = re.findall(r"^\| (.*?) \|", section.partition("\n## ")[0], re.MULTILINE)

        named = set(re.findall(r"\w+", " ".join(rows)))
        assert {name for name in names.split() if name not in named} == set()

    @pytest.mark.parametrize("page", MANUAL, ids=str)
    def test_modules_and_their_members_exist(self, page: Page) -> None:
        """Each dotted name that begins with a part of the package exists, in pictures as well."""
        pattern = re.compile(rf"(?<![\w./`\"])(?:{'|'.join(PARTS)})(?:\.\w+)+(?![\w/(])")
        pictures = "\n".join(block.code for block in page.blocks() if block.kind == "text")
        named = {*pattern.findall(pictures), *(code for code in page.inline_code() if pattern.fullmatch(code))}

        assert [name for name in sorted(named) if not name.endswith(".py") and not exists(name)] == []

    def test_the_table_of_layers_is_that_of_the_architecture(self) -> None:
        """The architecture page lists the parts of the package with the layers that the test of imports enforces."""
        rows = re.findall(r"^\| (\d) \| (.+?) \|", PAGES["docs/architecture.md"].text, re.MULTILINE)
        listed = {part: int(layer) for layer, parts in rows for part in re.findall(r"\w+", parts)}

        unlisted = {"", "__main__", "_version", "sandbox"}
        assert listed == {part: layer for part, layer in LAYERS.items() if part in PARTS and part not in unlisted}

    def test_the_tasks_have_these_names(self) -> None:
        """The architecture page lists tasks under the names that they have at run time."""
        section = PAGES["docs/architecture.md"].text.partition("## Tasks and threads\n")[2].partition("\n## ")[0]
        named = {name.partition(" 1")[0] for name in re.findall(r"^\| `(.+?)`", section, re.MULTILINE)}
        source = "".join(path.read_text("utf-8") for path in (ROOT / "exponea_async").rglob("*.py"))

        assert len(named) > 5
        assert {name for name in named if f'"exponea_async: {name}' not in source} == set()

    def test_the_picture_names_the_way_of_an_event(self) -> None:
        """The architecture page names more than a few functions, so that its check proves something."""
        (picture,) = [block for block in PAGES["docs/architecture.md"].blocks() if block.kind == "text"]

        assert len(re.findall(r"\w+(?:\.\w+){2,}", picture.code)) > 20

    def test_the_api_page_has_every_public_name(self) -> None:
        """The API page documents each public name, and nothing else."""
        documented = set(re.findall(r"^\.\. auto\w+:: exponea_async\.(\S+)$", PAGES["docs/api.md"].text, re.MULTILINE))
        public = {name for name in exponea_async.__all__ if not name.startswith("_")}

        modules = {f"sandbox.{name}" for name in sandbox.__all__} | {f"testing.{name}" for name in testing.__all__}
        integrations = {name for name in documented if name.startswith("integrations.")}
        assert documented - {"errors"} - integrations == public | modules | {"portal.Portal"}

    def test_the_api_page_has_every_name_of_the_integrations(self) -> None:
        """The API page documents each name that a module of the integrations exports, in one place."""
        names = re.findall(
            r"^\.\. auto\w+:: (exponea_async\.integrations)\.(\w+)\.(\w+)$", PAGES["docs/api.md"].text, re.MULTILINE
        )
        documented = [getattr(importlib.import_module(f"{package}.{module}"), name) for package, module, name in names]
        modules = [importlib.import_module(f"exponea_async.integrations.{name}") for name in public_integrations()]
        exported = {id(getattr(module, name)) for module in modules for name in module.__all__}

        assert sorted(map(id, documented)) == sorted(exported)


def exists(name: str) -> bool:
    """Return whether a dotted name below the package leads to a module or to a member of one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(["exponea_async", *parts[:count]]))
        except ModuleNotFoundError:
            continue
        return has_members(found, parts[count:])
    return False


def has_members(found: Any, names: list[str]) -> bool:
    for name in names:
        if attrs.has(found) and name in attrs.fields_dict(found):
            return True
        if not hasattr(found, name):
            return False
        found = getattr(found, name)
    return True


class TestSettings:
    @pytest.mark.parametrize("kind", [Configuration, QueueSettings, PostgresSettings, UploadSettings, RequestLimits])
    def test_every_field_is_listed_with_its_default(self, kind: type) -> None:
        """The settings page lists the fields of each class, in their order, with their defaults."""
        section = PAGES["docs/settings.md"].text.partition(f"\n## {kind.__name__}\n")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE)

        assert rows == list(fields_with_defaults(kind))


def fields_with_defaults(kind: type) -> Iterator[tuple[str, str]]:
    required = {"project_token": "token", "authorization_token": "key"} if kind is Configuration else {}
    defaults = kind(**required)
    for field in attrs.fields(kind):
        if field.init:
            value = getattr(defaults, field.name)
            yield field.name, "required" if field.name in required else f"`{spelled(value)}`"


def spelled(value: Any) -> str:
    if isinstance(value, QueueSettings | PostgresSettings | UploadSettings | RequestLimits):
        return f"{type(value).__name__}()"
    if isinstance(value, int | float) and value >= 10_000:
        return f"{value:_}"
    if hasattr(value, "name"):
        return f'"{value.name}"'
    if isinstance(value, str):
        return f'"{value}"'
    return "{}" if value == {} else repr(value)
