"""An exported student as a policy of the simulator: frames, state and instruction in, a chunk of actions out."""

import dataclasses
import hashlib

import numpy as np

from bridge import scene, simulator
from bridge.transform import EmbodimentError
from eval import policy


@dataclasses.dataclass(frozen=True)
class Seen:
    """An observation as policy.Policy reads it."""

    video: np.ndarray
    state: np.ndarray
    instruction: tuple[str, ...]


class ArtifactActor:
    """Asked as `train.actor.StudentActor` is. It halts by itself and acts from x_0 = 0; every row is asked with the
    same budget and trust."""

    def __init__(self, loaded: policy.Policy, *, atp: float | None = None, trust: tuple[float, ...] | None = None):
        """EmbodimentError where the artifact is for another robot than the simulator's."""
        self.policy, self.atp, self.trust = loaded, atp, trust
        self._cameras = cameras(loaded.meta)

    def __call__(self, query: simulator.Query) -> np.ndarray:
        """As a simulator policy: actions [b, h, 4] in physical units."""
        decision = self.policy.act(self.see(query), atp=self.atp, trust=self.trust)
        return np.concatenate(list(decision.actions.values()), axis=-1)

    def see(self, query: simulator.Query) -> Seen:
        """The artifact's observation."""
        return Seen(query.frames[:, None, self._cameras], query.state[:, None], query.instruction)

    @property
    def digest(self) -> str:
        """sha256 of all that decides what it does."""
        files = sorted(self.policy.meta["files"].items())
        return hashlib.sha256(repr((files, self.atp, self.trust)).encode()).hexdigest()


def cameras(meta: dict) -> list[int]:
    """Where an artifact's views are among the simulator's; EmbodimentError where it is another robot's."""
    known = list(scene.CAMERAS)
    has, wants = ({"state": meta["state"], "actions": meta["actions"]}, {"state": scene.STATE, "actions": scene.ACTION})
    if has != wants or not set(meta["views"]) <= set(known):
        raise EmbodimentError(
            f"the artifact is for {meta['embodiment']}: views {meta['views']}, {has}; the simulator's robot has views "
            f"among {known}, {wants}"
        )
    return [known.index(view) for view in meta["views"]]
