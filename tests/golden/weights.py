"""Write the deterministic weights of the golden cases: `python tests/golden/weights.py tiny|full OUT [--seed 0]`.

Every tensor is a function of its official key, its shape and the seed alone; the file is written tensor by tensor,
so that `full` (2.7 billion values, 5.5 GB) needs about 2 GB of memory.
"""

import argparse
import json
import math
import pathlib
import shutil
import sys
import zlib
from collections.abc import Mapping

import torch

HERE = pathlib.Path(__file__).parent
LM_HEAD, EMBEDDING = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"


def shaped(key: str, value: torch.Tensor) -> torch.Tensor:
    """Standard normal values brought to the size that the parameter's kind, read from its key, asks for."""
    owner, name = key.split(".")[-2:]
    if name == "W":  # [embodiment, in, out]
        return value.div_(math.sqrt(value.shape[1]))
    if name == "b" or "bias" in name:
        return value.mul_(0.05)
    if value.ndim == 1:  # the scale of a norm
        return value.mul_(0.1).add_(1)
    if name == "probe" or owner in ("embed_tokens", "position_embedding", "future_tokens"):
        return value.mul_(0.5)
    return value.div_(math.sqrt(value[0].numel()))


def tensor(key: str, shape: list[int], seed: int) -> torch.Tensor:
    """One parameter in bfloat16. The output head is a second copy of the token embedding."""
    key = key.replace(LM_HEAD, EMBEDDING)
    generator = torch.Generator().manual_seed((zlib.crc32(key.encode()) ^ seed) & 0x7FFFFFFF)
    value = torch.empty(shape).normal_(generator=generator)
    return shaped(key, value).bfloat16()


def write(path: pathlib.Path, shapes: Mapping[str, list[int]], seed: int) -> None:
    """A safetensors file of these tensors, streamed in the order of `shapes`."""
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for i, (key, shape) in enumerate(shapes.items(), start=1):
            file.write(tensor(key, shape, seed).flatten().view(torch.uint8).numpy())
            if end > 2**30 and i % 50 == 0:
                print(f"{i}/{len(shapes)} tensors", file=sys.stderr)


def make(size: str, out: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """A checkpoint folder in the official layout, "tiny" or "full"."""
    out.mkdir(parents=True, exist_ok=True)
    write(out / "model.safetensors", json.loads((HERE / f"keys_{size}.json").read_text()), seed)
    for name in ("config", "eagle_config"):
        shutil.copyfile(HERE / f"{name}_{size}.json", out / f"{name}.json")
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=["tiny", "full"], help="22 million or 2.7 billion values")
    parser.add_argument("out", type=pathlib.Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="the golden cases were made with 0")
    arguments = parser.parse_args()
    print(make(arguments.size, arguments.out, arguments.seed))
