"""A gate in front of the S3 server: it counts what passes, and may turn the first requests away."""

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP_BY_HOP = ("transfer-encoding", "content-length", "expect")


class GateServer(ThreadingHTTPServer):
    """`trouble` is what the first `failures` requests meet with: a status, or "reset"."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behind: str):
        super().__init__(("127.0.0.1", 0), Gate)
        self.behind, self.failures, self.trouble = behind, 0, 500
        self.reset()

    def reset(self) -> None:
        self.connections, self.methods, self.bytes_read = 0, Counter[str](), 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def requests(self) -> int:
        return self.methods.total()


@contextmanager
def gate_before(behind: str) -> Iterator[GateServer]:
    server = GateServer(behind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Gate(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def setup(self):
        self.server.connections += 1
        super().setup()

    def _answer(self):
        self.server.methods[self.command] += 1
        body = self._body()
        if self.server.requests > self.server.failures:
            self._forward(body)
        elif self.server.trouble == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        else:
            self._send(self.server.trouble, {"Content-Length": "0"}, b"")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _forward(self, body: bytes):
        connection = HTTPConnection(self.server.behind)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        connection.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
        answer = connection.getresponse()
        content = answer.read()
        self.server.bytes_read += len(content) if self.command == "GET" else 0
        headers = {name: value for name, value in answer.getheaders() if name not in ("Connection", "Server", "Date")}
        self._send(answer.status, headers, content)

    def _send(self, code: int, headers: dict[str, str], body: bytes):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass
