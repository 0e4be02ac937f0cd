"""Requests to addresses that strangers name, which never reach the network behind this server.

The host is resolved once, every address of it is checked, and the connection goes to a checked address.
Redirects are not followed, and the environment's proxies are not used.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

MAX_BYTES = 20 << 20


class FetchError(Exception):
    """An address that is refused, or does not answer in time. The message is for the caller."""


def send(
    method: str,
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 10.0,
    private_hosts: Collection[str] = (),
    allowed_hosts: Collection[str] | None = None,
    max_bytes: int = MAX_BYTES,
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of the answer.

    `private_hosts` may have any address, and may be asked without TLS. With `allowed_hosts` no other host is
    asked. Raises `FetchError`.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise FetchError("the address is not valid") from None
    is_private = host in private_hosts
    if parts.scheme not in ("https", "http") or (parts.scheme == "http" and not is_private):
        raise FetchError("the address must begin with https://")
    if not host or parts.username is not None:
        raise FetchError("the address is not valid")
    if allowed_hosts is not None and host not in allowed_hosts:
        raise FetchError(f"the host {host} is not allowed")

    port = port or (443 if parts.scheme == "https" else 80)
    address = resolve(host, port, is_private)
    deadline = time.monotonic() + timeout_s
    connection = _Pinned(host, port, address, timeout_s, is_secure=parts.scheme == "https")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, target, body, {"connection": "close", **(headers or {})})
        answer = connection.getresponse()
        content = bytearray()
        while chunk := answer.read(64 << 10):
            content += chunk
            if len(content) > max_bytes:
                raise FetchError(f"the answer has more than {max_bytes} bytes")
            if time.monotonic() > deadline:
                raise FetchError("the answer takes too long")
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, bytes(content)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"no answer from {host}: {type(error).__name__}") from None
    finally:
        connection.close()


def resolve(host: str, port: int, is_private: bool = False) -> tuple[Any, ...]:
    """A socket address of a host. Raises `FetchError` if any of its addresses is not public."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise FetchError(f"the host {host} is unknown") from None
    if not is_private and not all(is_public(str(entry[4][0])) for entry in found):
        raise FetchError(f"the host {host} has an address that is not public")
    return found[0][4]


def is_public(text: str) -> bool:
    """Whether an address belongs to the public network, also one that is mapped into IPv6."""
    address = ipaddress.ip_address(text.split("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if embedded is not None:
            return is_public(str(embedded))
        if address in ipaddress.ip_network("64:ff9b::/96"):
            return is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
    return address.is_global and not address.is_multicast


class _Pinned(http.client.HTTPConnection):
    """A connection to a checked address, with the host's name for TLS and in the request."""

    def __init__(
        self, host: str, port: int, address: tuple[Any, ...], timeout_s: float, *, is_secure: bool
    ) -> None:
        super().__init__(host, port, timeout=timeout_s)
        self.default_port = 443 if is_secure else 80
        self._address, self._is_secure = address, is_secure

    def connect(self) -> None:
        """Connect to the checked address."""
        self.sock = socket.create_connection(self._address[:2], self.timeout)
        if self._is_secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
