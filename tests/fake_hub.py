"""A server that speaks as much of the Hub's protocol as reading a data set needs, from a folder."""

import json
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

REPO = "owner/name"
_COMMIT = "0" * 40
_CONVERTED = "refs/convert/parquet"  # a revision, which has the same files here


class Hub(BaseHTTPRequestHandler):
    def __init__(self, folder: Path, *args):
        self.folder = folder
        super().__init__(*args)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).replace(_CONVERTED, "main")
        if path.startswith(f"/api/datasets/{REPO}/tree/main"):
            place = path.removeprefix(f"/api/datasets/{REPO}/tree/main").strip("/")
            inside = self.folder / place
            self.answer([self.entry(child) for child in sorted(inside.iterdir())] if inside.is_dir() else None)
        elif path.startswith(f"/api/datasets/{REPO}"):
            self.answer({"id": REPO, "sha": _COMMIT, "private": False, "tags": [], "siblings": []})
        elif path.startswith(f"/datasets/{REPO}/resolve/main/"):
            self.send(self.folder / path.removeprefix(f"/datasets/{REPO}/resolve/main/"))
        else:
            self.answer(None)

    do_HEAD = do_GET

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        files = (self.folder / path for path in asked["paths"])
        self.answer([self.entry(file) for file in files if file.exists()])

    def entry(self, file: Path) -> dict:
        path, kind = str(file.relative_to(self.folder)), "directory" if file.is_dir() else "file"
        size = 0 if file.is_dir() else file.stat().st_size
        return {"type": kind, "path": path, "oid": _COMMIT, "size": size}

    def send(self, file: Path) -> None:
        data = file.read_bytes()
        start, _, stop = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        self.answer_bytes(
            206, data[int(start) : int(stop) + 1 if stop else None], {"ETag": f'"{_COMMIT}"', "X-Repo-Commit": _COMMIT}
        )

    def answer(self, value) -> None:
        is_there = value is not None
        code = {} if is_there else {"X-Error-Code": "EntryNotFound" if REPO in self.path else "RepoNotFound"}
        self.answer_bytes(200 if is_there else 404, json.dumps(value if is_there else {"error": "none"}).encode(), code)

    def answer_bytes(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def hub(folder: Path) -> ThreadingHTTPServer:
    """Serves on a free port of this machine once it is started."""
    return ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder))
