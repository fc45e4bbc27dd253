"""Load and save a GR00T N1.5: official, fine-tuned and LeRobot files, from a folder or the hub."""

import json
import os
import pathlib
from collections.abc import Mapping

import safetensors.torch
import torch

from teacher_torch.groot import backbone, hub, keys, layout, shards
from teacher_torch.groot import config as sizes
from teacher_torch.groot.model import Groot
from teacher_torch.groot.shards import CheckpointError, digest

__all__ = ["CheckpointError", "digest", "load", "resolve", "save"]
FLOATS = ("BF16", "F16", "F32", "F64")
PATTERNS = ["*.json", "*.safetensors", "*.txt", "experiment_cfg/*"]


def resolve(teacher: str | os.PathLike[str]) -> pathlib.Path:
    """The local folder of a checkpoint; a hub id (owner/name) is downloaded or found in the hub's cache."""
    return hub.resolve(teacher, PATTERNS, what="checkpoint")


def load(
    folder: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: str | torch.device = "cpu",
    features_only: bool = False,
) -> Groot:
    """A model in eval mode with weights from a folder or hub id, cast to dtype tensor by tensor.

    features_only: the action head is neither read nor held. The vision pooling head and the output head never are.
    Raises CheckpointError listing every key that is unknown, missing, doubled or of another shape.
    """
    folder = resolve(folder)
    config = sizes.from_folder(folder)
    with torch.device("meta"):
        model = Groot(config, with_head=not features_only)
    stored = shards.files(folder)
    found, unknown, doubled = keys.sources(stored, with_head=not features_only)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    _check(folder, wanted, found, shards.shapes(stored), unknown, doubled)
    names = {key: name for name, key in found.items()}
    state = {}
    for key, tensor in shards.read({key: stored[key] for key in names}):
        state[names[key]] = tensor.to(device=device, dtype=dtype, copy=True)
    model.load_state_dict(state, assign=True)
    backbone.restore_buffers(model.tower, model.language)
    return model.eval()


def _check(
    folder: pathlib.Path,
    wanted: Mapping[str, torch.Size],
    found: Mapping[str, str],
    stored: Mapping[str, tuple[tuple[int, ...], str]],
    unknown: list[str],
    doubled: list[str],
) -> None:
    """One error for everything that does not fit."""
    faults = [f"unknown: {key}" for key in unknown] + [f"given twice: {key}" for key in doubled]
    faults += [f"unknown: {key}" for name, key in found.items() if name not in wanted]
    faults += [f"missing: {keys.official(name)}" for name in wanted if name not in found]
    for name in wanted.keys() & found.keys():
        shape, kind = stored[found[name]]
        if shape != tuple(wanted[name]):
            faults.append(f"wrong shape: {found[name]} is {list(shape)}, config says {list(wanted[name])}")
        if kind not in FLOATS:
            faults.append(f"wrong type: {found[name]} is {kind}, expected one of {', '.join(FLOATS)}")
    if faults:
        lines = "\n  ".join(sorted(faults))
        raise CheckpointError(
            f"the weights in {folder} do not fit its {sizes.CONFIG} ({len(faults)} tensors):\n  {lines}\n"
            f"Fix: give a GR00T N1.5 checkpoint with its own {sizes.CONFIG} (and {sizes.EAGLE_CONFIG} where its "
            "sizes differ from the published ones); adapters (LoRA) must be merged first"
        )


def save(model: Groot, folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
    """Write config.json, eagle_config.json and model.safetensors in the official key layout (nested vision keys).

    dtype: what the weights are stored as; None keeps the model's.
    The output head is tied to embed_tokens and the pooling head has no function: both are left out, as loaders allow.
    """
    folder = pathlib.Path(folder)
    if model.head is None:
        raise ValueError(
            "a features_only model has no action head and makes no whole checkpoint: load it with the head"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip((sizes.CONFIG, sizes.EAGLE_CONFIG), layout.official(model.config), strict=True):
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True))
    kept = {name: tensor.detach().cpu().to(dtype or tensor.dtype) for name, tensor in model.state_dict().items()}
    state = {keys.official(name): tensor.contiguous() for name, tensor in kept.items()}
    partial = folder / (shards.SINGLE + ".partial")
    safetensors.torch.save_file(state, partial, metadata={"format": "pt"})
    partial.replace(folder / shards.SINGLE)
