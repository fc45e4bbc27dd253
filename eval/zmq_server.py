"""GR00T's ZMQ transport: a ROUTER socket that any number of REQ clients talk to, and no client can block.

It is for peers that are trusted to connect. libzmq limits the bytes of a frame and the whole messages that wait, not
the frames of one message: a peer that never ends its message fills the memory before a token is looked at.
"""

import contextlib
import dataclasses
import itertools
import struct
import time

import zmq

from eval.responder import Refusal, Responder, Work
from eval.worker import Answer, Full, Job, Worker

TICK_MS = 50
"""How often a stop and the deadlines are looked at."""
CLIENT_QUEUE = 4
"""Whole messages kept per client before its own connection makes it wait; a REQ client has one."""
DRAIN_S = 10.0
LINGER_MS = 1000
STALE = "no answer within {:g} s (--timeout-s): the observation is stale, send a new one"


class AddressError(ValueError):
    """The server cannot listen there."""


@dataclasses.dataclass
class Waiting:
    """A client whose answer is being made: its envelope, and until when it is waited for (monotonic seconds)."""

    envelope: list[bytes]
    until: float
    job: Job


class Server:
    """Receives, answers at once what needs no policy, and passes the rest to the worker. `run` until `responder.stop`
    is set; then everything that was asked is answered and the socket closed."""

    def __init__(self, responder: Responder, worker: Worker, *, host: str, port: int, timeout_s: float):
        """port 0: a free one. timeout_s: after which a request that waits is answered with an error."""
        self.responder, self.worker, self._timeout = responder, worker, timeout_s
        self._context = zmq.Context()
        self._router = self._listen(host, port)
        self.url = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._made, self._make = self._context.socket(zmq.PULL), self._context.socket(zmq.PUSH)
        self._made.bind("inproc://made")
        self._make.connect("inproc://made")
        self._waiting: dict[int, Waiting] = {}
        self._answers: dict[int, Answer] = {}
        self._numbers = itertools.count()

    def run(self) -> None:
        """Serve until stopped."""
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._made, zmq.POLLIN)
        try:
            drain = None
            while drain is None or (self._waiting and time.monotonic() < drain):
                ready = dict(poller.poll(TICK_MS))
                if self._made in ready:
                    self._deliver()
                if self._router in ready:
                    self._receive()
                self._expire()
                if drain is None and self.responder.stop.is_set():
                    drain = time.monotonic() + min(DRAIN_S, self._timeout)
            self._refuse_rest()
        finally:
            self._router.close(LINGER_MS)
            self._made.close(0)

    def close(self) -> None:
        """Free the sockets, whether it ran or not, once the worker has ended; with a policy that hangs, they end with
        the process."""
        if not self.worker.alive:
            for socket in (self._router, self._made, self._make):  # an open one would keep `term` waiting for ever
                socket.close(0)
            self._context.term()

    def _listen(self, host: str, port: int) -> zmq.Socket:
        router = self._context.socket(zmq.ROUTER)
        limits = self.responder.rules.limits
        # A larger frame and libzmq cuts the peer off; up to it, and beyond max_bytes, it gets an error in words. How
        # many frames a message has, libzmq does not limit, and RCVHWM counts messages that are whole.
        router.setsockopt(zmq.MAXMSGSIZE, limits.max_bytes + 1024)
        router.setsockopt(zmq.RCVHWM, CLIENT_QUEUE)
        router.setsockopt(zmq.SNDHWM, 16 * CLIENT_QUEUE)
        router.setsockopt(zmq.HEARTBEAT_IVL, 10_000)  # a client that died without a word is forgotten
        router.setsockopt(zmq.HEARTBEAT_TIMEOUT, 30_000)
        router.setsockopt(zmq.IPV6, int(":" in host))
        try:
            router.bind(f"tcp://{f'[{host}]' if ':' in host else host}:{port or '*'}")
        except zmq.ZMQError as error:
            router.close(0)
            self._context.term()
            raise AddressError(f"cannot listen on {host} port {port} ({error}): choose another --port") from error
        return router

    def _receive(self) -> None:
        """One message, so that answers go out between messages of a client that floods."""
        *envelope, data = self._router.recv_multipart()
        if self.responder.stop.is_set():
            return self._answer(envelope, Refusal("stopping", "the server is stopping"))
        answer = self.responder.take(data, envelope[0])
        return self._queue(envelope, answer) if callable(answer) else self._answer(envelope, answer)

    def _queue(self, envelope: list[bytes], work: Work) -> None:
        number = next(self._numbers)
        job = Job(lambda: self.responder.attempt(work), lambda answer: self._finish(number, answer))
        try:
            self.worker.submit(job)
        except Full as full:
            return self._answer(envelope, Refusal("busy", str(full)))
        self._waiting[number] = Waiting(envelope, time.monotonic() + self._timeout, job)
        return None

    def _finish(self, number: int, answer: Answer) -> None:
        """In the worker's thread, the only one that uses this end of the pipe; it wakes the other."""
        self._answers[number] = answer
        with contextlib.suppress(zmq.ZMQError):  # the server has ended
            self._make.send(struct.pack("<Q", number), zmq.DONTWAIT)

    def _deliver(self) -> None:
        (number,) = struct.unpack("<Q", self._made.recv())
        answer, waiting = self._answers.pop(number), self._waiting.pop(number, None)
        if waiting:
            self._answer(waiting.envelope, answer)

    def _expire(self) -> None:
        now = time.monotonic()
        for number, waiting in list(itertools.takewhile(lambda item: item[1].until < now, self._waiting.items())):
            waiting.job.dropped = True
            del self._waiting[number]
            self._answer(waiting.envelope, Refusal("timeout", STALE.format(self._timeout)))

    def _refuse_rest(self) -> None:
        for waiting in self._waiting.values():
            self._answer(waiting.envelope, Refusal("stopping", "the server has stopped"))
        while self._router.poll(0):
            *envelope, _ = self._router.recv_multipart()
            self._answer(envelope, Refusal("stopping", "the server has stopped"))

    def _answer(self, envelope: list[bytes], answer: Answer) -> None:
        """Never waits: what a client that has gone does not take is dropped."""
        data = self.responder.error(answer) if isinstance(answer, Refusal) else answer
        try:
            self._router.send_multipart([*envelope, data], zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
