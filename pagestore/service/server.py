"""One worker: a store opened, ports bound, calls served until it is told to stop, and then drained.

Called by `workers` (a process of its own) and, in a thread, by whoever embeds a service; calls `gate`.

1. It listens only once the store is open and checked, and health says SERVING only then.
2. Told to stop: health says NOT_SERVING, no new call is taken, streams end, calls that run may end within
   `drain` seconds, then the store is closed.
3. When the store fails for good (a flush that failed), the worker ends as if told to stop, and says so:
   who supervises it starts another, which reads the store anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import _async as aio_health
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, start_http_server

from pagestore import wire
from pagestore.opener import open_store
from pagestore.service.backend import Backend
from pagestore.service.calls.table import CALLS
from pagestore.service.gate import Gate
from pagestore.service.metrics import EngineOperations, Metrics
from pagestore.service.settings import Address, Settings, SettingsError, parse_address
from pagestore.service.sweeper import sweep
from pagestore.service.tokens import TokenFileError, Tokens
from pagestore.v1 import pagestore_pb2 as pb

_SPARE = 1 << 16
"""Bytes of a message beside what is limited: an answer is measured before it is wrapped."""

_PING_MS = 5_000
"""The shortest time between two pings of a client that has nothing to say."""

_KEEPALIVE_MS, _GONE_MS = 60_000, 20_000
"""A connection that was silent for so long is asked whether it is still there, and ended if it does not
answer: its streams would stay open."""

log = logging.getLogger("pagestore.service")


class Service:
    """A worker, in the event loop that runs `start`."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError, and what `open_store` raises."""
        settings.check()
        self.settings = settings
        self.addresses: tuple[Address, ...] = ()
        """Where it listens; ports that were 0 are known."""
        self.failed = False
        """Whether the store gave up."""
        self.registry = CollectorRegistry()
        try:
            tokens = None if settings.tokens is None else Tokens(settings.tokens)
        except TokenFileError as exc:
            raise SettingsError(str(exc)) from exc
        self._credentials = _credentials(settings)
        self._store = open_store(
            settings.store, create=settings.create, read_only=settings.read_only, timeout=settings.timeout
        )
        if not settings.read_only:
            self._store.renew(only_if_copied=True)
        metrics = Metrics(settings.metrics_namespaces, self.registry)
        self.registry.register(EngineOperations(self._store.operations))
        self.backend = Backend(self._store, settings, metrics, self._give_up)
        self._gate = Gate(self.backend, tokens)
        self._health = aio_health.HealthServicer()
        self._stop = asyncio.Event()
        self._exporter: Any = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises SettingsError if an address can't be had."""
        settings = self.settings
        server = self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_message + _SPARE),
                ("grpc.max_send_message_length", settings.max_message + _SPARE),
                ("grpc.so_reuseport", int(settings.workers > 1)),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", _PING_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", _GONE_MS),
            ]
        )
        server.add_generic_rpc_handlers((_handlers(self._gate),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if settings.reflection:
            names = (wire.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        self.addresses = tuple(self._bind(address) for address in settings.addresses)
        await server.start()
        for address in self.addresses:
            if address.is_unix:
                os.chmod(address.path, settings.socket_mode)
        if settings.metrics is not None and settings.workers == 1:
            where = parse_address(settings.metrics)
            self._exporter = start_http_server(where.port, where.host, self.registry)
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        await self._health.set(wire.SERVICE, health_pb2.HealthCheckResponse.SERVING)
        if settings.collect_every and not settings.read_only:
            self._sweeper = asyncio.create_task(sweep(self.backend, settings.collect_every))
        log.info("serving", extra={"store": settings.store, "listen": [str(one) for one in self.addresses]})

    def _bind(self, address: Address) -> Address:
        try:
            if self._credentials is None or address.is_unix:
                port = self._server.add_insecure_port(str(address))
            else:
                port = self._server.add_secure_port(str(address), self._credentials)
        except RuntimeError as exc:
            raise SettingsError(f"can't listen on {address}: {exc}") from exc
        return address if address.is_unix else Address(address.host, port)

    def stop(self) -> None:
        """In the event loop: begin to end."""
        self._stop.set()

    def _give_up(self) -> None:
        if not self.failed:
            log.critical("the store failed: this worker ends")
        self.failed = True
        self._stop.set()

    async def wait(self) -> None:
        """Serve until `stop`, then drain and close."""
        try:
            await self._stop.wait()
        finally:
            await self._drain()

    async def _drain(self) -> None:
        log.info("draining")
        self._gate.closing = True
        await self._health.enter_graceful_shutdown()
        self.backend.watching.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._server.stop(self.settings.drain)
        await self.backend.close()
        self._store.close()
        if self._exporter is not None:
            exporter, thread = self._exporter
            exporter.shutdown()
            exporter.server_close()
            thread.join()
        for address in self.addresses:
            if address.is_unix:
                with suppress(FileNotFoundError):
                    os.unlink(address.path)
        log.info("stopped")


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Certificate and key are read anew for each connection, so that they can be replaced."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    certificate, key, ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca

    def configuration() -> grpc.ServerCertificateConfiguration:
        try:
            roots = None if ca is None else _bytes(ca)
            return grpc.ssl_server_certificate_configuration([(_bytes(key), _bytes(certificate))], roots)
        except OSError as exc:
            raise SettingsError(f"a certificate can't be read: {exc}") from exc

    current = configuration()

    def again() -> grpc.ServerCertificateConfiguration:
        nonlocal current
        try:
            current = configuration()
        except SettingsError as exc:
            log.error("the certificate of before stays: %s", exc)
        return current

    return grpc.dynamic_ssl_server_credentials(current, again, require_client_authentication=ca is not None)


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _handlers(gate: Gate) -> grpc.GenericRpcHandler:
    """The calls as gRPC knows them.  Messages are taken as bytes: `gate` says what is wrong with them."""
    handlers = {}
    for method in pb.DESCRIPTOR.services_by_name["PageStore"].methods:
        request, function = GetMessageClass(method.input_type), CALLS[method.name]
        handler: grpc.RpcMethodHandler[Any, Any]
        if method.client_streaming:
            handler = grpc.stream_unary_rpc_method_handler(gate.upload(method.name, request, function))
        elif method.server_streaming:
            handler = grpc.unary_stream_rpc_method_handler(gate.stream(method.name, request, function))
        else:
            handler = grpc.unary_unary_rpc_method_handler(gate.unary(method.name, request, function))
        handlers[method.name] = handler
    return grpc.method_handlers_generic_handler(wire.SERVICE, handlers)


# ---- in a thread ----


@contextmanager
def serving(settings: Settings) -> Iterator[Service]:
    """A service in a thread of this process, for tests and tools, until the block ends."""
    ready: Future[tuple[Service, asyncio.AbstractEventLoop]] = Future()

    async def run() -> None:
        try:
            service = Service(settings)
            await service.start()
        except BaseException as exc:  # noqa: BLE001  # raised where it is waited for
            ready.set_exception(exc)
            return
        ready.set_result((service, asyncio.get_running_loop()))
        await service.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="pagestore-service")
    thread.start()
    try:
        service, loop = ready.result()
    except BaseException:
        thread.join()
        raise
    try:
        yield service
    finally:
        with suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(service.stop)
        thread.join()
