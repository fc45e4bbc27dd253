"""The small store of the training tests, and a student trained on it for two steps by the real command."""

import dataclasses
import functools
import importlib.util
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx

from bridge import embodiment, lanes, manifest, metaworld_tasks, scene, store, stored_embodiment, transform
from student_jax import config as student_config
from student_jax import presets, sizes
from student_jax.student import Student
from train import checkpoint, config, record, sources, stages, state, witness
from train import main as training

TASKS = ("drawer-open", *metaworld_tasks.LOOK_ALIKE)
TRAIN_FIXTURES = pathlib.Path(__file__).parents[1] / "train" / "conftest.py"


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """Compiles each program once a session, in this process and in those it starts."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
        jax.config.update("jax_compilation_cache_dir", folder)
        yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def stored(tmp_path_factory) -> pathlib.Path:
    """A store of ten ARC-1 tasks whose teacher is a fixed map of the pixels; nothing writes into it."""
    spec = importlib.util.spec_from_file_location("train_fixtures", TRAIN_FIXTURES)
    fixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    return fixtures.write(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def reader(stored) -> store.Reader:
    """That store, open."""
    return store.open(stored)


@pytest.fixture(scope="session")
def trained(stored, tmp_path_factory) -> pathlib.Path:
    """A run folder: two steps of the tiny preset."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    cheap = ["--share-every", "0", "--host-devices", "1"]
    arguments = ["--preset", "tiny", "--steps", "2", "--store", str(stored), "--out", str(out), *cheap]
    assert training.main(arguments) == 0
    return out


@pytest.fixture(scope="session")
def puzzled(tmp_path_factory) -> pathlib.Path:
    """A run folder: one step of the tiny preset on small puzzles."""
    out = tmp_path_factory.mktemp("runs") / "families"
    fixed = ["--stage", "end-to-end", "--store", "families", "--preset", "tiny", "--host-devices", "1", "--batch", "4"]
    assert training.main([*fixed, "--out", str(out), "--steps", "1", "--eval-frames", "4", "--share-every", "0"]) == 0
    return out


@pytest.fixture(scope="session")
def solving(stored, tmp_path_factory) -> dict[str, pathlib.Path]:
    """Run folders of a tiny student of ARC's grids and of the user's original one, one step each."""
    folder, found = tmp_path_factory.mktemp("arc"), {}
    fixed = ["--stage", "end-to-end", "--store", str(stored), "--host-devices", "1", "--batch", "2", "--steps", "1"]
    fixed += ["--eval-frames", "2", "--share-every", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.PRESETS, "cells", tiny_cells)
        for name, words in (("cells", ["--preset", "cells"]), ("seed", ["--preset", "tiny", "--baseline", "seed"])):
            found[name] = folder / name
            assert training.main([*fixed, *words, "--out", str(found[name])]) == 0
    return found


def tiny_cells(target: student_config.Target, robot: None = None) -> student_config.StudentConfig:
    """The preset `cells` at the size of a test."""
    small = {"width": 16, "heads": 2, "mlp": 16, "dtype": "float32"}
    vision = student_config.VisionConfig(
        canvas=120, patch=8, stem_blocks=1, step_blocks=1, max_steps=1, crop=True, **small
    )
    grid = sizes.GridConfig(30, pair_blocks=1, step_blocks=1, symmetries=False, **small)
    return student_config.StudentConfig(vision, target, grid=grid)


class FakeLanes:
    """Three simulators that need no simulator: even goals are solved at the first decision, odd ones never."""

    count = 3

    def __init__(self):
        self.closed, self._seeds = False, {}

    def close(self):
        self.closed = True

    def round(self, commands):
        return [self._do(lane, *command) for lane, command in commands]

    def _do(self, lane, kind, *rest):
        if kind == "reset":
            self._seeds[lane] = rest[1]
            return lanes.Moved(self._view(lane, solved=False), 0)
        actions, record = rest
        frames = np.stack([self._view(lane, solved=False).frames] * len(actions)) if record else None
        return lanes.Moved(self._view(lane, solved=self._seeds[lane] % 2 == 0), len(actions), frames)

    def _view(self, lane, *, solved):
        rng = np.random.default_rng(self._seeds[lane])
        frames = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
        state = rng.uniform(-1, 1, 4).astype(np.float32)
        return scene.View(frames, state, np.zeros((2, 3), np.float32), np.zeros((2, 2, 2), np.float32), solved)


@pytest.fixture(scope="session")
def fake_lanes():
    """A maker of simulators that need no simulator."""
    return FakeLanes


@pytest.fixture(scope="module")
def quickly():
    """Programs of this module compile in a fraction of the time and run slower."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def robots(tmp_path_factory) -> pathlib.Path:
    """A store of a robot of the simulator's shape: two 32-pixel views, chunks of 8 actions, 24 observations."""
    return write_robots(tmp_path_factory.mktemp("robots"), robot_body())


@pytest.fixture(scope="session")
def make_acting(robots, tmp_path_factory):
    """(seed, control bias) -> the run folder of a tiny student that acts, never trained; nothing writes into it."""

    @functools.cache
    def make(seed: int = 0) -> pathlib.Path:
        return write_run(tmp_path_factory.mktemp("acting") / f"seed-{seed}", robots, seed)

    return make


@pytest.fixture(scope="session")
def make_orchestrated(robots, make_acting, tmp_path_factory):
    """(seed) -> the run folder of a tiny orchestrated student, never trained, with what its host judges by."""

    @functools.cache
    def make(seed: int = 0) -> pathlib.Path:
        return write_run(tmp_path_factory.mktemp("sage") / f"seed-{seed}", robots, seed, str(make_acting(seed)))

    return make


@pytest.fixture(scope="session")
def toys(tmp_path_factory) -> pathlib.Path:
    """A store as `robots`, of a robot that no simulator knows."""
    return write_robots(tmp_path_factory.mktemp("toys"), robot_body("toy", ("wrist.left", "front")))


@pytest.fixture(scope="session")
def toy_run(toys, tmp_path_factory) -> pathlib.Path:
    """The run folder of a tiny student of that robot, never trained."""
    return write_run(tmp_path_factory.mktemp("toy-run") / "seed-0", toys, 0)


def robot_body(tag: str = "metaworld", views: tuple[str, str] = ("side", "top")) -> embodiment.Embodiment:
    """The simulator's robot, its views in the simulator's other order, or one of another name and views."""
    rng = np.random.default_rng(1)
    modes = {"state.hand": "min_max", "state.gripper": "min_max", "action.delta": "min_max", "action.gripper": "none"}
    return embodiment.from_data(
        tag,
        state={"hand": rng.uniform(-1, 1, (50, 3)), "gripper": rng.uniform(0, 1, (50, 1))},
        action={"delta": rng.uniform(-0.5, 0.5, (50, 3)), "gripper": rng.uniform(-1, 1, (50, 1))},
        video={view: {} for view in views},
        transform=transform.Transform(views, None, 32, 1, modes, 0, 8, "plain"),
    )


def write_robots(folder: pathlib.Path, body: embodiment.Embodiment) -> pathlib.Path:
    rng, count, draws, chunk = np.random.default_rng(0), 24, 3, (8, 4)
    record = lambda *shape, kind="float32": manifest.Feature(shape, kind, "record")  # noqa: E731
    wide = manifest.Feature((8,), "bfloat16", "image")
    said = sorted(text for task in TASKS for text in metaworld_tasks.find(task).phrasings[:1])
    asked = np.arange(count, dtype=np.int32) % len(said)
    content = stored_embodiment.text(body)
    teacher = {"id": "tiny-robot", "digest": "d7", "provenance": "stand-in", "licence": "none"}
    made = manifest.make(
        "robot",
        manifest.Teacher(
            **teacher, tile=32, grid=4, width=8, max_tiles=1, columns=1, rows=1, thumbnail=False, layers=1
        ),
        features={
            "frames": manifest.Feature((32, 32, 3), "uint8", "frame"), "image_tokens": wide, "fused_tokens": wide,
            "vision_attention": manifest.Feature((), "float32", "image"), "state": record(4),
            "instruction_id": record(kind="int32"), "text_features": record(8), "pixels": record(2, 2, 2),
            "saliency": manifest.Feature((), "float32", "image"), "confidence": record(),
            "noise": record(draws, *chunk), "actions": record(draws, *chunk), "demonstration": record(*chunk),
        },
        counts={"record": [1] * count, "frame": [2] * count, "image": [32] * count},
        records={
            "episode": [i // 3 for i in range(count)], "row": [4 * (i % 3) for i in range(count)],
            "instruction": [said[i] for i in asked], "split": ["train"] * 12 + ["validation"] * 12,
        },
        extraction={"instructions": said, "stride": 4, stored_embodiment.DIGEST: stored_embodiment.digest(content)},
    )  # fmt: skip
    writer = store.create(folder, made)
    arrays = {
        name: rng.normal(size=(made.axes[f.axis].shard and sum(made.axes[f.axis].counts), *f.shape)).astype(
            f.numpy_dtype
        )
        for name, f in made.features.items()
        if name not in ("frames", "instruction_id")
    }
    arrays |= {name: np.abs(arrays[name]) for name in ("saliency", "confidence")}
    arrays |= {"frames": rng.integers(0, 256, (2 * count, 32, 32, 3), np.uint8), "instruction_id": asked}
    writer.write(0, arrays)
    stored_embodiment.write(writer.files, made, content)
    return folder


def write_run(folder: pathlib.Path, robots: pathlib.Path, seed: int, init: str = "") -> pathlib.Path:
    """init: the run that an orchestrated one is built on."""
    launch, stage = config.Launch(store=str(robots), out=folder), "orchestration" if init else "end-to-end"
    options = config.Config(stage=stage, preset="tiny", seed=seed, init=init, launch=launch)
    reader = store.open(robots)
    stage = stages.select(options, "robot")
    material = sources.open_material(reader, stage, options, None)
    language = dataclasses.replace(material.settings.language, length=64)
    settings = dataclasses.replace(material.settings, language=language)
    record.begin(folder, record.make(options, settings, reader.manifest, steps=1, devices=1), resume=False)
    made = lambda: Student(settings, rngs=nnx.Rngs(seed))  # noqa: E731
    _, params, frozen = state.initialise(made, stage.trains)
    acting = (params | frozen)["control"] if init else params["control"]
    for head in (acting["out"], acting["judge"]["out"]):  # at zero, no step would change a thing
        head["kernel"] = 0.3 * jax.random.normal(jax.random.key(seed), head["kernel"].shape)
    for name in ("best", "last"):
        slot = checkpoint.Slot(folder / name)
        slot.save(1, {"params": params, "ema": params, "frozen": frozen}, {})
        slot.wait()
    training.keep(folder, reader, material)
    if init:
        judge = witness.make(checkpoint.load_student(folder, "last")[0], reader, material.words)
        witness.save(judge, folder)
    return folder
