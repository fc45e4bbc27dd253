"""The size suite: an acting student, exported, against the full teacher and against its own twin in PyTorch."""

import dataclasses
import importlib.util
import json
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bridge import embodiment as embodiments
from bridge.embodiment import Embodiment
from bridge.transform import Transform
from eval import (
    artifact,
    export,
    origin,
    page,
    pictures,
    policy,
    report,
    runs,
    size_parity,
    size_race,
    size_rows,
    timing,
)
from eval.options import Config
from eval.size_race import Entry, module
from eval.size_rows import Bench
from eval.ticker import Ticker
from eval.variants import DTYPES, Dtype
from student_jax import config, irp, presets, sizes
from student_jax.student import Student
from train import words

FULL = "full-size"
TEACHER_VALUES = 2.72e9
SIDE = 224
INSTRUCTION = "put the red cube into the box"
PARTS = {"state": {"arms": 14, "hands": 12}, "action": {"arms": 14, "hands": 12}}
"""Of a robot with two arms and hands, as GR00T's own are."""
HORIZON, TEACHER_WIDTH, TEACHER_GRID = 16, 2048, 16
BATCHES = (4, 16)
SHARES = (0.5, 0.25)
"""Of the full budget: what the dial saves."""
LANES = (*(f"xla_{dtype}" for dtype in DTYPES), "onnxruntime_float32", "openvino_float32", "openvino_bfloat16")
"""How the student runs, RUNTIME_TYPE each; --lanes chooses others."""
PLANS = {
    "full": timing.Plan(rounds=10, repeats=20, seconds=40.0),
    "quick": timing.Plan(rounds=4, repeats=5, seconds=5.0),
}


def benchmark(options: Config, *, command: str) -> report.Report:
    """Export the student, race everybody, write the report folder."""
    plan = PLANS["quick" if options.short else "full"]
    plan = dataclasses.replace(plan, seconds=options.seconds or plan.seconds)
    device = _device(options)
    with Ticker() as tick:
        tick("exporting the student", 0, 1)
        bench = prepare(options, device)
        small = [*_students(options, bench), *_twins(options, bench)]
        race = {"plan": plan, "device": device, "out": options.out / "raw", "resume": options.resume}
        race["of"] = json.loads(
            json.dumps(
                {
                    "bench": bench.identity(),
                    "plan": dataclasses.asdict(plan),
                    "device": device,
                    "beside": [BATCHES, SHARES],
                }
            )
        )
        found = size_race.run(small, list(_teachers(options, bench)), **race, tick=tick)
    context = report.Context(
        "random", "none", bench.preset, bench.parameters, origin.device(), origin.commit(), command
    )
    rows = size_rows.Book(bench, found, context, seed=options.seed).rows()
    report.write(options.out / "report.json", report.Report(tuple(rows), origin.versions()))  # whatever comes now
    rows += size_parity.rows(*subject(options.student), bench, options.lanes or LANES, context)
    result = report.Report(tuple(rows), origin.versions())
    report.write(options.out / "report.json", result)
    lanes = {name: np.array(seconds) for name, seconds in found.seconds.items() if "@" not in name and seconds}
    caption = "From a uint8 view, state and text to float32 actions on the host, batch 1, warm, run in turns."
    page.write(options.out, result, [page.Picture("Latency", caption, pictures.latency(lanes))])
    return result


def prepare(options: Config, device: str) -> Bench:
    """The student in every type, the robot and the observation, in --out."""
    out = options.out / "raw"
    out.mkdir(parents=True, exist_ok=True)
    student, kit = subject(options.student)
    embodiments.save(out / "metadata.json", kit.body)
    _observe(out / "observation.npz", kit.body)
    teacher = {"id": options.teacher or FULL, "provenance": "random", "licence": "none", "digest": ""}
    about = artifact.About(options.student, False, kit.body.tag, {"seed": 0, "steps": 0}, teacher)
    folders, metas = {}, {}
    for dtype in DTYPES:
        folders[dtype] = options.out / f"artifact_{dtype}"
        if not (options.resume and _is_of(folders[dtype], options.student)):
            export.write(folders[dtype], student, about, kit, dtype=dtype)
            _write_onnx(folders[dtype], student, kit, dtype)
        metas[dtype] = policy.read_meta(folders[dtype])
    return Bench(options.student, options.teacher or FULL, device, folders, metas)


def subject(preset: str) -> tuple[Student, artifact.Kit]:
    """An untrained student and its robot; asked for actions alone, as the teacher is."""
    body, settings = robot(), configured(preset)
    lexicon = words.train([INSTRUCTION], settings.language.vocabulary, least=1)
    return untrained(settings), artifact.Kit((1, 1, SIDE, SIDE, 3), body, lexicon.to_json(), features=False)


def _is_of(folder: pathlib.Path, preset: str) -> bool:
    """Whether an artifact is there already; one of an earlier version does more than is timed now."""
    meta = policy.read_meta(folder) if (folder / "meta.json").is_file() else {}
    return meta.get("preset") == preset and meta.get("features") is False


def _write_onnx(folder: pathlib.Path, student: Student, kit: artifact.Kit, dtype: Dtype) -> None:
    """The model that the other runtimes read, where the extra for it is here; its lanes say so where it is not."""
    if dtype == "int8" or not importlib.util.find_spec("onnx"):
        return
    from eval import onnx_export

    onnx_export.write(folder, student, kit, dtype)


def configured(preset: str) -> config.StudentConfig:
    """A preset for the full teacher's tokens and this robot, which halts before no step."""
    actions = sizes.ActionSpace(HORIZON, sum(PARTS["action"].values()), sum(PARTS["state"].values()))
    target = config.Target(width=TEACHER_WIDTH, grid=TEACHER_GRID)
    try:
        settings = presets.make(preset, target, task="robot", robot=config.Robot(actions, frames=1))
    except ValueError as error:
        raise runs.RunError(f"--student: {error}") from error
    return dataclasses.replace(settings, halt=irp.NEVER)


def untrained(settings: config.StudentConfig) -> Student:
    """A student with no parameter left at nought, so that what its twin says can be compared with what it says. Speed
    does not depend on weights."""
    student = Student(settings, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)

    def awake(value: jax.Array) -> jax.Array:
        drawn = 0.02 * rng.standard_normal(value.shape, np.float32)
        return jnp.where(jnp.all(value == 0), drawn, value)

    nnx.update(student, jax.tree.map(awake, nnx.state(student, nnx.Param)))
    return student


def robot() -> Embodiment:
    """Two arms and hands, one camera."""
    span = {
        group: {part: np.stack([-np.ones(n), np.ones(n)]) for part, n in parts.items()}
        for group, parts in PARTS.items()
    }
    modes = {f"{group}.{part}": "min_max" for group, parts in PARTS.items() for part in parts}
    transform = Transform(("ego",), None, None, 1, modes, 31, HORIZON, "plain")
    video = {"ego": {"resolution": [SIDE, SIDE], "channels": 3, "fps": 20.0}}
    return embodiments.from_data("size", state=span["state"], action=span["action"], video=video, transform=transform)


def _observe(path: pathlib.Path, body: Embodiment) -> None:
    rng = np.random.default_rng(0)
    state = rng.uniform(-1, 1, (1, 1, sum(body.dimensions("state").values()))).astype(np.float32)
    video = rng.integers(0, 256, (1, 1, 1, SIDE, SIDE, 3), np.uint8)
    np.savez(path, video=video, state=state, instruction=np.array([INSTRUCTION]), embodiment=np.array(body.tag))


def _device(options: Config) -> str:
    """Where torch runs: as asked, or where jax does."""
    if options.device != "auto":
        return options.device
    return "cuda" if jax.default_backend() in ("gpu", "cuda") else "cpu"


def _students(options: Config, bench: Bench) -> Iterator[Entry]:
    """The exported student, a process for every runtime and type."""
    for name in options.lanes or LANES:
        runtime, _, dtype = name.partition("_")
        if dtype not in bench.folders:
            raise runs.RunError(f"--lanes {name}: expected RUNTIME_DTYPE with one of {', '.join(DTYPES)}")
        folder, meta = bench.folders[dtype], bench.metas[dtype]
        started = module("eval.clock", folder, "--observation", options.out / "raw/observation.npz")
        shape = {key: meta["matrix"][key] for key in ("batch", "m", "k", "n", "dtype")}
        yield Entry(f"student_{name}", [*started, "--runtime", runtime], batches=BATCHES, shares=SHARES, shape=shape)


def _twins(options: Config, bench: Bench) -> Iterator[Entry]:
    """The same student in PyTorch, eager and compiled in one process per type."""
    for dtype in DTYPES[:2]:
        command = module("teacher_torch.twin", bench.folders["float32"], *_seen(options), "--dtype", dtype)
        command += ["--device", bench.device, "--both"]
        yield Entry(f"twin_{dtype}", command, ("eager", "compiled"), batches=BATCHES[-1:])


def _teachers(options: Config, bench: Bench) -> Iterator[Entry]:
    """The teacher, a process per type; eager and compiled share its weights."""
    compiled = options.compile == "yes" or (options.compile == "auto" and not options.short)
    for dtype, size in (("bfloat16", 2), ("float32", 4)):
        command = module("teacher_torch.timing", "--teacher", bench.teacher, *_seen(options), "--dtype", dtype)
        command += ["--outputs", "actions", "--device", bench.device, *(["--both"] if compiled else [])]
        command += ["--tokenizer", options.tokenizer] if options.tokenizer else []
        modes = ("eager", "compiled") if compiled else ("eager",)
        weights = int(TEACHER_VALUES * size) if bench.teacher == FULL else 0
        batches = BATCHES if bench.device == "cuda" else ()
        yield Entry(f"teacher_{dtype}", command, modes, weights=weights, batches=batches)


def _seen(options: Config) -> list[str]:
    raw = options.out / "raw"
    return ["--observation", str(raw / "observation.npz"), "--metadata", str(raw / "metadata.json")]
