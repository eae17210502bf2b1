"""The way to a Kubeflow Pipelines API server.

Comes in: where it is and a token. Goes out: a client that answers in time, or one sentence that says why not.
"""

import contextlib
import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kfp.client
import urllib3.exceptions
from kfp_server_api.exceptions import ApiException

from adabert_core.errors import UserError
from pipelines.tunnel import Tunnel

HEALTH_TIMEOUT = (5.0, 10.0)  # seconds to connect and to the answer; urllib3 tries four times
TIMEOUT_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Remote:
    """An API server that has answered. `namespace` is None on a server with one user, `page` the base of links or ''."""

    client: kfp.Client
    namespace: str | None
    page: str
    revive: Callable[[], None]


class _Client(kfp.Client):
    """The one override: kfp asks a server's health five times, five seconds apart, with a traceback on the log for each."""

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        return self._healthz_api.healthz_service_get_healthz(_request_timeout=HEALTH_TIMEOUT)


@contextlib.contextmanager
def connect(endpoint: str, port_forward: str, namespace: str, token_file: Path | None) -> Iterator[Remote]:
    """Yields the server at `endpoint`, or behind a port-forward to SERVICE[:PORT]/NAMESPACE that ends with the block.

    The token is that of the file, read again for every request, or of the environment variable KFP_EXISTING_TOKEN.

    Raises:
        UserError: no usable place or token is given; also for whatever the server refuses inside the block.
    """
    if not (endpoint or port_forward):
        raise UserError("say where Kubeflow Pipelines is: --endpoint URL or --port-forward ml-pipeline/NAMESPACE.")
    if not port_forward and not endpoint.startswith(("http://", "https://")):
        raise UserError(f"--endpoint {endpoint}: write it with http:// or https://.")
    if token_file and not _holds_text(token_file):
        raise UserError(f"--token {token_file}: no such file, or no token in it that can be read.")
    with contextlib.ExitStack() as stack:
        tunnel = stack.enter_context(Tunnel(port_forward)) if port_forward else None
        host = tunnel.url if tunnel else endpoint.rstrip("/")
        stack.enter_context(one_sentence(host, namespace))
        client = _open(host, namespace, token_file)
        health = client.get_kfp_healthz()
        if "json" not in str(client._healthz_api.api_client.last_response.getheader("content-type")):
            raise UserError(f"{host} answers with a page, not as an API: it wants a login; give a token with --token FILE.")
        namespace = namespace or client.get_user_namespace()
        if health.multi_user and not namespace:
            raise UserError(f"{host} serves several users: say in whose namespace with --namespace.")
        page = os.environ.get("KF_PIPELINES_UI_ENDPOINT") or ("" if tunnel else host)
        yield Remote(client, namespace or None, page, tunnel.revive if tunnel else lambda: None)


def _holds_text(file: Path) -> bool:
    try:
        return bool(file.read_text().strip())
    except (OSError, ValueError):
        return False


def _open(host: str, namespace: str, token_file: Path | None) -> _Client:
    credentials = kfp.client.ServiceAccountTokenVolumeCredentials(str(token_file)) if token_file else None
    token = None if token_file else os.environ.get("KFP_EXISTING_TOKEN")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not made for Kubeflow Pipelines 1
        client = _Client(host, namespace=namespace or "kubeflow", existing_token=token, credentials=credentials)
    pool = client._healthz_api.api_client.rest_client.pool_manager
    send = pool.request
    # kfp sets no timeout: a server that takes a connection and then says nothing would hold this process for ever.
    pool.request = lambda *args, **options: send(*args, **{**options, "timeout": options.get("timeout") or TIMEOUT_SECONDS})
    return client


@contextlib.contextmanager
def one_sentence(host: str, namespace: str) -> Iterator[None]:
    """Turns what the network or the server refuses inside the block into a UserError of one sentence."""
    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        reason = str(getattr(error, "reason", None) or error).split(": ")[-1]
        raise UserError(
            f"{host} does not answer ({reason}): check --endpoint, or go through --port-forward ml-pipeline/NAMESPACE."
        ) from error
    except ApiException as error:
        status = error.status or 0
        where = f"namespace {namespace}" if namespace else "no namespace given"
        advice = {
            401: "; give a valid token with --token FILE or KFP_EXISTING_TOKEN",
            403: f"; ask for the right to do that, or give another --namespace ({where})",
            404: f"; check --endpoint and --namespace ({where})",
        }.get(status, "; try again later" if status >= 500 else "")
        raise UserError(f"{host} refused ({status} {error.reason}){_reason(error)}{advice}.") from error


def _reason(error: ApiException) -> str:
    """What the server says beside the status, after a colon and in one line; nothing for an HTML page."""
    body = error.body or ""
    try:
        answer = json.loads(body)
        body = str(answer.get("message") or answer.get("error") or answer.get("error_message") or "")
    except (ValueError, AttributeError):
        body = "" if body.lstrip().startswith("<") else body
    return f": {' '.join(body.split())[:300]}".rstrip(" .:")


def pages(fetch: Callable[..., Any], field: str, **query: Any) -> Iterator[Any]:
    """Yields the `field` of every page of a listing."""
    token = ""
    while True:
        answer = fetch(page_token=token, page_size=100, **query)
        yield from getattr(answer, field) or []
        token = answer.next_page_token
        if not token:
            return


def named(name: str) -> str:
    """Returns the listing filter for a display name; servers may compare without case, so compare again."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
