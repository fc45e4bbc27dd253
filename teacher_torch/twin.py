"""The student's twin in a timing process of its own, so that what JAX is worth is measured: eager and torch.compile'd.

`python -m teacher_torch.twin ARTIFACT --observation FILE.npz`; eval/timing.py drives it, line by line as the teacher.
Requests: {"do": "run", "warm", "repeats", "mode", "batch"}, {"do": "answer", "path"} (writes an npz), {"do": "memory"}.
"""

import argparse
import functools
import json
import pathlib
import time
from collections.abc import Callable, Mapping

import numpy as np
import safetensors.torch
import tokenizers
import torch

from bridge import channel
from bridge import embodiment as embodiments
from bridge.embodiment import Embodiment
from bridge.observation import Observation
from teacher_torch.clock import repeated
from teacher_torch.timing import DTYPES, observe
from teacher_torch.twin_layers import TwinError
from teacher_torch.twin_student import Twin

EXPECTED = "run, answer or memory, in mode {}"


class Clock:
    """A twin before one observation, from uint8 frames and text to numpy on the host."""

    def __init__(self, twin: Twin, meta: Mapping, observation: Observation, body: Embodiment | None):
        self.meta, self.observation, self.body = meta, observation, body
        self.device = twin.vision.position.device
        self.modes: dict[str, Callable] = {"eager": twin}
        if meta["tokenizer"]:
            self._tokenizer = tokenizers.Tokenizer.from_str(meta["tokenizer"])

    def compile(self) -> None:
        """Also compile the whole student: constants folded and weights packed on a CPU, CUDA graphs on a GPU."""
        on_cpu = {"options": {"freezing": True}}
        how = {"mode": "reduce-overhead"} if self.device.type == "cuda" else on_cpu
        self.modes["compiled"] = torch.compile(self.modes["eager"], dynamic=False, **how)

    def call(self, mode: str = "eager", batch: int = 1) -> Callable[[], dict[str, np.ndarray]]:
        """A call without arguments that answers for `batch` copies of the observation."""
        return functools.partial(self._answer, self.modes[mode], repeated(self.observation, batch))

    @torch.inference_mode()
    def _answer(self, student: Callable, seen: Observation) -> dict[str, np.ndarray]:
        given = [torch.from_numpy(seen.video)]
        if self.meta["tokenizer"]:
            given += self._words(seen.instruction)
        if self.meta["actions"]:
            state = seen.state if self.body is None else embodiments.normalise_rows(self.body, seen.state)
            given.append(torch.from_numpy(state))
        said = student(*(tensor.to(self.device) for tensor in given))
        found = {name: tensor.cpu().numpy() for name, tensor in said.items()}
        if self.body is not None and "actions" in found:
            found["actions"] = embodiments.denormalise_rows(self.body, found["actions"])
        return found

    @functools.lru_cache(maxsize=256)  # noqa: B019 - a clock lives as long as its process
    def _words(self, texts: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens int64 and mask bool [b, l], padded on the right with 0; remembered, as the student does."""
        tokens = np.zeros((len(texts), self.meta["language_length"]), np.int64)
        for row, text in zip(tokens, texts, strict=True):
            ids = self._tokenizer.encode(text).ids
            row[: len(ids)] = ids
        return torch.from_numpy(tokens), torch.from_numpy(tokens > 0)


def load(folder: pathlib.Path, dtype: torch.dtype, device: torch.device | str = "cpu") -> tuple[Twin, dict]:
    """(the twin, meta.json) of an artifact. Raises TwinError where the student is none that the twin can be."""
    meta = json.loads((folder / "meta.json").read_text())
    arrays = safetensors.torch.load_file(folder / "weights.safetensors")
    if any(array.dtype == torch.int8 for array in arrays.values()):
        raise TwinError(f"{folder} holds int8 weights: give the twin the float32 or bfloat16 artifact")
    return Twin(meta["student"], arrays, dtype).to(device).eval(), meta


def answer(clock: Clock, request: dict, *, default: str = "eager") -> dict:
    """One reply to one request."""
    if request.get("do") == "memory":
        return channel.held(torch.cuda.max_memory_allocated(clock.device) if clock.device.type == "cuda" else None)
    mode = request.get("mode", default)
    if mode not in clock.modes or request.get("do") not in ("run", "answer"):
        return channel.refused(EXPECTED.format(", ".join(clock.modes)), request)
    call = clock.call(mode, request.get("batch", 1))
    if request["do"] == "run":
        return channel.timed(call, request)
    np.savez(request["path"], **call())
    return {"event": "answer"}


def main() -> None:
    """Announce `ready`, then answer until stdin closes."""
    arguments, out = _parse(), channel.Channel()
    started = time.perf_counter()
    try:
        body = embodiments.load(arguments.metadata) if arguments.metadata else None
        twin, meta = load(arguments.artifact, DTYPES[arguments.dtype], arguments.device)
        clock = Clock(twin, meta, observe(arguments.observation), body)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {' '.join(str(error).split())}") from None
    loaded = time.perf_counter()
    modes = ("eager", "compiled") if arguments.both else ("compiled",) if arguments.compile else ("eager",)
    if modes != ("eager",):
        clock.compile()
    for mode in modes:
        clock.call(mode)()
    facts = {"load_s": loaded - started, "compile_s": time.perf_counter() - loaded}
    facts["bytes"] = sum(p.numel() * p.element_size() for p in twin.parameters())
    out.send(event="ready", dtype=arguments.dtype, threads=torch.get_num_threads(), **facts)
    out.serve(lambda request: answer(clock, request, default=modes[0]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m teacher_torch.twin", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("artifact", type=pathlib.Path, help="folder written by eval.export, float32 or bfloat16")
    add("--observation", type=pathlib.Path, required=True, help="npz {video, state, instruction, embodiment}")
    add("--metadata", type=pathlib.Path, default=None, help="embodiment of the robot; without it units are normalised")
    add("--dtype", choices=DTYPES, default="bfloat16", help="type of the large products and their weights")
    add("--compile", action="store_true", help="torch.compile the student (needs a C++ compiler on a CPU)")
    add("--both", action="store_true", help="eager and compiled over the same weights; a run says which `mode`")
    add("--device", default="cpu", help="torch device")
    return parser.parse_args()


if __name__ == "__main__":
    main()
