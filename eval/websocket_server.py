"""openpi's websocket transport: metadata first, then an answer per observation; an error is a text frame."""

import asyncio
import http

import websockets
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from eval import wire
from eval.responder import Refusal, Responder, Work
from eval.worker import Answer, Full, Job, Worker
from eval.zmq_server import DRAIN_S, STALE, AddressError

CLIENTS = 64
"""Connections at once; more are refused with 503."""
TICK_S = 0.05
KEY = "Api-Key "


class Server:
    """As the ZMQ one: `run` until `responder.stop` is set."""

    def __init__(self, responder: Responder, worker: Worker, *, host: str, port: int, timeout_s: float):
        """port 0: a free one. timeout_s: after which a request that waits is answered with an error."""
        self.responder, self.worker, self._timeout = responder, worker, timeout_s
        self._host, self._port, self._clients, self._asked = host, port, 0, 0
        self._loop = asyncio.new_event_loop()
        try:
            self._server = self._loop.run_until_complete(self._listen())
        except OSError as error:
            self._loop.close()
            raise AddressError(f"cannot listen on {host} port {port} ({error}): choose another --port") from error
        found = self._server.sockets[0].getsockname()[1]
        self.url = f"ws://{f'[{host}]' if ':' in host else host}:{found}"

    def run(self) -> None:
        """Serve until stopped."""
        self._loop.run_until_complete(self._until_stopped())

    def close(self) -> None:
        """Free the sockets, whether it ran or not."""
        self._server.close()
        self._loop.run_until_complete(self._server.wait_closed())
        self._loop.close()

    async def _listen(self):
        limits = self.responder.rules.limits
        return await serve(
            self._client,
            self._host,
            self._port,
            compression=None,
            max_size=limits.max_bytes + 1024,  # up to it, and beyond max_bytes, the error comes in words
            max_queue=2,
            process_request=self._admit,
        )

    async def _until_stopped(self) -> None:
        while not self.responder.stop.is_set():
            await asyncio.sleep(TICK_S)
        for _ in range(int(DRAIN_S / TICK_S)):
            if not self._asked:
                break
            await asyncio.sleep(TICK_S)
        self._server.close()
        await self._server.wait_closed()

    def _admit(self, connection: ServerConnection, asked: Request) -> Response | None:
        if asked.path == "/healthz":
            if self.responder.metrics.stuck():
                return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "stuck\n")
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if not self.responder.admits(asked.headers.get("Authorization", "").removeprefix(KEY)):
            self.responder.metrics.failed("unauthorized")
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "wrong or no Api-Key\n")
        if self._clients >= CLIENTS:
            self.responder.metrics.failed("busy")
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{CLIENTS} clients are connected\n")
        return None

    async def _client(self, connection: ServerConnection) -> None:
        self._clients += 1
        try:
            await connection.send(wire.pack(self.responder.metadata(), "openpi"))
            async for message in connection:
                self._asked += 1
                try:
                    await connection.send(await self._answer(message, connection.id))
                finally:
                    self._asked -= 1
        except websockets.ConnectionClosed:
            pass
        finally:
            self._clients -= 1
            self.responder.forget(connection.id)

    async def _answer(self, message: str | bytes, session: object) -> str | bytes:
        """Bytes; a text where it is an error."""
        if isinstance(message, str):
            answer = Refusal("malformed", "expected a binary frame of msgpack, got text")
        elif self.responder.stop.is_set():
            answer = Refusal("stopping", "the server is stopping")
        else:
            answer = self.responder.take_openpi(message, session)
        if callable(answer):
            answer = await self._wait(answer)
        if isinstance(answer, Refusal):
            self.responder.metrics.failed(answer.kind)
            return str(answer)
        return answer

    async def _wait(self, work: Work) -> Answer:
        future = self._loop.create_future()
        tell = lambda answer: self._loop.call_soon_threadsafe(_settle, future, answer)  # noqa: E731
        job = Job(lambda: self.responder.attempt(work), tell)
        try:
            self.worker.submit(job)
            return await asyncio.wait_for(future, self._timeout)
        except Full as full:
            return Refusal("busy", str(full))
        except TimeoutError:
            job.dropped = True
            return Refusal("timeout", STALE.format(self._timeout))


def _settle(future: asyncio.Future, answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)
