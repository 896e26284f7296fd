"""An object store that fails for a while is waited for, longer than pyarrow itself does; one that refuses is not."""

import os
import socket
import struct
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipelines.patience import patient
from pipelines.storage import Folder

pytestmark = pytest.mark.slow
PYARROW_TRIES = 31  # requests, in 6 s
HOP_BY_HOP = ("transfer-encoding", "content-length", "expect")
CONTENT = b"0123456789"


class Gate(BaseHTTPRequestHandler):
    """In front of a real store: the first `failures` requests meet with `trouble`, the others go through."""

    protocol_version = "HTTP/1.1"

    def _answer(self):
        self.server.requests += 1
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


@pytest.fixture
def server(s3_server):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    server.requests, server.failures, server.trouble, server.behind = 0, 0, 500, s3_server
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def folder(server, s3_folder) -> Folder:
    """A folder with one file, behind the gate."""
    Folder.at(s3_folder).write("a", CONTENT)
    return Folder.at(s3_folder.replace(server.behind, f"127.0.0.1:{server.server_address[1]}"))


@pytest.mark.parametrize("trouble", [500, 503, 429, "reset"])
def test_what_passes_is_waited_for(server, folder, trouble):
    server.failures, server.trouble = PYARROW_TRIES + 2, trouble
    assert folder.read("a") == CONTENT
    assert server.requests > PYARROW_TRIES


def test_an_upload_is_begun_again(server, folder):
    server.failures, server.trouble = PYARROW_TRIES + 2, 503
    folder.write("b", CONTENT)
    assert folder.read("b") == CONTENT


def test_the_store_says_no_only_once(server, folder):
    server.failures, server.trouble = 100, 403
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        folder.read("a")
    assert server.requests <= 2


def test_errors_that_do_not_pass_are_raised_at_once():
    asked = []

    def operation():
        asked.append(1)
        raise OSError("AWS Error NETWORK_CONNECTION: curlCode: 7, Couldn't connect to server")

    with pytest.raises(OSError, match="curlCode: 7"):
        patient(operation)
    with pytest.raises(FileNotFoundError):
        patient(os.stat, "/no/such/file")
    assert len(asked) == 1
