"""A Kubeflow Pipelines API server of one process: v2beta1 over HTTP, no cluster behind it. What it does is in kfp_api_actions.

To try the commands by hand: python tests/kfp_api_server.py
"""

import dataclasses
import email.parser
import email.policy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kfp_api_actions import API, Refused, Request, State, route


@contextmanager
def serve() -> Iterator[State]:
    """Yields the state of a server on the loopback; it ends with the block."""
    state = State()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65536  # one packet for an answer: two would wait for each other's acknowledgement

        def answer(self) -> None:
            status, kind, content = _answer(state, self)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(state: State, handler: BaseHTTPRequestHandler) -> tuple[int, str, bytes]:
    url = urlsplit(handler.path)
    content = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    if state.login_page:
        return 200, "text/html; charset=utf-8", b"<html>Sign in</html>"
    try:
        body = _body(handler.headers.get("Content-Type", ""), content)
        request = Request(handler.command, url.path, dict(parse_qsl(url.query)), body)
        state.log.append(request)
        state.authorizations.append(handler.headers.get("authorization"))
        for prefix, statuses in state.fail.items():
            if statuses and f"{request.method} {request.path.removeprefix(API)}".startswith(prefix):
                raise Refused(statuses.pop(0), "made to fail")
        if state.token and handler.headers.get("authorization") != f"Bearer {state.token}":
            raise Refused(401, "Request header error: there is no user identity header.")
        answer = route(state, request)
        return 200, "application/json", json.dumps(answer).encode()
    except Refused as refused:
        answer = {"error": refused.message, "message": refused.message, "code": 3, "details": []}
        return refused.status, "application/json", json.dumps(answer).encode()


def _body(kind: str, content: bytes) -> Any:
    if kind.startswith("multipart/form-data"):
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
            f"Content-Type: {kind}\r\n\r\n".encode() + content
        )
        (part,) = message.iter_parts()
        if part.get_param("name", header="content-disposition") != "uploadfile" or not str(part.get_filename()).endswith(".yaml"):
            raise Refused(400, "Failed to read pipeline from file")
        return part.get_payload(decode=True).decode()
    return json.loads(content) if content else None


@dataclasses.dataclass(frozen=True)
class Done:
    """How a command line ended."""

    code: int
    out: str
    error: str


if __name__ == "__main__":
    import time

    with serve() as by_hand:
        print(by_hand.url, flush=True)  # noqa: T201
        while True:
            time.sleep(1)
