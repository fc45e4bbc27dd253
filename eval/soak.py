"""Requests by the thousand, good and bad, and what became of each: nothing may be lost, mixed up or left unanswered."""

import concurrent.futures
import dataclasses
import io
import pickle
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy as np

from eval import client

TICK = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Question:
    """An observation of the wire and the answer that is right for it, `action.PART` [h, d]."""

    observation: dict
    answer: dict[str, np.ndarray]


def questions(policy: Any, form: Any, *, count: int, seed: int = 0, atp: float | None = None) -> list[Question]:
    """Different observations of an artifact, answered by `policy.act` itself. form: eval.request.Form."""
    rng, found = np.random.default_rng(seed), []
    for index in range(count):
        shape = (form.times, *form.size, 3)
        given: dict = {f"video.{view}": rng.integers(0, 256, shape, np.uint8) for view in form.views}
        given |= {f"state.{part}": rng.uniform(-1, 1, (1, width)) for part, width in form.state.items()}
        given |= {client.ANNOTATION: [f"open drawer {index}"]} if form.reads else {}
        actions = policy.act(form.flat(given).observation, atp=atp).actions
        found.append(Question(given, {f"action.{part}": values[0] for part, values in actions.items()}))
    return found


def ask_all(url: str, asked: Sequence[Question], *, count: int, token: str = "", tick: TICK = lambda: None) -> dict:
    """One client asks `count` questions in turn: seconds of each, and how many answers were wrong or missing."""
    seconds, wrong, lost = [], 0, 0
    with client.Client(url, token=token, timeout_s=30.0) as robot:
        for index in range(count):
            question = asked[index % len(asked)]
            began = time.perf_counter()
            try:
                said = robot.get_action(question.observation)
            except (client.ServerError, TimeoutError):
                lost += 1
                continue
            finally:
                seconds.append(time.perf_counter() - began)
                tick()
            wrong += not same(said, question.answer)
    return {"asked": count, "wrong": wrong, "lost": lost, "seconds": seconds}


def same(said: dict[str, np.ndarray], answer: dict[str, np.ndarray]) -> bool:
    """Whether an answer is the right one, to float32's rounding."""
    close = lambda key: said[key].shape == answer[key].shape and np.allclose(said[key], answer[key], 1e-4, 1e-5)  # noqa: E731
    return set(said) == set(answer) and all(close(key) for key in answer)


def together(url: str, asked: Sequence[Question], *, count: int, clients: int, **options: Any) -> list[dict]:
    """Several clients at once, each beginning at another question."""
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        shifted = [[*asked[i * len(asked) // clients :], *asked[: i * len(asked) // clients]] for i in range(clients)]
        futures = [pool.submit(ask_all, url, part, count=count // clients, **options) for part in shifted]
        return [future.result() for future in futures]


def malformed(question: Question, *, count: int, seed: int = 0) -> list[tuple[str, bytes]]:
    """(kind, bytes) of `count` messages that are no valid request, in turn of each kind."""
    rng, found = random.Random(seed), []
    valid = client.pack({"endpoint": "get_action", "data": question.observation})
    while len(found) < count:
        name = sorted(KINDS)[len(found) % len(KINDS)]
        found.append((name, KINDS[name](rng, valid, question.observation)))
    return found


def ask_malformed(
    url: str, messages: Sequence[tuple[str, bytes]], *, token: str = "", tick: TICK = lambda: None
) -> dict:
    """How many were answered with an error, by kind; `answered`: those that a mutation left valid; `silent`: none."""
    errors, answered, silent = {}, {}, 0
    with client.Client(url, token=token, timeout_s=30.0) as robot:
        for kind, message in messages:
            tick()
            try:
                client.unpack(robot.send(message))
                answered[kind] = answered.get(kind, 0) + 1
            except client.ServerError:
                errors[kind] = errors.get(kind, 0) + 1
            except TimeoutError:
                silent += 1
    return {"asked": len(messages), "errors": errors, "answered": answered, "silent": silent}


def _mutated(rng: random.Random, valid: bytes, _: dict) -> bytes:
    """Some bytes of the map's structure other than they were (those of pixels would only be another picture)."""
    data = bytearray(valid)
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(60)] = rng.randrange(256)
    return bytes(data)


def _typed(rng: random.Random, _: bytes, observation: dict) -> bytes:
    """A value of another kind than its key's."""
    key = rng.choice(sorted(observation))
    wrong = [None, 3, [], {}, [[1]], True, b"bytes", np.zeros((1, 2, 3)), np.full((1, 3), np.nan)]
    wrong += [] if key.startswith("annotation") else ["text", np.array(["a"])]
    return _packed(observation | {key: rng.choice(wrong)})


def _keys(rng: random.Random, _: bytes, observation: dict) -> bytes:
    given = dict(observation)
    if rng.random() < 0.5:
        del given[rng.choice(sorted(given))]
    else:
        given[f"video.{rng.randrange(1000)}"] = np.zeros(3)
    return _packed(given)


def _header(rng: random.Random, _: bytes, observation: dict) -> bytes:
    """An array whose header claims more than there is."""
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    claim = b"(%d,), }" % (10 ** rng.randint(6, 11))
    data = stream.getvalue().replace(b"(3,), }" + b" " * (len(claim) - 7), claim)
    key = next(iter(observation))
    return client.pack({"data": observation | {key: {"__ndarray_class__": True, "as_npy": data}}})


def _packed(observation: Any) -> bytes:
    return client.pack({"endpoint": "get_action", "data": observation})


KINDS: dict[str, Callable[[random.Random, bytes, dict], bytes]] = {
    "mutated": _mutated,
    "truncated": lambda rng, valid, _: valid[: rng.randrange(len(valid))],
    "random": lambda rng, *_: rng.randbytes(rng.randint(0, 300)),
    "typed": _typed,
    "keys": _keys,
    "pickle": lambda rng, _, observation: pickle.dumps({"data": observation}, rng.randint(0, 5)),
    "header": _header,
    "claim": lambda rng, *_: rng.choice([b"\xdd", b"\xdf", b"\xc6", b"\xdb"]) + rng.randbytes(4),
    "long": lambda rng, _, observation: _packed(observation | {client.ANNOTATION: ["go " * rng.randint(10**5, 10**6)]}),
    "nested": lambda rng, *_: b"\x91" * rng.randint(10, 5000) + b"\x90",
    "endpoint": lambda rng, *_: msgpack.packb({"endpoint": rng.choice(["", "no", 3, None, [], {}, "__class__"])}),
}
"""Ways to be wrong."""
