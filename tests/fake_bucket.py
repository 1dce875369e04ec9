"""Cloud Storage on this machine: what TensorFlow, TensorStore and Google's own client ask of it.

TensorFlow always asks `https://*.googleapis.com`: a proxy leads it here, with a certificate of a
made-up authority. The others are told the address.
"""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import itertools
import json
import re
import socket
import socketserver
import ssl
import threading
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trustme

_HOSTS = ("www.googleapis.com", "storage.googleapis.com")


class FakeBuckets:
    """All buckets there are; any name is one.

    Attributes:
      objects: the bytes of each object, by `bucket/name`.
      environment: variables of programs that are to find them.
    """

    def __init__(self, folder: Path) -> None:
        """Serves until the process ends; `folder` gets the authority's certificate."""
        self.objects: dict[str, bytes] = {}
        self._generations: dict[str, int] = {}
        self._uploads: dict[str, tuple[str, bytearray]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

        authority = trustme.CA()
        certificates = folder / "authority.pem"
        authority.cert_pem.write_to_path(certificates)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*_HOSTS).configure_cert(context)
        plain = self._serve(_Server(("127.0.0.1", 0), _Handler))
        encrypted = self._serve(_EncryptedServer(("127.0.0.1", 0), _Handler), context=context)
        proxy = _Proxy(("127.0.0.1", 0), _Tunnel)
        proxy.destination = ("127.0.0.1", encrypted)
        proxy = self._serve(proxy)
        here = "localhost,127.0.0.1"
        self.environment = {
            **dict.fromkeys(("https_proxy", "HTTPS_PROXY"), f"http://127.0.0.1:{proxy}"),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), here),
            "CURL_CA_BUNDLE": str(certificates),
            "GCE_METADATA_HOST": "127.0.0.1:9",  # nobody: this is no machine of Google's
            "NO_GCE_CHECK": "true",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            "TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{plain}",
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{plain}",
        }

    def upload(self, folder: Path, to: str) -> None:
        """Copies a folder of files to `bucket/prefix`."""
        for file in folder.rglob("*"):
            if file.is_file():
                self.put(f"{to}/{file.relative_to(folder)}", file.read_bytes())

    def download(self, prefix: str, folder: Path) -> None:
        """Writes the objects below `bucket/prefix/` to a folder."""
        for name, data in self.objects.items():
            # TensorFlow makes folders of objects without content.
            if name.startswith(f"{prefix}/") and not name.endswith("/"):
                file = folder / name.removeprefix(f"{prefix}/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)

    def put(self, name: str, data: bytes) -> None:
        """Writes an object, `bucket/name`."""
        self.objects[name] = data
        self._generations[name] = next(self._numbers)

    def _serve(self, server: "_Server", **attributes: object) -> int:
        """Starts a server; returns its port."""
        vars(server).update(attributes, buckets=self)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_address[1]

    def answer(self, request: "_Request") -> "_Answer":
        """Does what a request asks for."""
        with self._lock:
            path = request.path.removeprefix("/download").removeprefix("/upload")
            if match := re.fullmatch(r"/storage/v1/b/([^/]+)", path):
                return _told({"kind": "storage#bucket", "name": match[1]})
            if match := re.fullmatch(r"/storage/v1/b/([^/]+)/o/?", path):
                is_upload = request.method in ("POST", "PUT")
                return (self._upload if is_upload else self._list)(match[1], request)
            if match := re.fullmatch(r"/storage/v1/b/(.+)/o/(.+)/rewriteTo/b/(.+)/o/(.+)", path):
                bucket, name, to_bucket, to_name = map(urllib.parse.unquote, match.groups())
                return self._copy(f"{bucket}/{name}", f"{to_bucket}/{to_name}")
            if match := re.fullmatch(r"/storage/v1/b/([^/]+)/o/(.+)", path):
                name = "/".join(map(urllib.parse.unquote, match.groups()))
                if request.method == "GET" and request.query.get("alt") != "media":
                    return self._describe(name)
            else:
                name = urllib.parse.unquote(path.removeprefix("/"))
            return self._delete(name) if request.method == "DELETE" else self._read(name, request)

    def _fields(self, name: str) -> dict[str, str]:
        bucket, _, rest = name.partition("/")
        data, time = self.objects[name], "2026-01-01T00:00:00.000Z"
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": rest,
            "size": str(len(data)),
            "generation": str(self._generations[name]),
            "metageneration": "1",
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            **dict.fromkeys(("timeCreated", "updated"), time),
        }

    def _describe(self, name: str) -> "_Answer":
        return _told(self._fields(name)) if name in self.objects else _Answer(404)

    def _delete(self, name: str) -> "_Answer":
        return _Answer(204 if self.objects.pop(name, None) is not None else 404)

    def _copy(self, name: str, to: str) -> "_Answer":
        if name not in self.objects:
            return _Answer(404)
        self.put(to, self.objects[name])
        return _told({"done": True, "resource": self._fields(to)})

    def _read(self, name: str, request: "_Request") -> "_Answer":
        if name not in self.objects:
            return _Answer(404)
        data, headers = self.objects[name], {"x-goog-generation": str(self._generations[name])}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if not match:
            return _Answer(200, data, headers)
        start, end = int(match[1]), min(int(match[2] or len(data)) + 1, len(data))
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        return _Answer(206, data[start:end], headers) if start < len(data) else _Answer(416)

    def _list(self, bucket: str, request: "_Request") -> "_Answer":
        prefix, delimiter = (request.query.get(key, "") for key in ("prefix", "delimiter"))
        first, end = (request.query.get(key) for key in ("startOffset", "endOffset"))
        most = int(request.query.get("maxResults", 10_000))
        items, folders = [], set()
        for full_name in sorted(self.objects):
            name = full_name.removeprefix(f"{bucket}/")
            if name == full_name or not name.startswith(prefix):
                continue
            if (first and name < first) or (end and name >= end):
                continue
            head, found, _ = name[len(prefix) :].partition(delimiter or "\0")
            if found:
                folders.add(prefix + head + delimiter)
            else:
                items.append(self._fields(full_name))
        return _told({"items": items[:most], "prefixes": sorted(folders)[:most]})

    def _upload(self, bucket: str, request: "_Request") -> "_Answer":
        if request.query.get("uploadType") != "resumable":
            return self._store(f"{bucket}/{request.query['name']}", request.body)
        if (number := request.query.get("upload_id")) is None:
            name = request.query.get("name") or json.loads(request.body)["name"]
            number = str(next(self._numbers))
            self._uploads[number] = (f"{bucket}/{name}", bytearray())
            query = f"uploadType=resumable&upload_id={number}"
            place = f"https://{_HOSTS[0]}/upload/storage/v1/b/{bucket}/o?{query}"
            return _Answer(headers={"Location": place})
        name, received = self._uploads[number]
        part = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", request.headers["Content-Range"])
        if part[1]:
            received[int(part[1]) :] = request.body
        if part[2] != "*" and len(received) >= int(part[2]):
            return self._store(name, bytes(received))
        return _Answer(308, headers={"Range": f"bytes=0-{len(received) - 1}"} if received else {})

    def _store(self, name: str, data: bytes) -> "_Answer":
        self.put(name, data)
        return _told(self._fields(name))


@dataclasses.dataclass(frozen=True)
class _Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclasses.dataclass(frozen=True)
class _Answer:
    code: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _told(fields: Mapping[str, Any]) -> _Answer:
    return _Answer(body=json.dumps(fields).encode())


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        request = _Request(self.command, url.path, query, self.headers, self._read_body())
        answer = self.server.buckets.answer(request)
        self.send_response(answer.code)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *_: object) -> None:
        pass


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 256


class _EncryptedServer(_Server):
    def finish_request(self, request: socket.socket, client_address: object) -> None:
        with contextlib.suppress(OSError):  # a client that goes away
            encrypted = self.context.wrap_socket(request, server_side=True)
            super().finish_request(encrypted, client_address)


class _Tunnel(socketserver.StreamRequestHandler):
    """Connects to the encrypted server, wherever it is asked to."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(self.server.destination) as there:
            there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            back = threading.Thread(target=_pump, args=(there, self.request), daemon=True)
            back.start()
            _pump(self.request, there)
            back.join()


class _Proxy(_Server):
    destination: tuple[str, int]


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
