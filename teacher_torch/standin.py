"""Small teachers of GR00T's own classes that two cores can train, and what `--teacher` may name."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable

from bridge import arc
from bridge.embodiment import Embodiment
from teacher_torch import provenance
from teacher_torch.groot import checkpoint, inputs, tokenizer
from teacher_torch.groot import config as sizes

HOME = pathlib.Path("runs/teachers")
COMMANDS = {
    "standin-arc": "python -m teacher_torch.posttrain --task arc",
    "standin-robot": "python -m teacher_torch.posttrain --task robot",
}
SHIPPED = pathlib.Path(__file__).parent / "standins"
"""Trained stand-ins that come with the project; one of the same name in HOME goes first."""
MAX_TILES = 1  # a stand-in sees a frame as one tile


class MissingStandIn(FileNotFoundError):
    """A stand-in that was not trained yet; the message names the command that trains it."""


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A resolved `--teacher`: its folder, what it may claim to be, the digest of what it computes, its sizes."""

    id: str
    folder: pathlib.Path
    provenance: str
    digest: str
    config: sizes.GrootConfig
    licence: str


def resolve(teacher: str | os.PathLike[str], *, home: pathlib.Path | str = HOME) -> Teacher:
    """A stand-in's name, a checkpoint folder or a hub id (downloaded) -> Teacher.

    provenance: "real" | "stand-in" | "random" (provenance.of). Raises MissingStandIn or another FileNotFoundError.
    """
    name = os.fspath(teacher)
    folder = _stand_in(name, pathlib.Path(home)) if name in COMMANDS else pathlib.Path(name)
    if name in COMMANDS and not (folder / provenance.FILE).is_file():
        raise MissingStandIn(f"the stand-in {name} is not in {folder}: train it (minutes) with `{COMMANDS[name]}`")
    if name.startswith("standin-") and name not in COMMANDS and not folder.is_dir():
        raise MissingStandIn(f"no stand-in is called {name!r}; there is {', '.join(COMMANDS)}")
    folder = checkpoint.resolve(folder if name in COMMANDS else name)
    config, digest = sizes.from_folder(folder), checkpoint.digest(folder)
    kind = provenance.of(folder)
    return Teacher(name, folder, kind, digest, config, provenance.licence(folder, kind))


def _stand_in(name: str, home: pathlib.Path) -> pathlib.Path:
    trained = home / name
    return trained if (trained / provenance.FILE).is_file() or not (SHIPPED / name).is_dir() else SHIPPED / name


def make_tokenizer() -> tokenizer.Renumbered:
    """The packaged tokenizer, cut to the ids that ARC's two kinds of prompt use, in ascending order."""
    return cut_tokenizer(inputs.prompt(arc.INSTRUCTION, [1] * frames, 1) for frames in (1, 2))


def cut_tokenizer(prompts: Iterable[str]) -> tokenizer.Renumbered:
    """The packaged tokenizer, cut to the ids that these prompts use, in ascending order."""
    base = tokenizer.packaged()
    used = {token for text in prompts for token in base.encode(text)}
    return tokenizer.Renumbered(base, sorted({*used, base.pad_id, base.image_id}))


def make_config(tokens: tokenizer.Renumbered) -> sizes.GrootConfig:
    """Sizes of `standin-arc`: 64 tokens per frame, vision 96 wide, language 128 wide and 3 layers kept."""
    return sizes.GrootConfig(
        vision=sizes.VisionConfig(96, 384, 3, 4, patch_size=28, image_size=224),
        language=sizes.LanguageConfig(128, 384, 3, 4, 2, head_dim=32, vocab_size=len(tokens.table)),
        head=sizes.HeadConfig(
            hidden_size=32,
            input_embedding_dim=64,
            output_dim=32,
            future_tokens=8,
            max_positions=64,
            dit=sizes.TransformerConfig(2, 4, 16),
            adapter=sizes.TransformerConfig(1, 4, 32),
        ),
        image_token_id=tokens.image_id,
    )


ROBOT_TILE = 128


def seen_whole(body: Embodiment) -> Embodiment:
    """The same robot as a stand-in sees it: whole views at its own tile size, one tile each, the first projector."""
    changes = {"crop": None, "resize": ROBOT_TILE, "max_tiles": 1, "projector_id": 0, "instruction_style": "plain"}
    return dataclasses.replace(body, transform=dataclasses.replace(body.transform, **changes))


def make_robot_config(tokens: tokenizer.Renumbered) -> sizes.GrootConfig:
    """Sizes of `standin-robot`: 64 tokens per 128-pixel view, everything 128 wide, one embodiment; 2.7 M values."""
    return sizes.GrootConfig(
        vision=sizes.VisionConfig(128, 384, 4, 4, patch_size=16, image_size=ROBOT_TILE),
        language=sizes.LanguageConfig(128, 384, 3, 4, 2, head_dim=32, vocab_size=len(tokens.table)),
        head=sizes.HeadConfig(
            hidden_size=64,
            input_embedding_dim=128,
            output_dim=64,
            action_dim=8,
            state_dim=8,
            future_tokens=8,
            max_positions=32,
            embodiments=1,
            dit=sizes.TransformerConfig(4, 4, 32, dropout=0.0),
            adapter=sizes.TransformerConfig(1, 4, 32, dropout=0.0),
        ),
        image_token_id=tokens.image_id,
    )
