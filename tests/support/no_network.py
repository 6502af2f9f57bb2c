"""What would leave this machine is refused, and remembered: who is refused may not say so."""

from __future__ import annotations

import socket
import sys
from typing import Any

REFUSED: list[str] = sys.__dict__.setdefault("_refused_by_tests", [])
"""Hosts that were asked for since this was last cleared: one list per process, since workers of
pytest-xdist load this file twice, as `sitecustomize` and as a module."""

_NAMES = {"socket.getaddrinfo", "socket.gethostbyname"}
_ADDRESSES = {"socket.connect", "socket.sendto", "socket.sendmsg"}


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _NAMES:
        host = arguments[0]
    elif event in _ADDRESSES:
        opened, address = arguments[:2]
        internet = opened.family in (socket.AF_INET, socket.AF_INET6)
        # A datagram socket that connects sends nothing: it is how one's own address is found.
        silent = event == "socket.connect" and opened.type != socket.SOCK_STREAM
        if not internet or silent or not isinstance(address, tuple):
            return
        host = address[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if not _is_here(host):
        REFUSED.append(str(host))
        raise ConnectionRefusedError(f"tests do not connect to {host}")


def _is_here(host: str | None) -> bool:
    if host in (None, "", "localhost", socket.gethostname()):
        return True
    assert host is not None
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        with socket.socket(family) as probe:
            try:
                probe.bind((host, 0))  # only an address of this machine can be bound
            except OSError:
                return False
            return True
    return False


def block() -> None:
    """From now on, and for as long as this process lives."""
    sys.addaudithook(_refuse)
