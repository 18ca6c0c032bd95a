#!/usr/bin/python3
"""scan ADDRESS: every TCP port of an address, 1 to 65535, by a connection; prints the open ones as a JSON list.

A port is shut when its connection is refused. Anything else than open and refused ends the scan with a traceback: a
scan that did not see everything has found nothing.
"""

from __future__ import annotations

import json
import socket
import sys

TIMEOUT = 5.0


def is_open(address: str, port: int) -> bool:
    with socket.socket() as connection:
        connection.settimeout(TIMEOUT)
        try:
            connection.connect((address, port))
        except ConnectionRefusedError:
            return False
        return True


if __name__ == "__main__":
    print(json.dumps([port for port in range(1, 65536) if is_open(sys.argv[1], port)]))
