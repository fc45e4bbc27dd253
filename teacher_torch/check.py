"""`python -m teacher_torch.check TEACHER`: does this checkpoint load, what is in it, does it act?"""

import argparse
import functools
import json
import pathlib
import sys
import time

import numpy as np
import rich.console
import rich.table
import torch

from bridge import arc, memory
from bridge import embodiment as embodiments
from bridge.embodiment import Embodiment, EmbodimentError
from bridge.observation import Observation, ObservationError
from teacher_torch import provenance, standin, taps
from teacher_torch.groot import checkpoint, inputs, keys, shards, tokenizer
from teacher_torch.groot.checkpoint import CheckpointError
from teacher_torch.groot.config import ConfigError
from teacher_torch.groot.inputs import InputError, ModelInputs
from teacher_torch.groot.model import Groot, MismatchError
from teacher_torch.groot.tokenizer import TokenizerError

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}


class CheckError(ValueError):
    """A checkpoint that loads and yet does not work, or a device that is not there."""


# What a user can mend, reported in a line; anything else is a bug and keeps its traceback.
EXPECTED = (
    *(CheckError, ConfigError, CheckpointError, MismatchError, TokenizerError, EmbodimentError, ObservationError),
    *(InputError, taps.TapError, provenance.ProvenanceError, FileNotFoundError),
)
COMPONENTS = {
    "vision pooling head (not loaded)": (keys.POOLING,),
    "vision tower": (keys.VISION,),
    "connector": ("backbone.eagle_model.mlp1.",),
    "token embedding": (keys.EMBEDDING,),
    "output head (not loaded)": (keys.LM_HEAD,),
    "language layers": ("backbone.eagle_model.language_model.model.",),
    "action head: adapter": ("action_head.vlln.", "action_head.vl_self_attention."),
    "action head: diffusion transformer": ("action_head.model.",),
    "action head: encoders and decoder": ("action_head.",),
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m teacher_torch.check",
        description="Load a GR00T N1.5 checkpoint, say what is in it, and let it act on a made-up observation.",
    )
    parser.add_argument("teacher", nargs="?", default="standin-arc", help="folder, hub id or stand-in [%(default)s]")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="type to cast the weights to [%(default)s]")
    parser.add_argument("--device", default="cpu", help="torch device to run on, e.g. cuda [%(default)s]")
    parser.add_argument("--features-only", action="store_true", help="neither read nor run the action head [off]")
    parser.add_argument("--embodiment", help="tag to act as [the first one in the metadata, else arc]")
    parser.add_argument("--metadata", type=pathlib.Path, help="metadata.json to use [the checkpoint's own]")
    parser.add_argument("--tokenizer", help="folder, hub id or 'packaged' [the checkpoint's own, else packaged]")
    parser.add_argument("--instruction", default=arc.INSTRUCTION, help="what to ask of it [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of the made-up images and of the noise [%(default)s]")
    return parser.parse_args(argv)


def tags(source: pathlib.Path) -> list[str]:
    """Embodiment tags of a metadata file or checkpoint folder, in order; none where there is no file."""
    try:
        return list(json.loads(embodiments.find(source).read_text()))
    except FileNotFoundError:
        return []


def choose(folder: pathlib.Path, metadata: pathlib.Path | None, tag: str | None) -> tuple[Embodiment, list[str]]:
    """The embodiment to act as, and every tag that could have been named."""
    if metadata is not None:
        embodiments.find(metadata)  # one that was asked for must be there
    known = tags(metadata or folder)
    built_in = tag == "arc" if tag else not known
    if built_in and "arc" not in known:
        return embodiments.arc(), [*known, "arc"]
    if not known:
        raise EmbodimentError(
            f"unknown embodiment {tag!r}: {folder} has no metadata.json, and only 'arc' is built in; "
            "give the file that describes it (--metadata)"
        )
    return embodiments.load(metadata or folder, tag or known[0]), list(dict.fromkeys([*known, "arc"]))


def invent(body: Embodiment, instruction: str, seed: int) -> Observation:
    """One observation of noise images in the embodiment's resolutions, at its mean state."""
    sizes = [body.modalities["video"][key]["resolution"] for key in body.transform.video_keys]
    width, height = (max(size) for size in zip(*sizes, strict=True))
    shape = (1, 1, len(sizes), height, width, 3)
    video = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    mean = {key: values["mean"][None, None].astype(np.float32) for key, values in body.statistics["state"].items()}
    return Observation(video, embodiments.normalise(body, mean), (instruction,), body.tag)


def contents(folder: pathlib.Path) -> rich.table.Table:
    """Components of the files: tensors, values, types, from the headers alone."""
    rows: dict[str, list] = {name: [0, 0, set()] for name in [*COMPONENTS, "unknown"]}
    for key, (shape, dtype) in shards.shapes(shards.files(folder)).items():
        official = keys.canonical(key)
        prefixes = ((name, start) for name, starts in COMPONENTS.items() for start in starts)
        row = rows[next((name for name, start in prefixes if official.startswith(start)), "unknown")]
        row[0], row[1] = row[0] + 1, row[1] + int(np.prod(shape, dtype=np.int64))
        row[2].add(dtype)
    table = rich.table.Table("component", "tensors", "values", "types", title=str(folder))
    for name, (tensors, values, types) in rows.items():
        if tensors:
            table.add_row(name, f"{tensors:,}", f"{values:,}", ", ".join(sorted(types)))
    table.add_row("total", f"{sum(r[0] for r in rows.values()):,}", f"{sum(r[1] for r in rows.values()):,}", "")
    return table


def act(model: Groot, given: ModelInputs, body: Embodiment, seed: int) -> list[str]:
    """Run the model; one line per result. Raises CheckError on anything that is not finite."""
    names = ["image_tokens", "backbone_features"] + ([] if model.head is None else ["adapted_features", "actions"])
    noise = None if model.head is None else taps.draw_noise(model, [seed])
    started = time.perf_counter()
    taken = taps.collect(model, given, names, noise=noise, steps=model.config.head.steps)
    values = {name: value.float().cpu() for name, value in taken.items()}
    lines = [f"ran in {time.perf_counter() - started:.1f} s (first run), {given.input_ids.shape[1]} tokens"]
    for name, value in values.items():
        if not torch.isfinite(value).all():
            raise CheckError(f"{name} is not finite: the weights are damaged, or {model.dtype} is too small for them")
        lines.append(f"{name} {list(value.shape)}: mean {value.mean():.3f}, std {value.std():.3f}")
    if model.head is not None:
        chunk = embodiments.denormalise(body, values["actions"][0, 0].numpy())
        lines += [f"action.{key} {list(value.shape)}: first {np.round(value[0], 3)}" for key, value in chunk.items()]
    return lines


def check(args: argparse.Namespace, console: rich.console.Console) -> None:
    """Everything in order; the first fault is raised."""
    say = functools.partial(console.print, markup=False)
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        raise CheckError(f"--device {args.device}: torch sees no CUDA device here; use --device cpu")
    with console.status("reading the files and their digest"):
        teacher = standin.resolve(args.teacher)
    say(contents(teacher.folder))
    say(f"{teacher.provenance} teacher {teacher.id}, digest {teacher.digest}")
    say(f"licence: {teacher.licence}")
    body, known = choose(teacher.folder, args.metadata, args.embodiment)
    say(f"embodiments: {', '.join(known)}; acting as {body.tag} (projector {body.transform.projector_id})")
    coder = tokenizer.load(args.tokenizer) if args.tokenizer else tokenizer.beside(teacher.folder)
    config = teacher.config
    sizes = {"tile": config.tile, "tokens_per_tile": config.tokens_per_tile, "state_dim": config.head.state_dim}
    given = inputs.prepare(invent(body, args.instruction, args.seed), body, coder, **sizes)
    started = time.perf_counter()
    dtype = DTYPES[args.dtype]
    with console.status("loading"):
        model = checkpoint.load(teacher.folder, dtype=dtype, device=args.device, features_only=args.features_only)
    say(f"loaded as {args.dtype} on {args.device} in {time.perf_counter() - started:.1f} s")
    with console.status(f"running on {given.input_ids.shape[1]} tokens"):
        lines = act(model, given.to(args.device), body, args.seed)
    for line in lines:
        say(line)
    peak = memory.peak_bytes() / 2**30
    say(f"peak memory {peak:.2f} GiB; it loads and {'gives features' if args.features_only else 'acts'}")


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 it loads and acts, 2 it does not, with one clear message."""
    args = parse(argv)
    try:
        check(args, rich.console.Console(soft_wrap=True, highlight=False))
    except EXPECTED as error:
        rich.console.Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
