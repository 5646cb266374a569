"""The peer of the service's figures: an empty unary call, of any size.  `python -m bench.echo ADDRESS`.

The first four bytes of a request say how many bytes the answer has; nothing else is done.  It is served as
the page-store service is: grpc.aio, one event loop.
"""

from __future__ import annotations

import asyncio
import sys

from pagestore import poller

poller.choose()

import grpc  # noqa: E402

SERVICE, NAME = "bench.Echo", "Call"
METHOD = f"/{SERVICE}/{NAME}"
HEAD = 4


async def _call(request: bytes, _context: object) -> bytes:
    return bytes(int.from_bytes(request[:HEAD], "big"))


async def serve(address: str) -> None:
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_call)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {NAME: handler}),))
    port = server.add_insecure_port(address)
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
