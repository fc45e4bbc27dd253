"""The server's core, without sockets: a message's bytes in, its answer out, or the work that will make the answer."""

import dataclasses
import hmac
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from eval import request, sessions, wire
from eval.metrics import Metrics
from eval.request import Asked
from eval.sessions import Options

LOG = logging.getLogger(__name__)
ENDPOINTS = ("ping", "kill", "get_action", "get_modality_config", "reset", "health", "metrics")


class Refusal(Exception):
    """An answer that is an error: its kind (for the metrics) and text."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind


@dataclasses.dataclass(frozen=True)
class Rules:
    """What is answered, and to whom."""

    protocol: wire.Protocol = "n1.5"
    token: str = ""
    allow_kill: bool = False
    atp: float | None = None
    """Compute budget per observation; None: what the artifact says."""
    max_batch: int = 1
    """Observations per request; every number of them is compiled once, by `Responder.warm`."""
    limits: wire.Limits = wire.Limits()  # noqa: RUF009 - frozen


Found = TypeVar("Found")
Work = Callable[[], bytes]
"""Asks the policy and gives the answer; for the one thread that may."""


class Responder:
    """Answers messages with a policy (`meta` and `act`, as eval/policy.py has them). `take` is for one thread,
    the work that it returns for another."""

    def __init__(self, policy: Any, rules: Rules, metrics: Metrics):
        if not policy.meta.get("actions"):
            raise request.RequestError("this artifact gives no actions; serve one of a student that acts on a robot")
        self.policy, self.rules, self.metrics = policy, rules, metrics
        self.form = request.Form(policy.meta, max_batch=rules.max_batch)
        self.stop = threading.Event()
        self._sessions = sessions.Sessions()

    def warm(self) -> None:
        """Answer black pictures, every number that may be asked at once, so that no client waits for the compiler."""
        for batch in range(1, self.rules.max_batch + 1) if self.form.size else ():
            self.policy.act(self.form.blank(batch), atp=self.rules.atp)

    def take(self, data: bytes, session: Any) -> bytes | Work | Refusal:
        """The answer of one GR00T message, or the work that makes it. Never raises."""
        return self.attempt(lambda: self._open(data, session))

    def take_openpi(self, data: bytes, session: Any) -> bytes | Work | Refusal:
        """The same for an openpi message: an observation, or {"reset": {atp, seed}}."""
        return self.attempt(lambda: self._open_openpi(data, session))

    def attempt(self, make: Callable[[], bytes | Work]) -> bytes | Work | Refusal:
        """What `make` gives, or why it cannot."""
        try:
            return make()
        except Refusal as refusal:
            return refusal
        except Exception as error:  # whatever it is, the next client must be answered
            LOG.exception("a message could not be answered")
            return Refusal("internal", f"internal error ({type(error).__name__}); see the server's log")

    def error(self, refusal: Refusal) -> bytes:
        """The error as GR00T's clients read it; counted."""
        self.metrics.failed(refusal.kind)
        return wire.pack({"error": str(refusal)}, self.rules.protocol)

    def forget(self, session: Any) -> None:
        """The client has gone."""
        self._sessions.forget(session)

    def _open(self, data: bytes, session: Any) -> bytes | Work:
        value = self._unpack(data)
        if not isinstance(value, dict):
            raise Refusal("malformed", f"expected a map with endpoint and data, got {type(value).__name__}")
        self._check_token(value.get("api_token"))
        if extra := set(value) - {"endpoint", "data", "api_token"}:
            raise Refusal("malformed", f"expected endpoint, data and api_token, got {min(map(repr, extra)):.60} too")
        endpoint = value.get("endpoint", "get_action")
        known = isinstance(endpoint, str) and endpoint in ENDPOINTS  # an array is equal to nothing in one word
        if not known or (endpoint == "reset" and self.rules.protocol == "n1.5"):
            wanted = ", ".join(ENDPOINTS)
            raise Refusal("malformed", f"endpoint: expected one of {wanted}, got {request.kind(endpoint)}")
        self.metrics.asked(endpoint)
        if endpoint == "get_action":
            return self._action(value.get("data"), session)
        answers = {
            "ping": lambda: {"status": "ok", "message": "Server is running"},
            "health": self.health,
            "metrics": self.metrics.snapshot,
            "get_modality_config": self.modalities,
            "reset": lambda: self._reset(value.get("data"), session),
            "kill": self._kill,
        }
        return wire.pack(answers[endpoint](), self.rules.protocol)

    def _open_openpi(self, data: bytes, session: Any) -> bytes | Work:
        value = self._unpack(data)
        if isinstance(value, dict) and set(value) == {"reset"}:
            self.metrics.asked("reset")
            return wire.pack(self._reset({"options": value["reset"]}, session), "openpi")
        self.metrics.asked("get_action")
        return self._work(self._checked(lambda: self.form.openpi(value)), self._sessions.of(session))

    def _unpack(self, data: bytes) -> Any:
        try:
            return wire.unpack(data, self.rules.protocol, self.rules.limits)
        except wire.WireError as error:
            self.metrics.asked("unreadable")
            raise Refusal("malformed", str(error)) from error

    def admits(self, token: Any) -> bool:
        """Whether a client's token is the server's, in a time that does not depend on how alike they are."""
        given = token.encode(errors="replace") if isinstance(token, str) else b""
        return hmac.compare_digest(given, self.rules.token.encode()) if self.rules.token else True

    def _check_token(self, token: Any) -> None:
        if not self.admits(token):
            raise Refusal("unauthorized", "Unauthorized: Invalid API token")

    def _kill(self) -> dict:
        if not self.rules.allow_kill:
            raise Refusal("refused", "kill is off; start the server with --allow-kill, or stop it where it runs")
        self.stop.set()
        return {"status": "ok", "message": "Server stops"}

    def health(self) -> dict:
        """Whether it serves, and what; "stuck" while the policy has not come back for far too long."""
        meta = self.policy.meta
        origin = {key: meta[key] for key in ("embodiment", "preset", "digest") if isinstance(meta.get(key), str)}
        state = "stopping" if self.stop.is_set() else "stuck" if self.metrics.stuck() else "ok"
        return {"status": state, "protocol": self.rules.protocol, "queue": self.metrics.depth()} | origin

    def modalities(self) -> dict[str, wire.Modality]:
        """What is read and given, as GR00T's `get_modality_config` says it."""
        form, horizon = self.form, int(self.policy.meta["horizon"])
        full = self.rules.protocol == "n1.5"  # N1.6 groups keys by modality, without prefix
        keys = lambda name, parts: [f"{name}.{part}" if full else part for part in parts]  # noqa: E731
        found = {
            "video": wire.Modality(list(range(1 - form.times, 1)), keys("video", form.views)),
            "state": wire.Modality([0], keys("state", form.state)),
            "action": wire.Modality(list(range(horizon)), keys("action", self.policy.meta["actions"])),
        }
        return found | ({"language": wire.Modality([0], [request.LANGUAGE])} if form.reads else {})

    def metadata(self) -> dict:
        """The first message of an openpi connection."""
        meta = self.policy.meta
        parts = {"state": dict(meta["state"] or {}), "actions": dict(meta["actions"])}
        return self.health() | parts | {"horizon": int(meta["horizon"]), "keys": self.form.openpi_keys()}

    def _reset(self, data: Any, session: Any) -> dict:
        options = data.get("options") if isinstance(data, dict) else None
        self._checked(lambda: self._sessions.reset(session, options))
        return {"status": "ok"}

    def _action(self, data: Any, session: Any) -> Work:
        kept = self._sessions.of(session)
        if self.rules.protocol == "n1.5":
            return self._work(self._checked(lambda: self.form.flat(data)), kept)
        if not isinstance(data, dict) or "observation" not in data or not set(data) <= {"observation", "options"}:
            raise Refusal("malformed", "data: expected {observation, options}, as GR00T N1.6's client sends it")
        options = self._checked(lambda: sessions.read(data.get("options"), kept))
        return self._work(self._checked(lambda: self.form.nested(data["observation"])), options)

    def _checked(self, read: Callable[[], Found]) -> Found:
        try:
            return read()
        except request.RequestError as error:
            raise Refusal("malformed", str(error)) from error

    def _work(self, asked: Asked, options: Options) -> Work:
        came = time.monotonic()

        def work() -> bytes:
            answer = self._answer(asked, options, came)
            self.metrics.took("reply", time.monotonic() - came)
            return answer

        return work

    def _answer(self, asked: Asked, options: Options, came: float) -> bytes:
        began = time.monotonic()
        try:
            atp = self.rules.atp if options.atp is None else options.atp
            said = self.policy.act(asked.observation, atp=atp, seed=options.seed)
        except ValueError as error:  # eval.policy's InputError
            raise Refusal("malformed", str(error)) from error
        spent = time.monotonic() - began
        self.metrics.took("policy", spent)
        actions = {part: np.asarray(values, np.float32) for part, values in said.actions.items()}
        if wrong := [part for part, values in actions.items() if not np.isfinite(values).all()]:
            raise Refusal("internal", f"action.{wrong[0]}: the policy gave NaN or infinite values, which are not sent")
        timing = {"infer_ms": spent * 1e3, "wait_ms": (began - came) * 1e3}
        return wire.pack(self._form(asked, actions, said, timing), self.rules.protocol)

    def _form(self, asked: Asked, actions: dict[str, np.ndarray], said: Any, timing: dict) -> Any:
        rows = actions if asked.batched else {part: values[0] for part, values in actions.items()}
        if self.rules.protocol == "openpi":
            return {"actions": np.concatenate(list(rows.values()), axis=-1), "server_timing": timing}
        found = {f"action.{part}" if asked.prefixed else part: values for part, values in rows.items()}
        if self.rules.protocol == "n1.5":
            return found
        steps = {module: np.asarray(taken).tolist() for module, taken in said.steps.items()}
        sure = {"confidence": np.asarray(said.confidence).tolist(), "atp": np.asarray(said.atp).tolist()}
        return [found, sure | {"steps": steps, "server_timing": timing}]
