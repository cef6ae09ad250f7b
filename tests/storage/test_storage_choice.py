"""
Which storage a setting means, and where the default file lies.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
from stores import records

from exponea_async.errors import ConfigurationError
from exponea_async.storage import default_path, open_storage
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


def choose(setting: Any, **more: Any) -> Storage:
    return open_storage(
        setting,
        project_token="token",
        durability="process",
        max_records=10,
        when_full="raise",
        report=lambda _: None,
        **more,
    )


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


class TestChoice:
    def test_memory(self) -> None:
        """``"memory:"`` is the storage in memory."""
        assert isinstance(choose("memory:"), MemoryStorage)

    @pytest.mark.parametrize("as_text", [True, False])
    def test_a_path(self, tmp_path: Path, *, as_text: bool) -> None:
        """A path, as text or not, is a file, to which the group makes no difference."""
        path = tmp_path / "q.sqlite"
        storage = choose(str(path) if as_text else path, app_group="group")

        assert isinstance(storage, SQLiteStorage)
        assert storage.path == path

    def test_the_default(self, state: Path) -> None:
        """None is the default file of the project and the group."""
        storage, grouped = choose(None), choose(None, app_group="group")

        assert isinstance(storage, SQLiteStorage)
        assert isinstance(grouped, SQLiteStorage)
        assert storage.path == default_path("token") == state / "exponea_async" / "token.sqlite"
        assert grouped.path == default_path("token", "group") == state / "exponea_async" / "token@group.sqlite"

    @pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
    def test_redis_is_not_here_yet(self, scheme: str) -> None:
        """A Redis address is refused, and the password in it is not shown."""
        with pytest.raises(ConfigurationError, match="no Redis") as caught:
            choose(f"{scheme}://user:secret@host/0")
        assert "secret" not in str(caught.value)
        assert caught.value.field == "storage"

    async def test_settings_arrive(self, tmp_path: Path) -> None:
        """The size of the queue reaches the storage that is chosen."""
        for setting in ("memory:", tmp_path / "q.sqlite"):
            storage = choose(setting)
            await storage.open()
            await storage.write(records(*"0123456789"))
            with pytest.raises(OSError, match="may hold 10 records"):
                await storage.write(records("a"))
            await storage.aclose()


class TestDefaultPath:
    @pytest.mark.parametrize("text", ODD)
    def test_any_text_is_one_safe_name(self, state: Path, text: str) -> None:
        """Whatever the token or the group, the file lies in the folder, under a short ASCII name of its own."""
        for path in (default_path(text), default_path("token", text), default_path(text, text)):
            assert path.parent == state / "exponea_async"
            assert path.name.isascii()
            assert len(path.name) < 200
            assert not set(path.name) & set('/\\:*?"<>| \x00')
            assert path.suffix == ".sqlite"

    def test_no_two_share_a_file(self, state: Path) -> None:
        """Different tokens and groups have different files, however alike they look."""
        texts = [*ODD, "token", "token@group", "group", "x" * 999, "a%2fb"]
        pairs = [(token, group) for token in texts for group in (None, *texts)]

        assert len({default_path(*pair) for pair in pairs}) == len(pairs)

    def test_no_group(self, state: Path) -> None:
        """An empty group is none."""
        assert default_path("token", "") == default_path("token", None) == default_path("token")

    @pytest.mark.parametrize("value", ["", "relative/folder"])
    def test_without_a_state_directory(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str) -> None:
        """Where the variable is empty or relative, the usual folder in the user's home is taken."""
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setenv("XDG_STATE_HOME", value)
        monkeypatch.setenv("HOME", str(tmp_path))

        assert default_path("t") == tmp_path / ".local" / "state" / "exponea_async" / "t.sqlite"

    @pytest.mark.parametrize(
        ("platform", "folder"), [("darwin", "Library/Application Support"), ("win32", "AppData/Local")]
    )
    def test_other_systems(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, folder: str) -> None:
        """Each system has its usual place."""
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.delenv("LOCALAPPDATA", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))

        assert default_path("t") == tmp_path / folder / "exponea_async" / "t.sqlite"
