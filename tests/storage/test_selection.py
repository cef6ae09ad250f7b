"""
The backend that a configuration selects, and the path of the default file.
"""

import pwd
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from helpers.environment import Environment, SetConstants
from helpers.modules import uninstalled
from helpers.storages import records

from exponea_async import Configuration, ConfigurationError, Exponea, PostgresSettings, QueueSettings
from exponea_async.storage import (
    create_storage,
    default_path,
    is_shared,
    queue_name,
    split_queue_name,
    storage_location,
)
from exponea_async.storage.base import Storage
from exponea_async.storage.memory import MemoryStorage
from exponea_async.storage.sqlite.storage import SQLiteStorage

ODD = [
    "a/b",
    "../x",
    "..",
    ".",
    "~",
    "a b",
    "ü",
    "\ud800",
    "a%2Fb",
    "CON:1",
    "a\\b",
    "\x00",
    "a@b",
    "x" * 1_000,
    "💥" * 99,
]


def select(setting: Any, *, app_group: str | None = None, max_records: int = 10) -> Storage:
    configuration = Configuration(
        project_token="token",
        authorization_token="key",
        storage=setting,
        app_group=app_group,
        queue=QueueSettings(max_records=max_records),
    )
    return create_storage(configuration, lambda _: None)


@pytest.fixture
def state(tmp_path: Path, environment: Environment, set_constants: SetConstants) -> Path:
    set_constants(sys, platform="linux")
    environment(XDG_STATE_HOME=tmp_path)
    return tmp_path


class TestSelection:
    @pytest.mark.parametrize("setting", ["memory:", Path("memory:")])
    def test_memory(self, setting: str | Path) -> None:
        """``"memory:"`` selects the storage in memory."""
        assert isinstance(select(setting), MemoryStorage)

    @pytest.mark.parametrize("setting", ["~/q.sqlite", Path("~/q.sqlite")])
    def test_the_home_directory(self, tmp_path: Path, environment: Environment, setting: str | Path) -> None:
        """``~`` is the home directory."""
        environment(HOME=tmp_path)
        storage = select(setting)

        assert isinstance(storage, SQLiteStorage)
        assert storage.path == tmp_path / "q.sqlite"

    @pytest.mark.parametrize("setting", [None, "~/q.sqlite", "~nobody-of-this-name/q.sqlite"])
    def test_no_home_directory(
        self, environment: Environment, set_constants: SetConstants, setting: str | None
    ) -> None:
        """A user without a home directory has to choose a path that does not depend on it."""
        environment(HOME=None, XDG_STATE_HOME=None)
        set_constants(pwd, getpwuid={}.__getitem__)

        with pytest.raises(ConfigurationError, match="EXPONEA_STORAGE") as refused:
            select(setting)
        assert refused.value.field == "storage"
        assert (setting or "~/.local/state") in str(refused.value)

    @pytest.mark.parametrize("as_string", [True, False])
    def test_a_path(self, tmp_path: Path, *, as_string: bool) -> None:
        """A path, as a string or not, selects a file."""
        path = tmp_path / "q.sqlite"
        storage = select(str(path) if as_string else path)

        assert isinstance(storage, SQLiteStorage)
        assert storage.path == path

    def test_the_default(self, state: Path) -> None:
        """None selects the default file of the project and the group."""
        storage, grouped = select(None, app_group=""), select(None, app_group="group")

        assert isinstance(storage, SQLiteStorage)
        assert isinstance(grouped, SQLiteStorage)
        assert storage.path == default_path("token") == state / "exponea_async" / "token.sqlite"
        assert grouped.path == default_path("token", "group") == state / "exponea_async" / "token@group.sqlite"

    async def test_the_settings_are_applied(self, tmp_path: Path) -> None:
        """The maximum size of the queue applies to each backend."""
        for setting in ("memory:", tmp_path / "q.sqlite"):
            storage = select(setting, max_records=10)
            await storage.open()
            await storage.write(records(*"0123456789"))
            with pytest.raises(OSError, match="may hold 10 records"):
                await storage.write(records("a"))
            await storage.aclose()

    async def test_a_database(self) -> None:
        """A URL of a database, and a pool, select the storage in PostgreSQL, which is located without a password."""
        from exponea_async.storage.postgres.storage import PostgresStorage  # noqa: PLC0415 - an extra

        url = "postgresql://u:s3cret@db.example/shop"
        for setting in (url, asyncpg.create_pool(url)):
            storage = select(setting, app_group="group")
            assert isinstance(storage, PostgresStorage)
            assert storage.location.endswith("(schema exponea_async, queue token@group)")
            assert "s3cret" not in f"{storage.location} {storage!r}"

    async def test_without_asyncpg(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where asyncpg is not installed, the error says what to install."""
        for name in [each for each in sys.modules if each.startswith("exponea_async.storage.postgres")]:
            monkeypatch.delitem(sys.modules, name)
        configuration = Configuration(
            project_token="token", authorization_token="key", storage="postgresql://u:s3cret@h/db"
        )
        with uninstalled("asyncpg"):
            with pytest.raises(ConfigurationError, match=r"exponea-async\[postgres\]") as refused:
                create_storage(configuration, lambda _: None)
            with pytest.raises(ConfigurationError, match=r"exponea-async\[postgres\]"):
                await Exponea.clear_local_customer_data(configuration)

        assert refused.value.field == "storage"
        assert "s3cret" not in str(refused.value)


class TestGroups:
    @pytest.mark.parametrize("setting", ["q.sqlite", Path("q.sqlite")])
    def test_groups_do_not_share_a_file(self, setting: str | Path) -> None:
        """A group and the path of a file are refused together, since all groups would share the file."""
        with pytest.raises(ConfigurationError, match=r"Give each group a 'storage' path of its own") as refused:
            select(setting, app_group="group")
        assert refused.value.field == "app_group"

    @pytest.mark.parametrize("setting", [None, "memory:"])
    def test_groups_have_storages_of_their_own(self, state: Path, setting: str | None) -> None:
        """Default files and queues in memory are separate for each group."""
        assert select(setting, app_group="group") is not None

    def test_an_empty_group_is_no_group(self) -> None:
        """``""`` is the same as None, so it can stand beside a path."""
        assert isinstance(select("q.sqlite", app_group=""), SQLiteStorage)

    def test_the_variable_is_named(self) -> None:
        """The error for settings from the environment names the variable."""
        variables = {
            "EXPONEA_PROJECT_TOKEN": "token",
            "EXPONEA_AUTHORIZATION_TOKEN": "key",
            "EXPONEA_STORAGE": "q.sqlite",
            "EXPONEA_APP_GROUP": "group",
        }
        with pytest.raises(ConfigurationError, match="EXPONEA_APP_GROUP"):
            Configuration.from_env(variables)

    def test_queues_in_a_database(self) -> None:
        """In a database each project and each group has a queue of its own, whose name says which it is."""
        named = {
            (None, "a"): "a",
            ("", "a"): "a",
            ("group", "a"): "a@group",
            ("b@c", "a"): "a@b@c",
            (" @", "a"): "a@ @",
        }
        for (group, token), name in named.items():
            configuration = Configuration(
                project_token=token, authorization_token="key", storage="postgresql://h/db", app_group=group
            )
            assert queue_name(configuration) == name
            assert split_queue_name(name) == (token, group or None)


def located(storage: Any, *, app_group: str | None = None, schema: str = "exponea_async") -> Path | str:
    return storage_location(
        Configuration(
            project_token="token",
            authorization_token="key",
            storage=storage,
            app_group=app_group,
            postgres=PostgresSettings(schema=schema),
        )
    )


class TestLocation:
    def test_a_file_and_memory(self, tmp_path: Path) -> None:
        """A file is its absolute path, a queue in memory has a name of its own."""
        assert located(tmp_path / "." / "q.sqlite") == tmp_path.resolve() / "q.sqlite"
        assert located("memory:") == located(Path("memory:")) == "memory:"

    @pytest.mark.parametrize(
        ("url", "database"),
        [
            ("postgresql://u:s3cret@Db.Example:5433/shop?sslmode=require", "db.example:5433/shop"),
            ("postgres://u:s3cret@db.example/shop", "db.example:5432/shop"),
            ("postgresql://u:s3cret@db.example", "db.example:5432/u"),
            ("postgresql://u:s3cret@one:1,two/shop", "one:1,two:5432/shop"),
            ("postgresql://u:s3cret@one,two/shop?port=1,2", "one:1,two:2/shop"),
            ("postgresql://u:s3cret@[::1]/shop", "[::1]:5432/shop"),
            ("postgresql:///shop?host=/Run&password=s3cret", "/Run:5432/shop"),
            ("postgresql://%2FRun/?dbname=shop&password=s3cret", "/Run:5432/shop"),
            ("postgresql:///?database=shop", "localhost:5432/shop"),
        ],
    )
    def test_a_database(self, environment: Environment, url: str, database: str) -> None:
        """A database is its host, port and name, without user and password, and with schema and queue."""
        environment(PGHOST=None, PGPORT=None, PGDATABASE=None, PGUSER=None)

        assert located(url) == f"postgresql://{database} (schema exponea_async, queue token)"

    def test_the_environment(self, environment: Environment) -> None:
        """What the URL leaves out comes from the variables of PostgreSQL, at last from the name of the user."""
        environment(PGHOST="db.example", PGPORT="5433", PGDATABASE=None, PGUSER="postgres")
        assert located("postgresql://") == "postgresql://db.example:5433/postgres (schema exponea_async, queue token)"

        environment(PGDATABASE="shop", PGUSER=None)
        assert located("postgresql://u@h") == "postgresql://h:5433/shop (schema exponea_async, queue token)"

        environment(PGDATABASE=None, LOGNAME="someone")
        assert located("postgresql://h:1") == "postgresql://h:1/someone (schema exponea_async, queue token)"

    async def test_pools(self) -> None:
        """A pool is the same as itself only, since it does not tell which database it leads to."""
        one, other = asyncpg.create_pool("postgresql://u:s3cret@h"), asyncpg.create_pool("postgresql://u:s3cret@h")

        assert located(one) == located(one) != located(other)
        assert "s3cret" not in str(located(one))

    def test_schemas_and_groups_are_apart(self) -> None:
        """Another schema, group or database is another location; another role or password is not."""
        url = "postgresql://u:s3cret@h/db"
        others = [located(url, schema="other"), located(url, app_group="group"), located("postgresql://h/other")]

        assert located("postgresql://other:pw@H:5432/db") == located(url)
        assert len({located(url), *others}) == 4

    async def test_clients_on_the_same_database(self) -> None:
        """Clients share their data if their queue is the same."""
        one, same, other = (
            Configuration(project_token=token, authorization_token="key", storage=url)
            for token, url in (("a", "postgresql://h/d"), ("a", "postgres://u:p@h:5432/d"), ("b", "postgresql://h/d"))
        )

        assert await is_shared(one, [other, same])
        assert not await is_shared(one, [other])


class TestDefaultPath:
    @pytest.mark.parametrize("name", ODD)
    def test_any_string_gives_a_safe_name(self, state: Path, name: str) -> None:
        """Whatever the token or the group, the file is in the directory and has a short ASCII name."""
        for path in (default_path(name), default_path("token", name), default_path(name, name)):
            assert path.parent == state / "exponea_async"
            assert path.name.isascii()
            assert len(path.name) < 200
            assert not set(path.name) & set('/\\:*?"<>| \x00')
            assert path.suffix == ".sqlite"

    def test_no_two_share_a_file(self, state: Path) -> None:
        """Different tokens and groups have different files, however alike they look."""
        names = [*ODD, "token", "token@group", "group", "x" * 999, "a%2fb"]
        pairs = [(token, group) for token in names for group in (None, *names)]

        assert len({default_path(*pair) for pair in pairs}) == len(pairs)

    def test_no_group(self, state: Path) -> None:
        """An empty group is the same as no group."""
        assert default_path("token", "") == default_path("token", None) == default_path("token")

    @pytest.mark.parametrize("value", ["", "relative/folder", "~/folder"])
    def test_without_a_state_directory(
        self, environment: Environment, set_constants: SetConstants, tmp_path: Path, value: str
    ) -> None:
        """Where XDG_STATE_HOME is empty or relative, the default is a directory in the user's home."""
        set_constants(sys, platform="linux")
        environment(XDG_STATE_HOME=value, HOME=tmp_path)

        assert default_path("t") == tmp_path / ".local" / "state" / "exponea_async" / "t.sqlite"

    def test_macos(self, environment: Environment, set_constants: SetConstants, tmp_path: Path) -> None:
        """On macOS the file is in the application support directory, whatever XDG_STATE_HOME says."""
        set_constants(sys, platform="darwin")
        environment(XDG_STATE_HOME="/elsewhere", HOME=tmp_path)

        assert default_path("t") == tmp_path / "Library/Application Support" / "exponea_async" / "t.sqlite"

    def test_windows(self, environment: Environment, set_constants: SetConstants, tmp_path: Path) -> None:
        """On Windows the file is in the directory for local application data."""
        set_constants(sys, platform="win32")
        environment(LOCALAPPDATA=tmp_path)

        assert default_path("t") == tmp_path / "exponea_async" / "t.sqlite"
