from __future__ import annotations

import socket

import pytest


def test_tests_reach_this_machine_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    with pytest.raises(ConnectionRefusedError, match=r"not connect to 203\.0\.113\.1"):
        socket.create_connection(("203.0.113.1", 9), timeout=1)
