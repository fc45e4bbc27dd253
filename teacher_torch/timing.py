"""The teacher's own timing process: loads a checkpoint and answers one JSON line per JSON line, measuring inside.

Events out: `ready` (facts), `result` (seconds of each call), `memory`, `error`. Requests in: {"do": "run", "output",
"warm", "repeats", "mode", "batch"} or {"do": "memory"}. From uint8 frames to float32 numpy on the host, nothing cached
between calls.
"""

import argparse
import pathlib
import time

import numpy as np
import torch

from bridge import channel, embodiment
from bridge.observation import Observation
from teacher_torch import full_size, standin
from teacher_torch.clock import OUTPUTS, Clock
from teacher_torch.groot import checkpoint, tokenizer
from teacher_torch.groot.config import GrootConfig
from teacher_torch.groot.model import Groot

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
EXPECTED = "memory, or run with one of {}"


def answer(clock: Clock, request: dict, *, outputs: tuple[str, ...] = OUTPUTS[:2], default: str = "eager") -> dict:
    """One reply to one request."""
    if request.get("do") == "memory":
        return channel.held(torch.cuda.max_memory_allocated(clock.device) if clock.device.type == "cuda" else None)
    mode = request.get("mode", default)
    if request.get("do") != "run" or request.get("output") not in outputs or mode not in clock.modes:
        return channel.refused(EXPECTED.format(", ".join(outputs)) + f", in {', '.join(clock.modes)}", request)
    return channel.timed(clock.call(request["output"], mode=mode, batch=request.get("batch", 1)), request)


def observe(path: pathlib.Path) -> Observation:
    """The observation of an npz file {video, state, instruction, embodiment}."""
    with np.load(path) as arrays:
        instruction = tuple(str(text) for text in arrays["instruction"])
        return Observation(arrays["video"], arrays["state"], instruction, str(arrays["embodiment"]))


def load(arguments: argparse.Namespace) -> tuple[Groot, tokenizer.Tokenizer, str]:
    """The model asked for, its tokenizer and the digest of its weights."""
    dtype, device, acts = DTYPES[arguments.dtype], torch.device(arguments.device), "actions" in arguments.outputs
    if arguments.teacher == full_size.NAME:
        model = full_size.build(GrootConfig(), dtype=dtype, device=device, with_head=acts)
        return model, tokenizer.packaged(), full_size.NAME
    teacher = standin.resolve(arguments.teacher)
    model = checkpoint.load(teacher.folder, dtype=dtype, device=device, features_only=not acts)
    return model, tokenizer.load(arguments.tokenizer or teacher.folder), teacher.digest


def main() -> None:
    """Announce `ready`, then answer until stdin closes."""
    arguments, out = _parse(), channel.Channel()
    started = time.perf_counter()
    try:
        model, words, digest = load(arguments)
        body = embodiment.load(arguments.metadata) if arguments.metadata else embodiment.arc(arguments.max_tiles)
        clock = Clock(model, observe(arguments.observation), words, body, physical=arguments.metadata is not None)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {' '.join(str(error).split())}") from None
    loaded = time.perf_counter()
    costs = {output: clock.cost(output) for output in arguments.outputs}
    modes = ("eager", "compiled") if arguments.both else ("compiled",) if arguments.compile else ("eager",)
    if modes != ("eager",):
        clock.compile()
    warming = time.perf_counter()
    for mode in modes:
        for output in arguments.outputs:
            clock.call(output, mode=mode)()
    facts = {"digest": digest, "load_s": loaded - started, "compile_s": time.perf_counter() - warming}
    out.send(event="ready", dtype=arguments.dtype, threads=torch.get_num_threads(), costs=costs, **facts)
    out.serve(lambda request: answer(clock, request, outputs=tuple(arguments.outputs), default=modes[0]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m teacher_torch.timing", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--teacher",
        default="standin-arc",
        help=f"a stand-in, a checkpoint folder, a hub id, or {full_size.NAME}: 2.7 billion values drawn in memory",
    )
    add("--observation", type=pathlib.Path, required=True, help="npz {video, state, instruction, embodiment}")
    add("--metadata", type=pathlib.Path, default=None, help="embodiment of a robot; state and actions are physical")
    add("--outputs", nargs="+", choices=OUTPUTS, default=OUTPUTS[:2], help="what is timed")
    add("--dtype", choices=DTYPES, default="bfloat16", help="type of the weights and the computation")
    add("--compile", action="store_true", help="torch.compile every pass (needs a C++ compiler on a CPU)")
    add("--both", action="store_true", help="eager and compiled over the same weights; a run says which `mode`")
    add("--device", default="cpu", help="torch device")
    add("--max-tiles", type=int, default=12, help="tiles an image is cut into, at most (without --metadata)")
    add("--tokenizer", default=None, help="tokenizer folder or hub id; default: the teacher's own folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
