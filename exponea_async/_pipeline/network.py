"""
The way that requests take to the platform: directly or through a proxy, and with which certificates.
"""

import asyncio
from base64 import b64encode
from collections.abc import Callable
from ssl import create_default_context
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from attrs import frozen

from exponea_async._internal.printable import printable
from exponea_async._internal.secrets import Secret
from exponea_async.config import UploadSettings
from exponea_async.errors import ConfigurationError
from exponea_async.requests import RequestReport


# No repr, which would show the password.
@frozen(eq=False, repr=False)
class Proxy:
    """
    An HTTP proxy.

    Attributes:
        url: Its URL, without credentials.
        authorization: The ``Proxy-Authorization`` header, or None.
    """

    url: str
    authorization: Secret | None = None


class Network:
    """
    What all requests of a client have in common.

    Args:
        settings: The proxy and the certificates.
        report: Called with each request that has ended; None if nobody wants to know.

    Attributes:
        tls: The TLS settings; None for the usual ones.
        report: The function.
    """

    def __init__(self, settings: UploadSettings, report: Callable[[RequestReport], None] | None = None) -> None:
        self.report = report
        self._ca_file = settings.ca_file
        self.tls = settings.ssl
        self._proxy = _read_proxy(settings.proxy) if settings.proxy is not None else None
        # The variables are read once: each request would have to copy the whole environment.
        self._environment = getproxies_environment() if settings.trust_env and self._proxy is None else {}

    async def open(self) -> None:
        """
        Load the certificates, in a thread.

        Raises:
            ConfigurationError: They can't be loaded.
        """
        if self._ca_file is None or self.tls is not None:
            return
        try:
            self.tls = await asyncio.to_thread(create_default_context, cafile=self._ca_file)
        except OSError as error:
            trouble = f"can't be loaded: {printable(error.strerror or str(error))}"
            raise ConfigurationError("upload.ca_file", trouble, "Use the path of a PEM file.") from error

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy of a request to a URL; None for a direct connection."""
        if self._proxy is not None or not self._environment:
            return self._proxy
        parts = urlsplit(url)
        address = self._environment.get(parts.scheme) or self._environment.get("all")
        if not address or proxy_bypass_environment(parts.netloc, self._environment):
            return None
        return _read_proxy(address)


def _read_proxy(url: str) -> Proxy:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    credentials, _, address = parts.netloc.rpartition("@")
    authorization = None
    if credentials:
        name, _, password = credentials.partition(":")
        pair = f"{unquote(name)}:{unquote(password)}".encode()
        authorization = Secret(f"Basic {b64encode(pair).decode()}")
    return Proxy(urlunsplit((parts.scheme, address, "", "", "")), authorization)
