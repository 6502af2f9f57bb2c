from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.support.no_network import REFUSED


def test_tests_reach_this_machine_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    with pytest.raises(ConnectionRefusedError, match=r"not connect to 203\.0\.113\.1"):
        socket.create_connection(("203.0.113.1", 9), timeout=1)
    with pytest.raises(ConnectionRefusedError, match=r"not connect to example\.invalid"):
        socket.getaddrinfo("example.invalid", 443)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        pytest.raises(ConnectionRefusedError),
    ):
        datagrams.sendto(b"", ("203.0.113.1", 9))
    assert REFUSED == ["203.0.113.1", "example.invalid", "203.0.113.1"]
    REFUSED.clear()  # what is left in it fails the test


def test_processes_of_tests_do_too() -> None:
    code = "import socket; socket.create_connection(('203.0.113.1', 9), timeout=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "tests do not connect to 203.0.113.1" in done.stderr
