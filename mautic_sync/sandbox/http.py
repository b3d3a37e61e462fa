"""A small HTTP/1.1 server on threads: keep-alive, answers in one piece, no delay on small packets."""

import contextlib
import email
import email.policy
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, unquote_plus

from .php import nest, parse_query

_MAX_HEAD = 65536
_MAX_BODY = 256 * 1024 * 1024


@dataclass
class Request:
    """One request, parsed as far as it is asked for."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    peer: str = "127.0.0.1"

    @cached_property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])

    @cached_property
    def query(self) -> dict[str, Any]:
        return parse_query(self.target.partition("?")[2])

    @cached_property
    def cookies(self) -> dict[str, str]:
        pairs = (part.strip().partition("=") for part in self.headers.get("cookie", "").split(";"))
        return {name: unquote(value) for name, _, value in pairs if name}

    @cached_property
    def form(self) -> dict[str, Any]:
        """The body as form fields, brackets nested."""
        kind = self.headers.get("content-type", "")
        if "multipart/form-data" in kind:
            return nest({name: text for name, (text, _) in self.parts.items()})
        return parse_query(self.body.decode(errors="replace"))

    @cached_property
    def parts(self) -> dict[str, tuple[str, bytes]]:
        """A multipart body: by field, its text and its bytes."""
        head = f"Content-Type: {self.headers.get('content-type', '')}\r\n\r\n".encode()
        message = email.message_from_bytes(head + self.body, policy=email.policy.HTTP)
        found: dict[str, tuple[str, bytes]] = {}
        for part in message.iter_parts() if message.is_multipart() else ():
            name = part.get_param("name", header="content-disposition")
            raw = part.get_payload(decode=True)
            content = raw if isinstance(raw, bytes) else b""
            found[unquote_plus(str(name))] = (content.decode(errors="replace"), content)
        return found

    @cached_property
    def file_names(self) -> dict[str, str]:
        """A multipart body: by field, the names of its files."""
        found = re.findall(rb'name="([^"]+)"; filename="([^"]+)"', self.body)
        return {name.decode(errors="replace"): file_name.decode(errors="replace") for name, file_name in found}

    @property
    def user_agent(self) -> str:
        return self.headers.get("user-agent", "")


@dataclass
class Response:
    """One answer; `drop` closes the connection instead of sending it."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: list[tuple[str, str]] = field(default_factory=list)
    drop: bool = False
    #: send only this many bytes of the body, then close
    cut_after: int | None = None

    def encoded(self, *, head_only: bool, keep_alive: bool) -> bytes:
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {self.status} {phrase}", f"Content-Type: {self.content_type}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines += [f"Content-Length: {len(self.body)}", f"Connection: {'keep-alive' if keep_alive else 'close'}"]
        head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
        body = b"" if head_only else self.body
        return head + (body if self.cut_after is None else body[: self.cut_after])


class Server:
    """Serves `handle` on 127.0.0.1, one thread a connection."""

    def __init__(self, handle: Callable[[Request], Response], port: int = 0) -> None:
        self._handle = handle
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._socket.listen(128)
        self.port: int = self._socket.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False

    def start(self) -> None:
        self._thread = threading.Thread(target=self._accept, name="sandbox", daemon=True)
        self._thread.start()

    def join(self) -> None:
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(0.5)

    def stop(self) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._guard:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(5)

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._guard:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                while not self._closing and self._one(connection, stream):
                    pass
        except (OSError, ValueError):
            pass  # the client went away, or speaks something else
        finally:
            with self._guard:
                self._open.discard(connection)

    def _one(self, connection: socket.socket, stream: Any) -> bool:
        line = stream.readline(_MAX_HEAD)
        if not line.strip():
            return False
        method, target, version = line.decode("latin-1").split()
        headers: dict[str, str] = {}
        while (raw := stream.readline(_MAX_HEAD)) not in {b"\r\n", b"\n", b""}:
            name, _, value = raw.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._body(stream, headers)
        request = Request(method.upper(), target, headers, body)
        response = self._handle(request)
        if response.drop:
            return False
        asked_to_close = headers.get("connection", "").lower() == "close" or version == "HTTP/1.0"
        keep_alive = not asked_to_close and response.cut_after is None
        connection.sendall(response.encoded(head_only=method.upper() == "HEAD", keep_alive=keep_alive))
        return keep_alive

    @staticmethod
    def _body(stream: Any, headers: dict[str, str]) -> bytes:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            pieces = []
            while size := int(stream.readline(_MAX_HEAD).split(b";")[0], 16):
                pieces.append(stream.read(size))
                stream.readline(_MAX_HEAD)
            stream.readline(_MAX_HEAD)
            return b"".join(pieces)
        length = min(int(headers.get("content-length") or 0), _MAX_BODY)
        return bytes(stream.read(length)) if length else b""
