"""The way to one cloud as one principal: sign-in, connections and threads, kept by a process between its sweeps.

This is the only file that imports an SDK. Every call is bounded here, whatever the other side does: in seconds from its
first byte to its last, in bytes, and in number. No call is repeated, none follows a redirect, and nothing is registered on
the way, as the SDKs would by themselves: a POST that may have arrived is never sent a second time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import requests
from azure.core.credentials import AccessTokenInfo
from azure.core.pipeline.policies import (
    HeadersPolicy,
    HTTPPolicy,
    RequestIdPolicy,
    UserAgentPolicy,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpRequest
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    EnvironmentCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.hybridcompute import HybridComputeManagementClient
from requests.adapters import HTTPAdapter

from connectors.azure.answers import MOST_BYTES, Answer, NoAnswer, Silence, clean
from connectors.azure.configuration import CALL_SECONDS, THREADS, AzureConfiguration, Credential
from connectors.azure.resources import Resource, Type
from connectors.secrets import read_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from azure.core.pipeline import PipelineRequest, PipelineResponse

CONNECT_SECONDS = 4.0
_MOST_LINKS = 16
_MOST_CLIENTS = 64  # of one link: one for each subscription
R = TypeVar("R")
Call = Callable[["Link"], object]
Ask = Callable[[Call], Answer | NoAnswer]
Job = Callable[[Ask], R]


# azure-identity logs every request, headers and all, as news.
logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel(logging.WARNING)


class _State(threading.local):
    """What the call of this thread may still do, and what came of it."""

    deadline: float = float("inf")
    received: int = 0
    was_sent: bool = False
    answer: Answer | None = None


_STATE = _State()


class _BoundedSocket(ssl.SSLSocket):
    """A TLS connection on which one call, however slowly its bytes come, lasts no longer than it may."""

    def _limit(self) -> None:
        left = _STATE.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the call took too long")
        self.settimeout(left)

    def do_handshake(self, block: bool = False) -> None:
        self._limit()
        super().do_handshake(block)

    def send(self, data: Any, flags: int = 0) -> int:
        self._limit()
        _STATE.was_sent = True
        return super().send(data, flags)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self._limit()
        count = super().recv_into(buffer, nbytes, flags)
        _STATE.received += count
        if _STATE.received > MOST_BYTES:
            raise OSError("the answer is too large")
        return count


class _Adapter(HTTPAdapter):
    """Makes such connections, and refuses compressed answers: their size after decompression has no limit."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_connections=4, pool_maxsize=THREADS, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return super().proxy_manager_for(*args, **kwargs, ssl_context=self._context)

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        if (packed := resp.headers.get("Content-Encoding", "identity").lower()) != "identity":
            resp.close()
            raise requests.exceptions.ContentDecodingError(f"packed as {packed[:20]}")
        return super().build_response(req, resp)


class NoTokenError(Exception):
    """There is no token to be had; `cause` is what the sign-in said."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Tokens:
    """A credential of azure-identity, shared by all clients of a link."""

    def __init__(self, make: Callable[[], Any], scope: str) -> None:
        self._make = make
        self._scope = scope
        self._credential: Any = None
        self._token = ""
        self._lock = threading.Lock()

    def current(self) -> str:
        """A token that is good for some minutes at least; the credential keeps it until then. Raises NoTokenError."""
        return self.get_token_info().token

    def get_token_info(self, *_scopes: str, **_options: Any) -> AccessTokenInfo:
        """The same with its times, which makes this a credential to the SDKs; it is always for the scope of the link."""
        with self._lock:
            try:
                if self._credential is None:
                    self._credential = self._make()
                found: AccessTokenInfo = self._credential.get_token_info(self._scope)
            except Exception as error:
                raise NoTokenError(error) from error
            self._token = found.token
            return found

    def forget(self, token: str) -> None:
        """This token is not taken any more: sign in again, unless that was done meanwhile."""
        with self._lock:
            if self._token == token:
                self._credential = None


class _SignedIn(HTTPPolicy[Any, Any]):
    """Signs each request. One that ARM refused for its token was not carried out: it goes out again with a new one, once."""

    def __init__(self, tokens: _Tokens) -> None:
        super().__init__()
        self._tokens = tokens

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        token = self._tokens.current()
        request.http_request.headers["Authorization"] = f"Bearer {token}"
        response = self.next.send(request)
        if response.http_response.status_code != 401:
            return response
        self._tokens.forget(token)
        fresh = self._tokens.current()
        if fresh == token:
            return response
        request.http_request.headers["Authorization"] = f"Bearer {fresh}"
        return self.next.send(request)


class _Listener(HTTPPolicy[Any, Any]):
    """The last before the transport: keeps the whole answer, before any SDK makes something of it."""

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        _STATE.was_sent, _STATE.answer, _STATE.received = False, None, 0
        response = self.next.send(request)
        http = response.http_response
        body = http.read()
        headers = {str(name).lower(): str(value) for name, value in http.headers.items()}
        _STATE.answer = Answer(http.status_code, headers, body)
        return response


class Link:
    """Calls to one cloud as one principal. Thread-safe."""

    def __init__(self, conf: AzureConfiguration) -> None:
        self.conf = conf
        context = self._context = ssl.create_default_context(cafile=conf.ca_bundle or None)
        context.sslsocket_class = _BoundedSocket
        session = self._session = requests.Session()
        session.headers["Accept-Encoding"] = "identity"  # signing in goes by the same way
        session.mount("https://", _Adapter(context))
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._transport = RequestsTransport(
            session=session,
            session_owner=False,
            connection_timeout=CONNECT_SECONDS,
            read_timeout=CALL_SECONDS,
            connection_verify=conf.ca_bundle or True,
        )
        self._tokens = _Tokens(self._credential, conf.scope)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="azure")
        self._lock = threading.Lock()
        self._clients: OrderedDict[str, Any] = OrderedDict()
        self._plain: Any = ARMPipelineClient(
            base_url=conf.address, policies=self._policies(), transport=self._transport
        )

    def close(self) -> None:
        """End its threads as soon as their calls are over."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    # --- the SDKs

    def _credential(self) -> Any:
        conf = self.conf
        common: dict[str, Any] = {"transport": self._transport, "retry_total": 0}
        directory = common | {
            "authority": conf.authority,
            "disable_instance_discovery": not conf.is_authority_known,
        }
        named = {name: value for name, value in (("tenant_id", conf.tenant_id), ("client_id", conf.client_id)) if value}
        if conf.credential is Credential.MANAGED_IDENTITY:
            return ManagedIdentityCredential(client_id=conf.client_id or None, **common)
        if conf.credential is Credential.WORKLOAD_IDENTITY:
            return WorkloadIdentityCredential(**named, **directory)
        if conf.credential is Credential.ENVIRONMENT:
            return EnvironmentCredential(**directory)
        secret = read_secret(conf.secret or "").reveal()
        if conf.credential is Credential.CLIENT_SECRET:
            return ClientSecretCredential(client_secret=secret, **named, **directory)
        return CertificateCredential(certificate_data=secret.encode(), **named, **directory)

    def _policies(self) -> list[Any]:
        return [
            RequestIdPolicy(),
            HeadersPolicy({"Accept-Encoding": "identity"}),
            UserAgentPolicy("hotpatch-portal"),
            _SignedIn(self._tokens),
            _Listener(),
        ]

    def _client(self, maker: Any, subscription_id: str) -> Any:
        key = f"{maker.__name__}/{subscription_id}"
        with self._lock:
            if key not in self._clients:
                self._clients[key] = maker(
                    self._tokens,
                    subscription_id,
                    base_url=self.conf.address,
                    policies=self._policies(),
                    transport=self._transport,
                )
                while len(self._clients) > _MOST_CLIENTS:
                    self._clients.popitem(last=False)
            self._clients.move_to_end(key)
            return self._clients[key]

    def compute(self, subscription_id: str) -> Any:
        """The virtual machines of a subscription: `ComputeManagementClient.virtual_machines`."""
        return self._client(ComputeManagementClient, subscription_id).virtual_machines

    def hybrid(self, subscription_id: str) -> Any:
        """The machines outside of Azure in a subscription: `HybridComputeManagementClient`."""
        return self._client(HybridComputeManagementClient, subscription_id)

    def licenses(self, resource: Resource) -> Any:
        """The licence profiles of the subscription that this machine outside of Azure is in."""
        return self.hybrid(resource.subscription).license_profiles

    def patching(self, resource: Resource) -> Any:
        """What assesses and patches a machine of this kind."""
        if resource.type is Type.ARC_MACHINE:
            return self.hybrid(resource.subscription).machines
        return self.compute(resource.subscription)

    def machine(self, resource: Resource) -> object:
        """GET a machine, with its instance view."""
        if resource.type is Type.ARC_MACHINE:
            return self.hybrid(resource.subscription).machines.get(resource.group, resource.name)
        return self.compute(resource.subscription).get(resource.group, resource.name, expand="instanceView")

    def get(self, address: str) -> object:
        """GET this address, whole or from the slash on."""
        return self._plain.send_request(HttpRequest("GET", self._whole(address)))

    def post(self, address: str, body: object) -> object:
        """POST this body to an address."""
        return self._plain.send_request(HttpRequest("POST", self._whole(address), json=body))

    def _whole(self, address: str) -> str:
        return f"{self.conf.address}{address}" if address.startswith("/") else address

    # --- what a call goes through

    def token_ends_at(self) -> float:
        """When the token that calls carry is good no more, in seconds since 1970. Ask after a call. Raises NoTokenError."""
        return float(self._tokens.get_token_info().expires_on)

    def handshake(self, *, deadline: float) -> tuple[str, dict[str, Any]] | None:
        """Connect as a call does and say nothing: the version of TLS, and the certificate. Raises OSError.

        None where a proxy stands between, which has its own.
        """
        if requests.utils.get_environ_proxies(self.conf.address).get("https"):
            return None
        found = urlsplit(self.conf.address)
        host = found.hostname or ""
        with (
            _bounded(deadline),
            socket.create_connection((host, found.port or 443), CONNECT_SECONDS) as plain,
            self._context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            return secured.version() or "", dict(secured.getpeercert() or {})

    # --- calls

    def each(self, jobs: Sequence[Job[R]], *, deadline: float) -> list[R | NoAnswer]:
        """Do these jobs, some side by side; what came of each, in their order, when all are done or `deadline` is over.

        A job gets `ask`, by which it makes its calls one after the other. `deadline` is by `time.monotonic()`: no call
        begins after it. A job that is not done by then, or that fails, has no answer.
        """
        futures = [self._pool.submit(job, self._asking(deadline)) for job in jobs]
        # Nothing limits how long a name takes to resolve: the thread ends by itself, and sends nothing.
        wait(futures, timeout=max(0.0, deadline - time.monotonic()) + 0.2)
        return [_outcome(future) for future in futures]

    def one(self, call: Call, *, deadline: float) -> Answer | NoAnswer:
        """Make one call; see `each`."""
        (answer,) = self.each([lambda ask: ask(call)], deadline=deadline)
        return answer

    def _asking(self, deadline: float) -> Ask:
        return lambda call: self._call(call, deadline)

    def _call(self, call: Call, deadline: float) -> Answer | NoAnswer:
        """Make one call in this thread."""
        if time.monotonic() >= deadline:
            return NoAnswer(Silence.TOO_LONG, was_sent=False)
        with _bounded(deadline) as state:
            try:
                call(self)
            except NoTokenError as error:
                return _not_signed_in(error)
            except Exception as error:  # the SDKs raise of their own what an answer says; it is read from the answer
                if state.answer is None:
                    return _silence(error, state)
            return state.answer or NoAnswer(Silence.CUT_OFF, was_sent=state.was_sent)


def _outcome(future: Future[Any]) -> Any:
    if future.cancel():
        return NoAnswer(Silence.TOO_LONG, was_sent=False)
    if not future.done():
        return NoAnswer(Silence.TOO_LONG, was_sent=True)
    error = future.exception()
    if error is not None:
        return NoAnswer(Silence.CUT_OFF, was_sent=True, detail=clean(f"{type(error).__name__}: {error}")[:300])
    return future.result()


@contextmanager
def _bounded(deadline: float) -> Iterator[_State]:
    _STATE.deadline = min(deadline, time.monotonic() + CALL_SECONDS)
    _STATE.was_sent, _STATE.answer, _STATE.received = False, None, 0
    try:
        yield _STATE
    finally:
        _STATE.deadline, _STATE.answer = float("inf"), None


def _silence(error: Exception, state: _State) -> NoAnswer:
    """Why no answer came, by what happened on the connection and not by what the SDKs take it for."""
    detail = clean(f"{type(error).__name__}: {error}")[:300]
    if time.monotonic() >= state.deadline or _is_time_out(error):
        return NoAnswer(Silence.TOO_LONG, state.was_sent, detail)
    return NoAnswer(Silence.CUT_OFF if state.was_sent else Silence.UNREACHED, state.was_sent, detail)


def _is_time_out(error: BaseException | None) -> bool:
    """Whether this error, or what led to it, is that something took too long."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, TimeoutError | requests.exceptions.Timeout):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def _not_signed_in(error: NoTokenError) -> NoAnswer:
    cause: Any = error.cause
    said = getattr(cause, "message", "") or str(cause)
    response = getattr(cause, "response", None)
    status = getattr(response, "status_code", None)
    is_temporary = _is_time_out(cause) or response is None or status == 429 or (status or 0) >= 500
    refused = clean(str(said).splitlines()[0] if said else type(cause).__name__)[:500]
    return NoAnswer(Silence.SIGN_IN, was_sent=False, detail=refused, retry_after=60.0 if is_temporary else None)


# --- links that a process keeps ---------------------------------------------------------------------------------------

_LINKS: OrderedDict[tuple[int, AzureConfiguration, str], Link] = OrderedDict()
_LOCK = threading.Lock()


def link_for(conf: AzureConfiguration) -> Link:
    """The link of this configuration. Raises SecretMissingError; a secret that was changed makes a new one."""
    mark = ""
    if conf.credential in {Credential.CLIENT_SECRET, Credential.CERTIFICATE}:
        mark = hashlib.sha256(read_secret(conf.secret or "").reveal().encode()).hexdigest()
    key = (os.getpid(), conf, mark)
    with _LOCK:
        if key not in _LINKS:
            _LINKS[key] = Link(conf)
            while len(_LINKS) > _MOST_LINKS:
                _LINKS.popitem(last=False)[1].close()
        _LINKS.move_to_end(key)
        return _LINKS[key]
