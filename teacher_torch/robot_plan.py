"""What an extraction from a robot will write: features, lengths, layout, and the seeds of the noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bridge import manifest as manifests
from bridge.embodiment import Embodiment
from bridge.manifest import Feature, Manifest
from teacher_torch import plan, standin, taps
from teacher_torch.groot import inputs
from teacher_torch.groot.config import GrootConfig
from teacher_torch.plan import PlanError
from teacher_torch.robot_inputs import Preparer
from teacher_torch.robot_records import Records

KNOWN = ("state", "demonstration", "objects", "pixels", "instruction_id", "frames")
"""Features that no model is needed for."""
OPTIONAL = ("image_features", *("backbone_features", "adapted_features", "input_ids", "attention_mask", "image_mask"))
SOURCES = {
    "image_features": "backbone_features",
    "fused_tokens": "adapted_features",
    "text_features": "adapted_features",
    "noise": "path",
}
"""Features that are parts of a tap of another name."""
DEFINITIONS = {
    "demonstration": "the demonstrated actions from this row on, normalised; beyond the episode's end the last action "
    "is repeated for absolute keys and zero for relative ones",
    "noise": "path[:, 0], of torch.randn(noise_shape, generator=torch.Generator().manual_seed(n)) the valid action "
    "values, rounded to dtype; n is the first uint64 of numpy.random.SeedSequence([seed, episode, row]), halved",
    "saliency": "what the action queries look at, mean over draws, steps, heads and queries; sums to 1 over a record",
    "text_features": "mean of adapted_features over the tokens between the last </img> and the <|im_end|> after it: "
    "the instruction as the embodiment's style renders it, nothing of the chat template",
    "objects and pixels": "simulator truth: labels, never an input",
}


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Sizes that are not the teacher's: state and valid action values, views, the frames' height and width (None where
    the cameras differ), objects (None without simulator truth), noise draws and integration steps."""

    state: int
    action: int
    views: int
    picture: tuple[int, int] | None
    objects: int | None
    placed: bool
    draws: int
    steps: int


def features(config: GrootConfig, shapes: Shapes) -> dict[str, Feature]:
    """Everything that can be extracted for this robot from a model of these sizes."""
    chunk = (config.head.horizon, shapes.action)
    found = {
        "state": Feature((shapes.state,), "float32", "record"),
        "demonstration": Feature(chunk, "float32", "record"),
        "noise": Feature((shapes.draws, *chunk), "float32", "record"),
        "actions": Feature((shapes.draws, *chunk), "float32", "record"),
        "path": Feature((shapes.draws, shapes.steps + 1, *chunk), "float32", "record"),
        "velocity": Feature((shapes.draws, shapes.steps, *chunk), "float32", "record"),
        "confidence": Feature((), "float32", "record"),
        "layer_convergence": Feature((config.language.num_hidden_layers,), "float32", "record"),
        "text_features": Feature((config.width,), "float32", "record"),
        "instruction_id": Feature((), "int32", "record"),
    }
    if shapes.objects is not None:
        found["objects"] = Feature((shapes.objects, 3), "float32", "record")
    if shapes.objects is not None and shapes.placed:
        found["pixels"] = Feature((shapes.views, shapes.objects, 2), "float32", "record")
    if shapes.picture is not None:
        found["frames"] = Feature((*shapes.picture, 3), "uint8", "frame")
    wide = Feature((config.width,), "bfloat16", "image")
    found |= {"image_tokens": wide, "fused_tokens": wide, "image_features": wide}
    found |= {name: Feature((), "float32", "image") for name in ("vision_attention", "saliency")}
    found |= {name: Feature((config.width,), "bfloat16", "token") for name in ("backbone_features", "adapted_features")}
    found["input_ids"] = Feature((), "int32", "token")
    return found | {name: Feature((), "bool", "token") for name in ("attention_mask", "image_mask")}


def chosen(config: GrootConfig, shapes: Shapes, names: Sequence[str] | None) -> dict[str, Feature]:
    """The named features; without names all of records, frames and image tokens that are not optional."""
    known = features(config, shapes)
    if names is None:
        if shapes.picture is None:
            raise PlanError("the cameras differ in size, so that frames cannot be one array: name the other --features")
        names = [name for name in known if name not in OPTIONAL]
    found = plan.choose(known, names, what="this robot")
    if shapes.draws < 1 or shapes.steps < 1 or ("confidence" in found and shapes.draws < 2):
        raise PlanError(
            f"--draws {shapes.draws} --steps {shapes.steps}: expected 1 or more of each, and 2 draws for confidence"
        )
    return found


def check_body(config: GrootConfig, body: Embodiment) -> None:
    """PlanError where a teacher of these sizes has no room for the robot."""
    head, transform = config.head, body.transform
    if (width := sum(body.widths("state").values())) > head.state_dim:
        raise PlanError(f"embodiment {body.tag} has {width} state values, the teacher has room for {head.state_dim}")
    if transform.horizon != head.horizon:
        raise PlanError(
            f"embodiment {body.tag} has chunks of {transform.horizon} actions, the teacher makes {head.horizon}: write "
            f"its metadata again with python -m bridge.embodiment DATASET --horizon {head.horizon}"
        )
    if transform.projector_id >= head.embodiments:
        raise PlanError(
            f"embodiment {body.tag} uses projector {transform.projector_id}, the teacher has {head.embodiments}: write "
            "its metadata again with python -m bridge.embodiment DATASET --projector-id N"
        )


class Words:
    """Prompts of a robot's instructions: how long they are, and where the instruction itself lies."""

    def __init__(self, preparer: Preparer) -> None:
        self.preparer = preparer
        views = [1] * len(preparer.body.transform.video_keys)
        bare = preparer.tokenizer.encode(inputs.prompt("", views, preparer.config.tokens_per_tile))
        self._closing = len(bare) - self._start(bare)

    def length(self, instruction: str) -> int:
        """Tokens of the prompt."""
        return len(self.preparer.ids(instruction))

    def span(self, instruction: str) -> slice:
        """Positions of the instruction's own tokens: after the last </img>, before <|im_end|>."""
        ids = self.preparer.ids(instruction)
        found = slice(self._start(ids), len(ids) - self._closing)
        if found.start >= found.stop:
            raise PlanError("an episode has an empty instruction, of which there are no text features: give it a text")
        return found

    def _start(self, ids: Sequence[int]) -> int:
        return len(ids) - list(reversed(ids)).index(self.preparer.tokenizer.image_id) + 1  # </img> is one token


def noise_seed(episode: int, row: int, seed: int) -> int:
    """Seed of a record's noise draws, whatever its batch."""
    return int(np.random.SeedSequence([seed, episode, row]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def tapped(names: Sequence[str]) -> list[str]:
    """The taps that these features are made of."""
    return sorted({SOURCES.get(name, name) for name in names if name not in KNOWN})


def needs_head(names: Sequence[str]) -> bool:
    """Whether one of these features comes from the action head."""
    return not {*taps.HEAD, *taps.ACTION}.isdisjoint(tapped(names))


def make_manifest(
    teacher: standin.Teacher,
    records: Records,
    *,
    lengths: Sequence[int],
    views: int,
    features: Mapping[str, Feature],
    extraction: Mapping[str, Any],
    group_records: int = manifests.GROUP_RECORDS,
) -> Manifest:
    """The layout of everything that these records give; lengths: tokens of every record's prompt."""
    count = len(records)
    return manifests.make(
        "robot",
        plan.describe(teacher, max_tiles=1, columns=1, rows=1),
        features=features,
        counts={
            "record": [1] * count,
            "frame": [views] * count,
            "image": [views * teacher.config.tokens_per_tile] * count,
            "token": lengths,
        },
        records={
            "episode": records.episode.tolist(),
            "row": records.row.tolist(),
            "instruction": records.instruction,
            "split": records.split,
        },
        extraction=extraction,
        group_records=group_records,
    )
