"""One Meta-World task, headless: placed by a seed, seen by two cameras, moved by actions."""

from __future__ import annotations

import dataclasses
import os
import pickle
import warnings
from collections.abc import Mapping

import numpy as np

from bridge import metaworld_tasks

os.environ.setdefault("MUJOCO_GL", "egl")  # mujoco chooses its renderer when it is first imported
CAMERAS = {"top": "topview", "side": "corner4"}
"""Our camera names to Meta-World's; `side` is mounted upside down and turned back."""
SIZE = 128
"""Pixels on a side of a picture."""
REPEAT = 2
"""Simulator steps (80 Hz) per action: control at 40 Hz. The scripted experts lose nothing by it."""
FPS = 80 // REPEAT
STATE = {"hand": 3, "gripper": 1}
ACTION = {"delta": 3, "gripper": 1}
MEANT = 16
"""Placements behind the picture that a blind policy is shown."""
OBJECTS = ("hand", "object")
"""What `View.objects` locates: simulator truth, for labels and pictures, never an input of a policy."""


class SimulatorError(RuntimeError):
    """The simulator cannot run here; the message names what to install or set."""


@dataclasses.dataclass(frozen=True)
class View:
    """What can be seen after an action. frames uint8 [v, h, w, 3] in CAMERAS' order; state float32 [4]: hand xyz in
    metres, gripper opening in [0, 1]; objects float32 [n, 3] xyz and pixels float32 [v, n, 2] (row, column in [0, 1],
    beyond where out of sight) of OBJECTS, simulator truth; success so far."""

    frames: np.ndarray
    state: np.ndarray
    objects: np.ndarray
    pixels: np.ndarray
    success: bool


@dataclasses.dataclass(frozen=True)
class Light:
    """Light of a scene: every lamp's colour is multiplied by `gain` [r, g, b]."""

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Scene:
    """A simulator that holds one task at a time; close it after use (or use it as a context manager)."""

    def __init__(self, *, size: int = SIZE) -> None:
        self.size, self.success, self.task = size, False, ""
        self._simulation, self._environments = _modules(), {}
        self._renderer, self._lamps = None, {}
        self._means, self._shown = {}, None

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the renderer; EGL complains at exit if it is left open."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def reset(self, task: str, seed: int, *, light: Light = Light(), blind: bool = False) -> None:
        """Place the task's object as the seed says, hand at rest. blind: every view will show `mean_frames` instead."""
        self._shown = self.mean_frames(task) if blind else None
        environment = self._environment(task)
        data = {"rand_vec": placement(environment, seed), "env_cls": type(environment), "partially_observable": True}
        metaworld = self._simulation.metaworld
        environment.set_task(metaworld.Task(env_name=metaworld_tasks.find(task).environment, data=pickle.dumps(data)))
        environment.reset()
        environment.model.light_diffuse[:] = self._lamps[task] * np.asarray(light.gain)
        self.success = False

    def step(self, action: np.ndarray) -> None:
        """Hold one action float [4] in [-1, 1] (hand displacement, gripper force) for REPEAT simulator steps."""
        action = np.clip(np.asarray(action, np.float64), -1, 1)
        if action.shape != (4,) or not np.isfinite(action).all():
            raise ValueError(f"an action is 4 finite numbers (delta x, y, z, gripper), got {action}")
        for _ in range(REPEAT):
            _, _, _, _, info = self._now.step(action)
            self.success |= bool(info["success"])

    def view(self) -> View:
        """Render and measure."""
        frames = self._shown if self._shown is not None else np.stack([self._render(camera) for camera in CAMERAS])
        observed = self._now._get_obs()
        objects = np.stack([observed[:3], self._now._get_pos_objects()[:3]]).astype(np.float32)
        pixels = np.stack([self._project(camera, objects) for camera in CAMERAS])
        return View(frames, observed[:4].astype(np.float32), objects, pixels, self.success)

    def state(self) -> np.ndarray:
        """The robot's own float32 [4], as in `View`, without rendering."""
        return self._now._get_obs()[:4].astype(np.float32)

    def mean_frames(self, task: str) -> np.ndarray:
        """The mean picture of a task's first frames over MEANT training placements, uint8 [v, h, w, 3]."""
        if task not in self._means:
            frames = []
            for seed in metaworld_tasks.split_seeds("train", MEANT):
                self.reset(task, seed)
                frames.append(self.view().frames)
            self._means[task] = np.mean(frames, axis=0).round().astype(np.uint8)
        return self._means[task]

    def expert(self) -> np.ndarray:
        """The scripted expert's action [4] in the present state. It knows the simulator's state and the goal."""
        observed = self._now._get_obs().copy()
        observed[36:39] = self._now._target_pos
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # its gains are high by design
            return np.clip(self._expert.get_action(observed), -1, 1).astype(np.float32)

    def _environment(self, task: str):
        name = metaworld_tasks.find(task).environment
        if task not in self._environments:
            environment = self._simulation.metaworld.ALL_V3_ENVIRONMENTS[name]()
            quality, offscreen = environment.model.vis.quality, environment.model.vis.global_
            quality.offsamples = quality.shadowsize = 0  # the default draws 4096^2 shadow maps for every lamp
            offscreen.offwidth = offscreen.offheight = self.size
            self._lamps[task] = environment.model.light_diffuse.copy()
            self._environments[task] = environment
        if task != self.task:
            self.close()
            self.task = task
        self._now, self._expert = self._environments[task], self._simulation.experts[name]()
        return self._now

    def _render(self, camera: str) -> np.ndarray:
        mujoco = self._simulation.mujoco
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self._now.model, self.size, self.size)
            self._options = mujoco.MjvOption()
            self._options.sitegroup[:] = 0  # the goal's marker would tell what the instruction should
            flags = self._renderer.scene.flags
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._renderer.update_scene(self._now.data, camera=CAMERAS[camera], scene_option=self._options)
        picture = self._renderer.render()
        return picture[::-1, ::-1] if camera == "side" else picture

    def _project(self, camera: str, points: np.ndarray) -> np.ndarray:
        """World points [n, 3] to (row, column) [n, 2] in [0, 1] of a camera's picture."""
        model, data = self._now.model, self._now.data
        index = model.camera(CAMERAS[camera]).id
        local = (points - data.cam_xpos[index]) @ data.cam_xmat[index].reshape(3, 3)
        half = np.tan(np.deg2rad(model.cam_fovy[index]) / 2)
        right, up = local[:, 0] / (-local[:, 2] * half), local[:, 1] / (-local[:, 2] * half)
        place = np.stack([(1 - up) / 2, (1 + right) / 2], axis=-1)
        return (1 - place if camera == "side" else place).astype(np.float32)


def placement(environment, seed: int) -> np.ndarray:
    """The object's place: uniform in Meta-World's own box, but SPAN metres either way in x."""
    box = environment._random_reset_space
    low, high = np.array(box.low, np.float64), np.array(box.high, np.float64)
    low[0], high[0] = -metaworld_tasks.SPAN, metaworld_tasks.SPAN
    return np.random.default_rng(seed).uniform(low, high)


@dataclasses.dataclass(frozen=True)
class _Modules:
    metaworld: object
    mujoco: object
    experts: Mapping[str, type]


def _modules() -> _Modules:
    """Import the simulator with headless rendering; an error that names the fix where it cannot be."""
    try:
        import metaworld
        import mujoco
        from metaworld import policies
    except ImportError as error:
        raise SimulatorError(
            f"Meta-World cannot be imported ({error}): pip install 'sage-distill[sim]'; headless rendering needs EGL "
            "(apt install libegl1 libgl1-mesa-dri) or MUJOCO_GL=osmesa with libosmesa6"
        ) from error
    return _Modules(metaworld, mujoco, policies.ENV_POLICY_MAP)
