"""A real HTTP server of one file on the loopback, which can misbehave on demand."""

import http.server
import socket
import threading

import pytest

CONTENT = bytes(i * 37 % 251 for i in range(700_000))


class Server(http.server.ThreadingHTTPServer):
    """A server of one file that can misbehave on demand and remembers what it was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = CONTENT, '"v1"'
        self.asked = []  # the Range header of every request
        self.sent = 0
        self.ranges = True
        self.cut_after = []  # bytes of the body after which to drop the connection, one a request
        self.statuses = []  # answers to give before any content
        self.wrong_start = False

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}/data/file.bin"

    def handle_error(self, request, client_address):
        pass  # broken pipes are what the tests are about


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if server.statuses:
            status = server.statuses.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, start = server.content, 0
        condition = self.headers.get("If-Range")
        if wanted and server.ranges and condition in (None, server.etag):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            claimed = start + 1 if server.wrong_start else start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {claimed}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        body = body[start:]
        self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        cut = server.cut_after.pop(0) if server.cut_after else None
        self.wfile.write(body[:cut])
        self.wfile.flush()
        server.sent += len(body[:cut])
        if cut is not None:
            self.connection.shutdown(socket.SHUT_RDWR)  # for real: the client sees the connection end midway
            self.close_connection = True


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
