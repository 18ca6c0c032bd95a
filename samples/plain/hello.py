"""A plain web server that knows nothing of a mesh: it answers every GET with what it was told about the caller."""

from __future__ import annotations

import http.server
import json
import os
import signal
import sys
import threading


class Hello(http.server.BaseHTTPRequestHandler):
    """Answers with JSON: its name, the Host header, and the header in which a mesh names both ends."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        answer = {
            "from": os.environ.get("NAME", "hello"),
            "host": self.headers.get("host", ""),
            "client-certificate": self.headers.get("x-forwarded-client-cert", ""),
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing for each request."""


def main() -> None:
    """Serve on the address given, and the platform's PORT, until SIGTERM."""
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
    server = http.server.ThreadingHTTPServer((address, int(os.environ.get("PORT", "8080"))), Hello)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


if __name__ == "__main__":
    main()
