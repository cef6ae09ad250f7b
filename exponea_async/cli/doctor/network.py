"""
Checks of the way to the platform: names, connections, encryption, keys and the clock. No request changes anything.
"""

import asyncio
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

from attrs import evolve, frozen

from exponea_async._internal.json import decode
from exponea_async._pipeline.commands import route_of, url_of
from exponea_async._pipeline.network import Network
from exponea_async._pipeline.resolver import DaemonResolver
from exponea_async._pipeline.responses import HttpResponse, classify, describe
from exponea_async._pipeline.transport import Transport, authorization_header
from exponea_async.cli.doctor.finding import Finding, Status
from exponea_async.cli.doctor.settings import addresses_of
from exponea_async.cli.terminal import duration
from exponea_async.config import Configuration
from exponea_async.errors import ConfigurationError, UnavailableError
from exponea_async.projects import ExponeaProject

#: The one command of the request that checks a key: it returns the time and changes nothing.
TIME_COMMAND = b'{"commands":[{"name":"system/time","command_id":"doctor"}]}'
#: A response that takes longer than this is slow, in seconds.
SLOW = 2.0
#: A clock that is wrong by more than this makes timestamps misleading, or useless, in seconds.
INACCURATE, WRONG = 5.0, 60.0
#: A certificate that ends sooner than this is reported, in seconds.
EXPIRES_SOON = 14 * 86_400.0
PORTS = {"http": 80, "https": 443}

CHECK_NETWORK = "Check EXPONEA_BASE_URL, the network of this machine, and whether it needs a proxy."
#: What to do about a status.
ADVICE = {
    401: "Check the key in EXPONEA_AUTHORIZATION_TOKEN: it is not a valid key of this project.",
    403: "Check the key in EXPONEA_AUTHORIZATION_TOKEN: it must be of this project, with the permission to track.",
    404: "Check EXPONEA_PROJECT_TOKEN and EXPONEA_BASE_URL: there is no such project at this address.",
    407: "Check the name and the password in EXPONEA_UPLOAD_PROXY, or in the variables of the proxy.",
    429: "Try again later. Other clients at this IP address may use up its limit of requests.",
}
TEMPORARY = "Events wait in the queue until the platform answers again. Try again later."
NOT_THE_PLATFORM = "Check EXPONEA_BASE_URL. Something on the way answers instead of the platform, such as a login page."


@frozen
class Target:
    """
    Where connections are made to: the platform itself, or a proxy.

    Attributes:
        name: ``"address"`` or ``"proxy"``.
        host: The host.
        port: The port.
        is_encrypted: Whether connections use TLS.
    """

    name: str
    host: str
    port: int
    is_encrypted: bool


async def check_network(configuration: Configuration, timeout: float) -> AsyncIterator[Finding]:  # noqa: ASYNC109
    """
    Check the connection to each address, and the key of each project.

    Args:
        configuration: The settings.
        timeout: The time limit of each step in seconds.
    """
    network = Network(configuration.upload)
    try:
        await network.open()
    except ConfigurationError as error:
        yield Finding.of_error("certificates", error)
        return
    reachable: set[str] = set()
    for url in addresses_of(configuration):
        is_reachable = True
        async for finding in _check_connection(url, network, timeout):
            is_reachable = is_reachable and finding.status != "failed"
            yield finding
        if is_reachable:
            reachable.add(url)
    settings = evolve(configuration.upload, request_timeout=timeout)
    transport = Transport(settings, network, connections=1)
    try:
        for project in configuration.projects:
            url = project.base_url or configuration.base_url
            if url not in reachable:
                yield Finding("permission", "skipped", f"project {project.project_token}: {url} can't be reached")
                continue
            for finding in await _check_project(project, url, transport):
                yield finding
    finally:
        await transport.aclose()


# Connections


def _target(url: str, network: Network) -> Target:
    proxy = network.proxy_for(url)
    parts = urlsplit(url if proxy is None else proxy.url)
    port = parts.port or PORTS.get(parts.scheme, 80)
    return Target("address" if proxy is None else "proxy", parts.hostname or "", port, parts.scheme == "https")


async def _check_connection(url: str, network: Network, timeout: float) -> AsyncIterator[Finding]:  # noqa: ASYNC109
    target = _target(url, network)
    if target.name == "proxy":
        yield Finding("proxy", "ok", f"{url} is reached through {target.host}:{target.port}")
    try:
        addresses = await _resolve(target, timeout)
    except (OSError, TimeoutError) as error:
        yield Finding("DNS", "failed", f"{target.host} can't be resolved: {_reason(error)}", CHECK_NETWORK)
        return
    if not _is_ip(target.host):
        yield Finding("DNS", "ok", f"{target.host} is {', '.join(addresses[:4])}")
    connected = await _connect(target, addresses, timeout)
    yield connected
    if connected.status == "ok" and target.is_encrypted:
        yield await _encrypt(target, network.tls or ssl.create_default_context(), timeout)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def _resolve(target: Target, timeout: float) -> list[str]:  # noqa: ASYNC109
    async with asyncio.timeout(timeout):
        results = await DaemonResolver().resolve(target.host, target.port, socket.AF_UNSPEC)
    return list(dict.fromkeys(each["host"] for each in results))


async def _connect(target: Target, addresses: list[str], timeout: float) -> Finding:  # noqa: ASYNC109
    reasons: list[str] = []
    for address in addresses:
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                _, writer = await asyncio.open_connection(address, target.port)
        except (OSError, TimeoutError) as error:
            reasons.append(f"{address}: {_reason(error)}")
            continue
        writer.transport.abort()
        return Finding("TCP", "ok", f"{address} port {target.port} is open, {_milliseconds(started)}")
    detail = f"no connection to port {target.port} of {target.host}: {'; '.join(reasons)}"
    return Finding("TCP", "failed", detail, CHECK_NETWORK)


async def _encrypt(target: Target, tls: ssl.SSLContext, timeout: float) -> Finding:  # noqa: ASYNC109
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(target.host, target.port, ssl=tls)
    except ssl.SSLCertVerificationError as error:
        advice = (
            "If this network inspects encrypted connections, name the certificates of its authority in "
            "EXPONEA_UPLOAD_CA_FILE. Check the clock of this machine as well."
        )
        return Finding("TLS", "failed", f"the certificate is not trusted: {error.verify_message}", advice)
    except (OSError, TimeoutError) as error:
        return Finding("TLS", "failed", f"no encrypted connection: {_reason(error)}", CHECK_NETWORK)
    connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate, version = connection.getpeercert() or {}, connection.version()
    writer.transport.abort()
    return _read_certificate(certificate.get("notAfter"), version)


def _read_certificate(end: object, version: str | None) -> Finding:
    if not isinstance(end, str):
        return Finding("TLS", "warning", f"{version}; the certificate is not checked", "Use an SSLContext that does.")
    until = ssl.cert_time_to_seconds(end)
    day = datetime.fromtimestamp(until, UTC).date().isoformat()
    if until - time.time() < EXPIRES_SOON:
        advice = "It has to be renewed by then, by whoever runs the server at this address."
        return Finding("TLS", "warning", f"{version}; the certificate ends on {day}", advice)
    return Finding("TLS", "ok", f"{version}; the certificate is valid until {day}")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not error.args:
        return "no answer in time"
    # What asyncio adds to the system's own words is in the line already.
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    # The errors of name look-ups have negative numbers, and words of their own.
    return str(getattr(error, "strerror", None) or error)


def _milliseconds(started: float) -> str:
    return f"{(time.monotonic() - started) * 1000:.0f} ms"


# Keys and clocks


async def _check_project(project: ExponeaProject, url: str, transport: Transport) -> list[Finding]:
    token = project.project_token
    started, before = time.monotonic(), time.time()
    try:
        authorization = authorization_header(project.authorization_token)
        response = await transport.send("POST", url_of(url, route_of(token)), TIME_COMMAND, authorization)
    except UnavailableError as error:
        return [Finding("HTTP", "failed", f"project {token}: {error}", CHECK_NETWORK)]
    took = time.monotonic() - started
    findings = [_check_response(response, token, took)]
    platform_time = _time_of(response)
    if platform_time is not None:
        findings.append(_check_clock(before + took / 2 - platform_time, took / 2))
    return findings


def _check_response(response: HttpResponse, token: str, took: float) -> Finding:
    kind = classify(response.status)
    if kind == "success":
        return _check_success(response, token, took)
    status: Status = "warning" if response.status == 429 else "failed"
    default = TEMPORARY if kind == "temporary error" else NOT_THE_PLATFORM
    return Finding("permission", status, f"project {token}: {describe(response)}", ADVICE.get(response.status, default))


def _check_success(response: HttpResponse, token: str, took: float) -> Finding:
    result = _result_of(response)
    if result is None:
        return Finding(
            "HTTP", "failed", f"project {token}: the response is not one of the platform's", NOT_THE_PLATFORM
        )
    if result.get("success") is not True:
        reason = describe(response._replace(body=json.dumps(result).encode()))
        return Finding("permission", "failed", f"project {token}: {reason}", ADVICE[403])
    detail = f"project {token} accepts the key, HTTP {response.status} in {took * 1000:.0f} ms"
    if took > SLOW:
        advice = "Check the network. A request that takes longer than EXPONEA_UPLOAD_REQUEST_TIMEOUT is repeated."
        return Finding("permission", "warning", f"{detail}, which is slow", advice)
    return Finding("permission", "ok", detail)


def _result_of(response: HttpResponse) -> dict[str, object] | None:
    """Return the result of the one command; that of the whole batch if the platform has refused it."""
    try:
        content = decode(response.body)
    except ValueError:
        return None
    if not isinstance(content, dict) or not isinstance(content.get("success"), bool):
        return None
    results = content.get("results")
    first = results[0] if isinstance(results, list) and results else content
    return first if isinstance(first, dict) else None


def _time_of(response: HttpResponse) -> float | None:
    result = _result_of(response) if classify(response.status) == "success" else None
    found = result.get("time") if result else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _check_clock(ahead: float, uncertainty: float) -> Finding:
    difference = max(0.0, abs(ahead) - uncertainty)
    if difference <= INACCURATE:
        return Finding("clock", "ok", f"it agrees with that of the platform within {INACCURATE:g} s")
    detail = f"the clock of this machine is {duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} the platform"
    advice = "Let this machine synchronize its clock: events are stored with its time."
    return Finding("clock", "failed" if difference > WRONG else "warning", detail, advice)
