"""A web server on 127.0.0.1 that serves files in ranges, and fails where it is told to."""

import http.server
import re
import socket
import struct
import threading
from dataclasses import dataclass, field

PROXY_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please log in to the proxy.</body></html>"
)


@dataclass
class Fault:
    """What goes wrong with the next requests whose method and path match a pattern ("GET .*weights").

    times: how many requests; status: answered instead, with `headers`; page: whether a proxy's page is answered,
    with status 200; cut: how many bytes of the body come before the connection ends (reset: the hard way); change: of
    the body (bytes -> bytes); whole: whether ranges are ignored
    """

    pattern: str
    times: int = 1
    status: int | None = None
    headers: dict = field(default_factory=dict)
    page: bool = False
    cut: int | None = None
    reset: bool = False
    change: object = None
    whole: bool = False


class LoopbackServer:
    """In a `with` block, serves what `answer` gives. requests: ("GET /path", first byte) of each one, in order."""

    def __init__(self, files=None):
        self.files, self.faults, self.requests = files or {}, [], []
        handler = type("Handler", (_Handler,), {"loopback": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.address = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, path, headers):
        """(status, headers, body) of a request."""
        content = self.files.get(path.lstrip("/"))
        return (404, {}, b"") if content is None else (200, {"Accept-Ranges": "bytes"}, content)

    def fault_of(self, request):
        """The fault that strikes a request, used up once; None for most."""
        for fault in self.faults:
            if fault.times > 0 and re.match(fault.pattern, request):
                fault.times -= 1
                return fault
        return None


class _Handler(http.server.BaseHTTPRequestHandler):
    loopback = None

    def do_HEAD(self):
        self._serve()

    def do_GET(self):
        self._serve()

    def _serve(self):
        request = f"{self.command} {self.path}"
        start = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", ""))
        self.loopback.requests.append((request, int(start[1]) if start else 0))
        fault = self.loopback.fault_of(request)
        if fault and fault.status:
            status, headers, body = fault.status, fault.headers, b"an error"
        elif fault and fault.page:
            status, headers, body = 200, {"Content-Type": "text/html; charset=utf-8"}, PROXY_PAGE
        else:
            status, headers, body = self.loopback.answer(self.path, self.headers)
            if fault and fault.change and status == 200:
                body = fault.change(body)
            if start and status == 200 and headers.get("Accept-Ranges") and not (fault and fault.whole):
                first = int(start[1])
                headers = headers | {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"}
                status, body = (206, body[first:]) if first < len(body) else (416, b"")
        self.send_response(status)
        for name, value in ({"Content-Length": len(body)} | headers).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.cut is not None:
            self.wfile.write(body[: fault.cut])
            self.wfile.flush()
            if fault.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass
