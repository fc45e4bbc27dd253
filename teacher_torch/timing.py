"""The teacher's own timing process: loads a checkpoint and answers one JSON line per JSON line, measuring inside.

Events out: `ready` (facts), `result` (seconds of each call), `memory`, `error`. Requests in: {"do": "run", "output",
"warm", "repeats"} or {"do": "memory"}. From uint8 frames to float32 numpy on the host, nothing cached between calls.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bridge import embodiment, memory
from bridge.observation import Observation
from teacher_torch import standin
from teacher_torch.groot import checkpoint, inputs, tokenizer
from teacher_torch.groot.model import Groot

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
OUTPUTS = ("image_tokens", "backbone_features")


class Clock:
    """The two things a teacher is timed at, from an observation to arrays on the host."""

    def __init__(self, model: Groot, observation: Observation, words: tokenizer.Tokenizer, *, max_tiles: int):
        self.model, self.observation, self.words = model, observation, words
        self.embodiment = embodiment.arc(max_tiles)
        self.device = next(model.parameters()).device
        self.vision, self.features = functools.partial(model.vision, attention=True), model.features

    def compile(self) -> None:
        """Compile both passes; the first call of each pays for it."""
        self.vision = torch.compile(self.vision, dynamic=False)
        self.features = torch.compile(self.features, dynamic=False)

    @torch.inference_mode()
    def image_tokens(self) -> tuple[np.ndarray, ...]:
        """Observation -> image tokens and vision attention, the outputs that the student's vision has."""
        config = self.model.config
        images = self.observation.video.reshape(-1, *self.observation.video.shape[-3:])
        cut = functools.partial(inputs.pixel_values, tile=config.tile, max_tiles=self.embodiment.transform.max_tiles)
        pixels = torch.cat([cut(image) for image in images]).to(self.device)
        return tuple(tensor.float().cpu().numpy() for tensor in self.vision(pixels))

    @torch.inference_mode()
    def backbone_features(self) -> tuple[np.ndarray, ...]:
        """Observation and its prompt -> backbone features."""
        config = self.model.config
        ready = inputs.prepare(
            self.observation,
            self.embodiment,
            self.words,
            tile=config.tile,
            tokens_per_tile=config.tokens_per_tile,
            state_dim=config.head.state_dim,
        ).to(self.device)
        return (self.features(ready.input_ids, ready.attention_mask, ready.pixel_values).float().cpu().numpy(),)

    def call(self, output: str) -> Callable[[], tuple[np.ndarray, ...]]:
        """The method that makes `output`."""
        return {"image_tokens": self.image_tokens, "backbone_features": self.backbone_features}[output]

    def cost(self, output: str) -> dict[str, float]:
        """Parameters, bytes of weights and FLOPs (products only) behind one output."""
        parts = [self.model.tower, self.model.connector] + [self.model.language] * (output == "backbone_features")
        weights = [p for part in parts for p in part.parameters()]
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self.call(output)()
        size = sum(p.numel() for p in weights)
        return {"parameters": size, "bytes": size * weights[0].element_size(), "flops": counter.get_total_flops()}


def answer(clock: Clock, request: dict) -> dict:
    """One reply to one request."""
    if request.get("do") == "memory":
        device = torch.cuda.max_memory_allocated(clock.device) if clock.device.type == "cuda" else None
        peak = memory.peak_bytes()
        return {"event": "memory", "peak_bytes": peak, "device_peak_bytes": device}
    if request.get("do") != "run" or request.get("output") not in OUTPUTS:
        return {"event": "error", "message": f"expected memory, or run with one of {', '.join(OUTPUTS)}, got {request}"}
    call = clock.call(request["output"])
    for _ in range(request["warm"]):
        call()
    return {"event": "result", "seconds": [_seconds(call) for _ in range(request["repeats"])]}


def observe(path: pathlib.Path) -> Observation:
    """The observation of an npz file {video, state, instruction, embodiment}."""
    with np.load(path) as arrays:
        instruction = tuple(str(text) for text in arrays["instruction"])
        return Observation(arrays["video"], arrays["state"], instruction, str(arrays["embodiment"]))


def main() -> None:
    """Announce `ready`, then answer until stdin closes."""
    arguments = _parse()
    channel = _own_channel()
    started = time.perf_counter()
    try:
        teacher = standin.resolve(arguments.teacher)
        device = torch.device(arguments.device)
        model = checkpoint.load(teacher.folder, dtype=DTYPES[arguments.dtype], device=device, features_only=True)
        words = tokenizer.load(arguments.tokenizer or teacher.folder)
        clock = Clock(model, observe(arguments.observation), words, max_tiles=arguments.max_tiles)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {' '.join(str(error).split())}") from None
    loaded = time.perf_counter()
    costs = {output: clock.cost(output) for output in OUTPUTS}
    if arguments.compile:
        clock.compile()
    warming = time.perf_counter()
    for output in OUTPUTS:
        clock.call(output)()
    facts = {"digest": teacher.digest, "load_s": loaded - started, "compile_s": time.perf_counter() - warming}
    _send(channel, event="ready", dtype=arguments.dtype, threads=torch.get_num_threads(), costs=costs, **facts)
    for line in sys.stdin:
        _send(channel, **answer(clock, json.loads(line)))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m teacher_torch.timing", description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", default="standin-arc", help="standin-arc, a checkpoint folder or a hub id")
    parser.add_argument(
        "--observation", type=pathlib.Path, required=True, help="npz {video, state, instruction, embodiment}"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="type of the weights and the computation")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile both passes (needs a C++ compiler on a CPU)"
    )
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--max-tiles", type=int, default=12, help="tiles an image is cut into, at most")
    parser.add_argument(
        "--tokenizer", default=None, help="tokenizer folder or hub id; default: the teacher's own folder"
    )
    return parser.parse_args()


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _own_channel():
    """Keep stdout for the protocol: whatever a library prints goes to stderr."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


def _send(channel, **message) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
