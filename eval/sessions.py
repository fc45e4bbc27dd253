"""What a client has set with `reset`: how its observations are answered until its next reset."""

import collections
import dataclasses
from typing import Any

from eval import request
from eval.request import RequestError

SESSIONS = 256
"""Sessions that are kept; the one that was silent longest is forgotten."""
MOST_ATP = 1e9


@dataclasses.dataclass(frozen=True)
class Options:
    """How an observation is answered; a session's until its next reset, or one request's."""

    atp: float | None = None
    seed: int = 0


class Sessions:
    """Options by connection. A client that reconnects, as ours does after a timeout, has a new session with the
    defaults: it resets again."""

    def __init__(self):
        self._kept: collections.OrderedDict[Any, Options] = collections.OrderedDict()

    def of(self, session: Any) -> Options:
        """The options of a session, which is silent no longer."""
        if session in self._kept:
            self._kept.move_to_end(session)
        return self._kept.get(session, Options())

    def reset(self, session: Any, given: Any) -> None:
        """Set the options of a session; RequestError where they are none."""
        self._kept[session] = read(given, Options())
        self._kept.move_to_end(session)
        while len(self._kept) > SESSIONS:
            self._kept.popitem(last=False)

    def forget(self, session: Any) -> None:
        """The client has gone."""
        self._kept.pop(session, None)


def read(given: Any, default: Options) -> Options:
    """Options as a client sends them, {atp, seed} or nothing; RequestError where a value is out of range."""
    if given is None or given is True:
        return default
    if not isinstance(given, dict) or not set(given) <= {"atp", "seed"}:
        said = ", ".join(map(repr, given))[:80] if isinstance(given, dict) else request.kind(given)
        raise RequestError(f"options: expected a map of atp and seed, got {said}")
    found = dataclasses.replace(default, **given)
    if type(found.seed) is not int or not 0 <= found.seed < 2**32:
        raise RequestError(f"options.seed: expected a whole number in [0, 2^32), got {request.kind(found.seed)}")
    if found.atp is not None and not (type(found.atp) in (int, float) and 0 <= found.atp <= MOST_ATP):
        raise RequestError(f"options.atp: expected a number in [0, {MOST_ATP:g}], got {request.kind(found.atp)}")
    return found
