"""
Checks of the settings, of the environment's proxies, and of the versions of what is installed.
"""

import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from ipaddress import ip_address
from urllib.parse import urlsplit

from exponea_async._version import __version__
from exponea_async.cli.doctor.finding import Finding
from exponea_async.config import Configuration
from exponea_async.models import FlushMode
from exponea_async.projects import BasicAuth
from exponea_async.storage.sqlite.inspection import SQLITE_VERSION

#: The distributions of each extra.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "speed": ("orjson",),
    "cli": ("rich", "shtab"),
    "otel": ("opentelemetry-api",),
    "postgres": ("asyncpg",),
    "html": ("nh3", "regex", "selectolax", "tinycss2"),
}
#: What the package always needs.
DEPENDENCIES = ("aiohttp", "aiosqlite", "attrs", "platformdirs", "tenacity")
PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


def check_settings(configuration: Configuration) -> Iterator[Finding]:
    """Check the settings themselves, which are valid by now."""
    key = "private access" if isinstance(configuration.authorization_token, BasicAuth) else "a public API key"
    others = len(configuration.projects) - 1
    more = f", and {others} more in project_mapping and other_projects" if others else ""
    yield Finding("settings", "ok", f"project {configuration.project_token} with {key}{more}")
    for url in addresses_of(configuration):
        if is_clear_text(url):
            advice = "Use an address that begins with https://."
            yield Finding("encryption", "warning", f"the key and all data are sent to {url} in clear text", advice)
    if not configuration.upload.enabled:
        advice = "Make sure that another process uploads the queue, or unset EXPONEA_UPLOAD_ENABLED."
        yield Finding(
            "flush mode", "warning", "upload.enabled is off: nothing is sent by clients like this one", advice
        )
    elif configuration.flush_mode is FlushMode.MANUAL:
        advice = "Make sure that the application does so, or set EXPONEA_FLUSH_MODE."
        yield Finding("flush mode", "warning", "MANUAL: nothing is sent until flush_data() is called", advice)


def addresses_of(configuration: Configuration) -> list[str]:
    """Return the addresses of all projects, each once."""
    return list(dict.fromkeys(each.base_url or configuration.base_url for each in configuration.projects))


def is_clear_text(url: str) -> bool:
    """Return whether requests to an address are not encrypted and leave this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        is_local = ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "http" and not is_local


def check_proxies(configuration: Configuration) -> Iterator[Finding]:
    """Check the variables of the environment that name proxies. Their values may have passwords in them."""
    names = [name for name in PROXY_VARIABLES if os.environ.get(name) or os.environ.get(name.lower())]
    upload = configuration.upload
    if upload.proxy is not None:
        ignored = f"; {', '.join(names)} have no effect" if names else ""
        yield Finding("proxy", "ok", f"all requests go through the proxy in upload.proxy{ignored}")
    elif names and not upload.trust_env:
        advice = "If this network requires the proxy, set EXPONEA_UPLOAD_TRUST_ENV=true or EXPONEA_UPLOAD_PROXY."
        are = "is" if len(names) == 1 else "are"
        yield Finding("proxy", "warning", f"{', '.join(names)} {are} set and not used: upload.trust_env is off", advice)
    elif names:
        yield Finding("proxy", "ok", f"{', '.join(names)} and NO_PROXY are used: upload.trust_env is on")
    else:
        yield Finding("proxy", "ok", "none; requests are made directly")


def check_versions() -> Iterator[Finding]:
    """Name the versions of what is installed, and the extras that are not."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield Finding("versions", "ok", f"exponea-async {__version__}, {python}, SQLite {SQLITE_VERSION}")
    found = {name: _version(name) for name in DEPENDENCIES}
    missing = [name for name, version in found.items() if version is None]
    if missing:
        advice = "Install exponea-async with pip, which installs them."
        yield Finding("dependencies", "failed", f"{', '.join(missing)} is not installed", advice)
    else:
        versions = ", ".join(f"{name} {version}" for name, version in found.items())
        yield Finding("dependencies", "ok", versions)
    absent = [extra for extra, names in EXTRAS.items() if any(_version(name) is None for name in names)]
    present = [extra for extra in EXTRAS if extra not in absent]
    detail = f"installed: {', '.join(present) or 'none'}; not installed: {', '.join(absent) or 'none'}"
    yield Finding("extras", "ok", detail)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
