"""The simulator's observations as a policy server reads them, and its answers as the simulator's actions."""

import numpy as np

from bridge import scene
from eval import client


class DriveError(ValueError):
    """What cannot be driven."""


class Wire:
    """One server, asked over one client."""

    def __init__(self, robot: client.Client):
        """Raises DriveError where the server's student is not one of the simulator's robot."""
        self._robot, config = robot, robot.get_modality_config()
        if missing := {"video", "state", "action"} - set(config):
            raise DriveError(
                f"the server's modality config lacks {sorted(missing)}; start it with python -m eval.serve"
            )
        bare = {name: [key.removeprefix(f"{name}.") for key in one["modality_keys"]] for name, one in config.items()}
        self.views, self._language = bare["video"], bare.get("language", [])
        for name, known in (("state", scene.STATE), ("action", scene.ACTION)):
            if bare[name] != list(known):
                raise DriveError(f"the server's student has {name} {bare[name]}; the simulator's robot {list(known)}")
        if unknown := set(self.views) - set(scene.CAMERAS):
            raise DriveError(f"the server's student sees {sorted(unknown)}; the simulator has {list(scene.CAMERAS)}")
        if config["video"]["delta_indices"] != [0]:
            raise DriveError("the server's student sees several frames; eval.drive sends the present one")

    def observation(self, view: scene.View, instruction: str) -> dict:
        """N1.5's flat form; with a batch axis for n1.6."""
        cameras = dict(zip(scene.CAMERAS, view.frames, strict=True))
        found: dict = {f"video.{name}": np.ascontiguousarray(cameras[name])[None] for name in self.views}
        parts = np.split(view.state, np.cumsum(list(scene.STATE.values()))[:-1])
        found |= {f"state.{part}": values[None] for part, values in zip(scene.STATE, parts, strict=True)}
        if self._robot.version == "n1.6":
            found = {key: values[None] for key, values in found.items()}
        return found | {key: [instruction] for key in self._language}

    def ask(self, observation: dict) -> np.ndarray:
        """The server's chunk [h, 4]."""
        found = self._robot.get_action(observation)
        chunk = np.concatenate([found[f"action.{part}"] for part in scene.ACTION], axis=-1)
        return chunk[0] if self._robot.version == "n1.6" else chunk
