"""The command line of eval.export: a run folder to an artifact folder, compared with the student that it came from."""

import dataclasses
import hashlib
import json
import math
import pathlib
import sys
import types
from typing import Any, Literal

import tyro
from rich.console import Console

from bridge import embodiment as embodiments
from bridge.transform import EmbodimentError
from eval import artifact, control, export, measured, parity, policy, runs, units
from eval.artifact import About, Kit
from eval.variants import Dtype
from train import checkpoint, record, words
from train import config as train_config

USER_ERRORS = (
    runs.RunError, export.ExportError, artifact.FolderError, units.UnitsError, EmbodimentError, words.WordsError,
    train_config.ConfigError, checkpoint.CheckpointError, policy.ArtifactError, FileNotFoundError,
)  # fmt: skip
ALONE = ("vision", "language")
"""Components of a robot's student after which others are still untrained."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Export a trained student as a folder that runs with numpy, jax, flatbuffers, safetensors and tokenizers alone."""

    run: pathlib.Path
    """Run folder of python -m train.main."""
    out: pathlib.Path
    """The artifact's folder. An older artifact there is replaced, anything else is left alone."""
    dtype: Dtype = "bfloat16"
    """What products are computed in and kernels rest in. int8: kernels rest in int8 with a scale per output channel and
    are computed with in bfloat16: a quarter of float32's size."""
    platforms: tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...] = export.PLATFORMS
    """Where the program is to run."""
    checkpoint: Literal["best", "last"] = "best"
    """Of the run: the best by its validation metric, or that of the end of training."""
    weights: Literal["ema", "params"] = "ema"
    """The running average of the weights, or the weights themselves."""
    size: tuple[int, int] | None = None
    """Height and width of the frames in pixels. Default: of the embodiment's cameras."""
    features: Literal["auto", "yes", "no"] = "auto"
    """Let decisions hold what the student says of the teacher's features too: megabytes an answer at the real
    teacher's sizes, which no robot reads. auto: only for a student that does not act."""
    onnx: bool = False
    """Write model.onnx too, for onnxruntime, OpenVINO and TensorRT: one observation at a time, weights inside. It
    needs the extra `onnx`."""
    measure: bool = False
    """Time a step of each module on this machine, for the table of the model card."""


def main(argv: list[str] | None = None) -> int:
    """The command; 0 when the artifact is there, 1 when it is there and is not its student, 2 on bad input."""
    options = tyro.cli(Config, args=argv, prog="python -m eval.export", description=Config.__doc__)
    try:
        with Console(stderr=True).status("exporting"):
            meta, compared = make(options)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(_said(options, meta, compared["xla"]))
    for warning in (found := warnings(options, compared)):
        print(warning)
    return int(bool(found))


def warnings(options: Config, compared: dict[str, parity.Parity]) -> list[str]:
    """By runtime that does not say what the student says."""
    faults = {runtime: found.fault() for runtime, found in compared.items()}
    return [
        f"warning: {options.out} run by {runtime} is not its student: {fault}. Do not use it; see the table in "
        "README.md there, and export with --dtype float32 to tell rounding from a fault"
        for runtime, fault in faults.items()
        if fault
    ]


def make(options: Config) -> tuple[dict[str, Any], dict[str, parity.Parity]]:
    """Write the artifact, compare it with its student, write down what was found: the meta, and parity by runtime."""
    onnx_export = _onnx() if options.onnx else None
    student, told = checkpoint.load_student(options.run, options.checkpoint, options.weights)
    run = runs.Run(options.run, told, student)
    kit = equip(run, options.size)
    telling = kit.body is None if options.features == "auto" else options.features == "yes"
    kit = dataclasses.replace(kit, features=telling)
    about = origin(run, kit, averaged=options.weights == "ema", which=options.checkpoint)
    export.write(options.out, student, about, kit, dtype=options.dtype, platforms=options.platforms)
    loaded = policy.load(options.out, runtime="xla")
    compared = {"xla": parity.compare(student, kit, loaded)}
    notes = {"parity": compared["xla"].record()}
    if onnx_export:
        onnx_export.write(options.out, student, kit, options.dtype)
        there = policy.load(options.out, runtime="onnxruntime")
        compared["onnxruntime"] = parity.compare(student, kit, there)
        notes["parity_onnx"] = compared["onnxruntime"].record()
    if options.measure:
        notes["measured"] = measured.measure(student, kit, loaded)
    return artifact.note(options.out, notes), compared


def _onnx() -> types.ModuleType:
    """Asked for first of all: a missing package is told before anything is computed."""
    try:
        import onnxruntime  # noqa: F401 - the model is compared with the student in it

        from eval import onnx_export
    except ImportError as error:
        remedy = f"--onnx needs the extra `onnx` ({error}): pip install 'sage-distill[onnx]'"
        raise export.ExportError(remedy) from error
    return onnx_export


def equip(run: runs.Run, size: tuple[int, int] | None = None) -> Kit:
    """What the student of a run needs beside its weights; RunError where it is not whole."""
    config = run.record.config
    if run.record.student.actions is None:
        height, width = size or (900, 900)
        return Kit((1, 1, height, width, 3), views=("grid",))
    if config.stage == "components" and config.component in ALONE:
        raise runs.RunError(
            f"{run.folder} trained {config.component} alone, and its control is untrained: export a run of --stage "
            "end-to-end, or of --stage components --component control"
        )
    lexicon, body = control.equipment(run)
    height, width = size or resolution(run, body)
    return Kit((1, len(body.transform.video_keys), height, width, 3), body, lexicon.to_json())


def resolution(run: runs.Run, body: embodiments.Embodiment) -> tuple[int, int]:
    """Height and width of the embodiment's cameras, which are all alike."""
    video = body.modalities.get("video", {})
    known = {tuple(video.get(key, {}).get("resolution", ())) for key in body.transform.video_keys}
    if len(known) != 1 or () in known:
        shown = ", ".join(map(str, sorted(known)))
        raise runs.RunError(
            f"{run.folder / 'embodiment.json'} gives no one resolution for its views ({shown}): say which frames it "
            "is to run on, with --size HEIGHT WIDTH"
        )
    width, height = known.pop()
    return height, width


def origin(run: runs.Run, kit: Kit, *, averaged: bool, which: str) -> About:
    """What the artifact says of the run."""
    step = checkpoint.Slot(run.folder / which).newest()
    content = (run.folder / record.FILE).read_bytes()
    facts = {
        "stage": run.record.config.stage,
        "seed": run.seed,
        "checkpoint": which,
        "step": step,
        "steps": run.record.steps,
        "store": run.record.store,
        "config": hashlib.sha256(content).hexdigest(),
    }
    teacher = {name: run.record.teacher[name] for name in ("id", "provenance", "licence", "digest")}
    return About(run.preset, averaged, kit.body.tag if kit.body else "arc", facts, teacher)


def _said(options: Config, meta: dict[str, Any], found: parity.Parity) -> str:
    size = (options.out / "weights.safetensors").stat().st_size
    worst, acts = found.worst(), found.outputs.get("actions")
    told = worst.max_abs if math.isfinite(worst.max_abs) else None
    lines = [
        f"{options.out}: {meta['parameters']:,} values, {size / 1e6:.1f} MB of weights in {meta['dtype']}, program "
        f"{(options.out / 'program').stat().st_size / 1e6:.2f} MB for {', '.join(meta['platforms'])}",
        f"against the student in {found.against}: max difference {worst.max_abs:.2g}, cosine {worst.cosine:.6f}"
        + (f"; actions {acts.max_abs:.2g}, {acts.cosine:.6f}" if acts else "")
        + f"; same steps in {found.agreed:.0%} of {found.decisions} decisions",
    ]
    if meta["actions"]:
        lines.append(f"next: python -m eval.duel student={options.run} {meta['dtype']}={options.out}")
    else:
        lines.append(f"next: read {options.out / 'README.md'}; eval.policy.load({str(options.out)!r}) runs it")
    return "\n".join([*lines, json.dumps({"artifact": str(options.out), "bytes": size, "max_abs": told})])
