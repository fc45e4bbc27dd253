"""A student as a policy of the simulator: frames, state and instruction in, a chunk of actions out."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bridge import embodiment as embodiments
from bridge import scene, simulator
from bridge.embodiment import Embodiment
from student_jax import irp
from student_jax.student import Student
from train import config, words


@dataclasses.dataclass(frozen=True)
class Seen:
    """What of a query reaches a student, and the noise that its actions start from."""

    video: np.ndarray  # uint8 [b, 1, v, h, w, 3]
    state: np.ndarray  # float32 [b, 1, d], normalised
    tokens: np.ndarray  # int32 [b, l]
    token_mask: np.ndarray  # bool [b, l]
    noise: np.ndarray  # float32 [b, h, a]


class StudentActor:
    """A student with its tokenizer and embodiment. A row's answer depends on that row alone, x_0 included: it is drawn
    from the episode's seed and the number of the decision."""

    def __init__(
        self, student: Student, lexicon: words.Words, body: Embodiment, *, rows: int, steps: int | None = None
    ):
        """rows: of the one compiled program; steps: refinement steps of every module at most, None for all."""
        self.student, self.words, self.body, self.rows, self.steps = student, lexicon, body, rows, steps
        self._cameras = _cameras(body)
        self._graph, state = nnx.split(student.folded())
        self._state = nnx.to_pure_dict(state)

    def see(self, query: simulator.Query) -> Seen:
        """The student's inputs."""
        tokens, mask = self.words.encode(query.instruction, self.student.config.language.length)
        actions = self.student.config.actions
        return Seen(
            query.frames[:, None, self._cameras],
            normalised(self.body, query.state),
            tokens,
            mask,
            draw(query.seed, query.decision, (actions.horizon, actions.width)),
        )

    def chunks(self, seen: Seen) -> np.ndarray:
        """Normalised actions float32 [b, h, a]."""
        given = {name: np.resize(value, (self.rows, *value.shape[1:])) for name, value in vars(seen).items()}
        return np.asarray(_program(self._graph, self.steps)(self._state, given))[: len(seen.video)]

    def __call__(self, query: simulator.Query) -> np.ndarray:
        """As a simulator policy: actions [b, h, 4] in physical units."""
        if len(query.seed) > self.rows:
            raise ValueError(f"this actor was made for {self.rows} rows, asked for {len(query.seed)}")
        return physical(self.body, self.chunks(self.see(query)))


def draw(seed: np.ndarray, decision: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """x_0 float32 [b, h, a], row by row."""
    rows = zip(np.asarray(seed).tolist(), np.asarray(decision).tolist(), strict=True)
    return np.stack([np.random.default_rng([one, asked, 3]).normal(size=shape) for one, asked in rows]).astype("f4")


def normalised(body: Embodiment, state: np.ndarray) -> np.ndarray:
    """A physical state [b, d], keys in the embodiment's order, to float32 [b, 1, d] normalised."""
    widths = body.dimensions("state")
    parts = np.split(state, np.cumsum(list(widths.values()))[:-1], axis=-1)
    return embodiments.normalise(body, dict(zip(widths, parts, strict=True))).astype(np.float32)[:, None]


def physical(body: Embodiment, actions: np.ndarray) -> np.ndarray:
    """Normalised actions [b, h, a] in physical units, keys joined in the embodiment's order."""
    return np.concatenate(list(embodiments.denormalise(body, actions).values()), axis=-1)


def refined(student: Student, given: irp.Inputs, steps: int | None) -> dict[str, irp.State]:
    """Each module's state after refinement within `steps` (all if None) and the student's own halting."""
    found, key = {}, jax.random.key(0)  # no module draws from it: x_0 is given
    for name, module in student.modules.items():
        most = module.description.max_steps
        budget = jnp.full(given.video.shape[0], most if steps is None else min(steps, most), jnp.int32)
        found[name], _ = irp.refine(module, given, key, budget, student.config.halt)
        if isinstance(module, irp.Source):
            given = dataclasses.replace(given, context=given.context | {name: module.context(found[name])})
    return found


@functools.cache
def _program(graph: nnx.GraphDef, steps: int | None) -> Callable:
    def act(state: dict, seen: dict[str, jax.Array]) -> jax.Array:
        student = nnx.merge(graph, state)
        given = irp.Inputs(**seen, frame_mask=jnp.ones(seen["video"].shape[:3], bool))
        last = refined(student, given, steps)["control"]
        return student.control.output(last)["actions"]

    return jax.jit(act)


def _cameras(body: Embodiment) -> list[int]:
    """Where the embodiment's views are among the simulator's."""
    known = list(scene.CAMERAS)
    if unknown := [key for key in body.transform.video_keys if key not in known]:
        raise config.ConfigError(f"embodiment {body.tag} sees {unknown}; the simulator has {', '.join(known)}")
    for group, widths in (("state", scene.STATE), ("action", scene.ACTION)):
        if (has := body.dimensions(group)) != widths:
            raise config.ConfigError(f"embodiment {body.tag} has {group} {has}; the simulator's robot has {widths}")
    return [known.index(key) for key in body.transform.video_keys]
