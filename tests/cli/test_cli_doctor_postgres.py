"""
The checks of ``doctor`` for a queue in PostgreSQL.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.command_line import CommandLine, command_line
from helpers.environment import Environment
from helpers.postgres_server import StartPostgres

PASSWORD = "pa55-of-the-role"


@pytest.fixture
def cli(tmp_path: Path, environment: Environment, postgres_url: str, postgres_schema: str) -> Iterator[CommandLine]:
    """A sandbox, and a schema that does not exist yet."""
    with command_line(tmp_path, environment) as cli:
        environment(EXPONEA_STORAGE=postgres_url, EXPONEA_POSTGRES_SCHEMA=postgres_schema)
        yield cli


def checks(cli: CommandLine) -> dict[str, Any]:
    """Return the findings by name."""
    result = cli.run("doctor", "--json", "--timeout", "60")
    assert PASSWORD not in result.out + result.err
    return {check["name"]: check for check in result.json["checks"]}


def test_everything_is_well(cli: CommandLine, postgres_url: str, postgres_schema: str) -> None:
    """A missing schema is named and not created; with one, all checks are made."""
    missing = checks(cli)
    assert missing["schema"]["status"] == "warning"
    assert "db init" in missing["schema"]["advice"]
    assert cli.run("db", "status").code == 1
    cli.run("db", "init")
    cli.run("track", "a", "--id", "registered=jane@example.com")
    found = checks(cli)
    for name in ("database", "database TLS", "pooler", "database clock", "schema", "rights", "clients", "waiting"):
        assert found[name]["status"] == "ok", found[name]
    assert found["notifications"]["detail"] == "LISTEN and NOTIFY work"
    # The servers of tests have it off, for speed.
    assert "fsync" in found["database settings"]["detail"]
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute(f"SELECT count(*) FROM {postgres_schema}.client".encode()).fetchone() == (0,)


def test_rights(cli: CommandLine, environment: Environment, own_postgres: StartPostgres) -> None:
    """A role without rights, one that only records, and a wrong password are recognized."""
    server = own_postgres()
    environment(EXPONEA_STORAGE=server.url)
    cli.run("db", "init")
    url = server.create_role("app", PASSWORD)
    environment(EXPONEA_STORAGE=url)
    found = checks(cli)
    assert (found["schema"]["status"], "db init --grant app" in found["schema"]["advice"]) == ("failed", True)
    environment(EXPONEA_STORAGE=server.url)
    cli.run("db", "init", "--grant-producer", "app")
    environment(EXPONEA_STORAGE=url)
    assert checks(cli)["rights"]["status"] == "failed"
    environment(EXPONEA_UPLOAD_ENABLED="false")
    assert checks(cli)["rights"]["status"] == "ok"
    environment(EXPONEA_STORAGE=url.replace(PASSWORD, f"{PASSWORD}x"))
    assert "password authentication failed" in checks(cli)["database"]["detail"]


def test_unreachable(cli: CommandLine, environment: Environment) -> None:
    """A server that can't be reached fails the check."""
    environment(EXPONEA_STORAGE=f"postgresql://me:{PASSWORD}@127.0.0.1:9/x")
    assert checks(cli)["database"]["status"] == "failed"


def test_pooler(cli: CommandLine, environment: Environment, pgbouncer_url: str) -> None:
    """A pooler is recognized, with the setting that it needs."""
    environment(EXPONEA_STORAGE=pgbouncer_url)
    found = checks(cli)["pooler"]
    assert (found["status"], "EXPONEA_POSTGRES_TRANSACTION_POOLING" in found["advice"]) == ("warning", True)
    environment(EXPONEA_POSTGRES_TRANSACTION_POOLING="true")
    assert checks(cli)["pooler"]["status"] == "ok"
    assert "not used" in checks(cli)["notifications"]["detail"]


@pytest.mark.parametrize("version", [0, 99])
def test_other_versions(cli: CommandLine, version: int, postgres_url: str, postgres_schema: str) -> None:
    """A schema of another version is named, with what to do."""
    cli.run("db", "init")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"UPDATE {postgres_schema}.meta SET version = {version}".encode())
    found = checks(cli)["schema"]
    assert found["status"] == ("failed" if version else "warning")
