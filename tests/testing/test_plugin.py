"""
The pytest plugin, in processes of pytest as an application's tests run.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.pytest_runs import run_pytest

ROOT = Path(__file__).parent.parent.parent

PREAMBLE = """
import asyncio
import pytest
from exponea_async import Event
from exponea_async.sandbox import Fault

"""


class TestEventLoops:
    def test_examples(self, tmp_path: Path) -> None:
        """The tests of the examples pass, in the automatic mode of pytest-asyncio, on two workers of pytest-xdist."""
        tests = ("test_shop.py", "test_shop_environment.py", "test_shop_fastapi.py", "test_first_app.py")
        for name in ("shop.py", "first_app.py", *tests):
            shutil.copy(ROOT / "examples" / name, tmp_path)
        run = run_pytest(tmp_path, "", "-o", "asyncio_mode=auto", "-n", "2")

        assert run.outcomes == {"passed": 16}, run.output

    def test_strict_mode(self, tmp_path: Path) -> None:
        """In the strict mode the client is in the event loop of the test, whichever scope that has."""
        source = """
            import freezegun
            import pytest_asyncio

            @pytest_asyncio.fixture
            async def visitor(exponea):
                await exponea.track_event(Event("visit"))
                return exponea

            @pytest.mark.asyncio
            async def test_function(visitor, assert_tracked):
                assert_tracked("visit", count=1)

            @pytest.mark.asyncio(loop_scope="class")
            class TestClass:
                async def test_one(self, exponea, assert_tracked):
                    await exponea.track_event(Event("one"))
                    await exponea.flush_data()
                    assert_tracked("one", count=1)

                async def test_other(self, exponea, assert_not_tracked):
                    await exponea.track_event(Event("other"))
                    assert_not_tracked("one")

            @pytest.mark.asyncio
            async def test_frozen(exponea, assert_tracked):
                with freezegun.freeze_time("2026-01-01"):
                    await exponea.track_event(Event("visit"))
                    await exponea.flush_data()
                    assert_tracked("visit", timestamp=1767225600, count=1)

            @pytest.mark.asyncio(loop_scope="module")
            async def test_module(exponea):
                await exponea.track_event(Event("visit"))

            @pytest.mark.asyncio(loop_scope="package")
            async def test_package(exponea):
                await exponea.track_event(Event("visit"))

            @pytest.mark.asyncio(loop_scope="session")
            async def test_session(exponea):
                await exponea.track_event(Event("visit"))
        """
        # Older versions have an event loop for a package only where there is one.
        (tmp_path / "__init__.py").touch()
        run = run_pytest(tmp_path, PREAMBLE + _dedented(source))

        assert run.outcomes == {"passed": 7}, run.output

    def test_one_event_loop_for_all_tests(self, tmp_path: Path) -> None:
        """The client is in the event loop of the session where the settings of pytest-asyncio say so."""
        source = """
            async def test_one(exponea, assert_tracked):
                await exponea.track_event(Event("visit"))
                assert_tracked("visit", count=1)

            async def test_two(exponea, exponea_sandbox):
                await exponea.track_event(Event("visit"))
                await exponea.flush_data()
                assert len(exponea_sandbox.engine.events(event_type="visit")) == 1
        """
        options = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session")
        run = run_pytest(tmp_path, PREAMBLE + _dedented(source), *options)

        assert run.outcomes == {"passed": 2}, run.output

    @pytest.mark.parametrize("options", [(), ("-p", "no:asyncio")], ids=["with pytest-asyncio", "alone"])
    def test_anyio(self, tmp_path: Path, options: tuple[str, ...]) -> None:
        """With the plugin of anyio the client is in its event loop, also where pytest-asyncio is installed."""
        source = """
            pytestmark = pytest.mark.anyio

            @pytest.fixture
            def anyio_backend():
                return "asyncio"

            @pytest.fixture
            async def visitor(exponea):
                await exponea.track_event(Event("visit"))
                return exponea

            async def test_one(visitor, assert_tracked):
                await visitor.flush_data()
                assert_tracked("visit", count=1)

            class TestTrio:
                @pytest.fixture
                def anyio_backend(self):
                    return "trio"

                async def test_two(self, exponea):
                    pass
        """
        run = run_pytest(tmp_path, PREAMBLE + _dedented(source), *options)

        assert run.outcomes == {"passed": 1, "error": 1}, run.output
        assert "The fixture exponea can't be used here: it needs asyncio. Let the fixture anyio_backend" in run.output

    def test_without_a_plugin_for_coroutines(self, tmp_path: Path) -> None:
        """Without such a plugin, the errors say what to do, and tests that are not coroutines work."""
        source = """
            async def test_coroutine(exponea):
                pass

            def test_function(exponea):
                pass

            def test_portal(exponea_portal, exponea_sandbox, assert_tracked):
                exponea_portal.call(exponea_portal.exponea.track_event, Event("visit"))
                assert_tracked("visit", count=1)
                exponea_portal.call(exponea_portal.exponea.flush_data)
                assert_tracked("visit", count=1)
                assert exponea_sandbox.engine.events(event_type="visit")

            def test_application(exponea_portal, exponea_configuration, exponea_clock, assert_tracked):
                exponea_clock.set(1000)
                exponea_portal.call(exponea_portal.exponea.track_event, Event("visit"))
                assert_tracked("visit", timestamp=1000)
                assert exponea_portal.exponea.configuration == exponea_configuration
        """
        run = run_pytest(tmp_path, PREAMBLE + _dedented(source), "-p", "no:asyncio", "-p", "no:anyio")

        assert run.outcomes == {"passed": 2, "error": 2}, run.output
        trouble = "The fixture exponea can't be used here:"
        assert f"{trouble} nothing runs the test, which is a coroutine function. Install pytest-asyncio" in run.output
        assert f"{trouble} the test is not a coroutine function. Use the fixture exponea_portal" in run.output


class TestMarker:
    def test_sandbox(self, tmp_path: Path) -> None:
        """The keywords of the marker apply to the sandbox; those of the function win over those of the class."""
        source = """
            @pytest.mark.asyncio
            @pytest.mark.exponea(faults=[Fault("status", status=503, times=1)], rate_limit=7)
            class TestShop:
                async def test_class(self, exponea, exponea_sandbox):
                    assert exponea_sandbox.faults.active == (Fault("status", status=503, times=1),)

                @pytest.mark.exponea(faults=Fault("drop"), definitions={"recommendations": {"top": []}})
                async def test_function(self, exponea, exponea_sandbox):
                    assert exponea_sandbox.faults.active == (Fault("drop"),)
                    assert exponea_sandbox.messages.as_dict()["recommendations"]

            @pytest.mark.exponea(rate_limit=1)
            @pytest.mark.asyncio
            async def test_rate_limit(exponea, exponea_sandbox):
                # Several times, since a busy machine may make one request in a second.
                while 429 not in {request.status for request in exponea_sandbox.requests}:
                    await exponea.track_event(Event("visit"))
                    await exponea.flush_data(timeout=0.5)
        """
        run = run_pytest(tmp_path, PREAMBLE + _dedented(source))

        assert run.outcomes == {"passed": 3}, run.output

    def test_errors(self, tmp_path: Path) -> None:
        """What the marker does not know fails the test, and the message says what to write."""
        source = """
            @pytest.mark.exponea(fault=Fault("drop"))
            def test_typo(exponea_sandbox):
                pass

            @pytest.mark.exponea(colors=5)
            def test_unknown():
                pass

            @pytest.mark.exponea(Fault("drop"))
            def test_position(exponea_sandbox):
                pass

            @pytest.mark.exponea(faults=[503])
            def test_type(exponea_sandbox):
                pass

            @pytest.mark.exponea(definitions={"in_app_mesages": []})
            def test_definitions(exponea_sandbox):
                pass

            @pytest.mark.exponea(faults=Fault)
            def test_class(exponea_sandbox):
                pass

            @pytest.mark.exponea(definitions=5)
            def test_no_definitions(exponea_sandbox):
                pass

            @pytest.mark.exponea(rate_limit="5")
            def test_rate_limit(exponea_sandbox):
                pass

            @pytest.mark.exponea(faults=None, definitions=None, rate_limit=None)
            def test_none(exponea_sandbox):
                pass
        """
        run = run_pytest(tmp_path, PREAMBLE + _dedented(source))

        assert run.outcomes == {"error": 8, "passed": 1}, run.output
        assert "@pytest.mark.exponea: faults: expected a Fault or several, got the class Fault." in run.output
        assert "@pytest.mark.exponea: definitions: expected a mapping or the path of a file, got 5" in run.output
        assert "@pytest.mark.exponea: rate_limit: expected a number of requests per second, got '5'" in run.output
        assert "During handling" not in run.output
        assert "@pytest.mark.exponea: unknown keyword 'fault'. Did you mean faults?" in run.output
        assert "@pytest.mark.exponea: unknown keyword 'colors'. Use faults, definitions, rate_limit." in run.output
        assert "@pytest.mark.exponea: expected keywords only, got Fault(kind='drop'" in run.output
        assert "@pytest.mark.exponea: faults: expected a Fault or several, got int." in run.output
        assert "@pytest.mark.exponea: in_app_mesages: " in run.output
        assert "Traceback" not in run.output

    def test_it_is_registered(self, tmp_path: Path) -> None:
        """The marker is listed by ``pytest --markers``."""
        run = run_pytest(tmp_path, "", "--markers")

        assert "@pytest.mark.exponea(faults=..., definitions=..., rate_limit=...): what the sandbox" in run.output


class TestManners:
    def test_traceback_ends_in_the_test(self, tmp_path: Path) -> None:
        """An assertion that fails shows the line of the test, and nothing of the package."""
        source = """
            @pytest.mark.asyncio
            async def test_purchase(exponea, assert_tracked, assert_not_tracked):
                await exponea.track_event(Event("purchase", {"price": 5}))
                with pytest.raises(AssertionError, match="Expected no such event 'purchase', got 1:"):
                    assert_not_tracked("purchase")
                assert_tracked("purchase", {"price": 6})
        """
        run = run_pytest(tmp_path, PREAMBLE + _dedented(source))

        assert run.outcomes == {"failed": 1}
        assert "E            price: expected 6, got 5\n" in run.output
        assert "test_application.py:13: AssertionError" in run.output
        assert "assertions.py" not in run.output

    def test_nothing_is_imported_at_the_start(self, tmp_path: Path) -> None:
        """As long as no test uses a fixture of the plugin, nothing is imported but the plugin itself."""
        (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n", encoding="utf-8")
        program = (
            "import sys, pytest\n"
            "code = pytest.main(['-q', '-p', 'pytest_exponea_async', '-p', 'no:cacheprovider', 'test_nothing.py'])\n"
            "heavy = ('exponea_async', 'aiohttp', 'aiosqlite', 'tenacity', 'attrs')\n"
            "print(int(code), [name for name in sys.modules if name.partition('.')[0] in heavy])\n"
            "print('pytest_exponea_async' in sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
        )

        assert done.stdout.splitlines()[-2:] == ["0 []", "True"]

    def test_the_entry_point(self) -> None:
        """The entry point has the name of the module, so that naming the plugin with ``-p`` does not load it twice."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

        assert project["entry-points"]["pytest11"] == {"pytest_exponea_async": "pytest_exponea_async"}
        assert (ROOT / "pytest_exponea_async.py").is_file()


class TestUnittest:
    def test_without_pytest(self, tmp_path: Path) -> None:
        """The example with unittest runs where pytest can't be imported."""
        (tmp_path / "pytest.py").write_text("raise ImportError('there is no pytest')\n", encoding="utf-8")
        for name in ("shop.py", "test_shop_unittest.py"):
            shutil.copy(ROOT / "examples" / name, tmp_path)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "unittest", "test_shop_unittest"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

        assert done.stderr.splitlines()[-3].startswith("Ran 2 tests"), done.stderr
        assert (done.stderr.splitlines()[-1], done.returncode) == ("OK", 0)


def _dedented(source: str) -> str:
    return "\n".join(line.removeprefix(" " * 12) for line in source.splitlines())
