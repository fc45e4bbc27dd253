"""Small teachers of GR00T's own classes that two cores can train, and what `--teacher` may name."""

import dataclasses
import os
import pathlib

from bridge import arc
from teacher_torch import provenance
from teacher_torch.groot import checkpoint, inputs, tokenizer
from teacher_torch.groot import config as sizes

HOME = pathlib.Path("runs/teachers")
COMMANDS = {"standin-arc": "python -m teacher_torch.posttrain --task arc"}
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
    folder = pathlib.Path(home) / name if name in COMMANDS else pathlib.Path(name)
    if name in COMMANDS and not (folder / provenance.FILE).is_file():
        raise MissingStandIn(f"the stand-in {name} is not in {folder}: train it (minutes) with `{COMMANDS[name]}`")
    if name.startswith("standin-") and name not in COMMANDS and not folder.is_dir():
        raise MissingStandIn(f"no stand-in is called {name!r}; there is {', '.join(COMMANDS)}")
    folder = checkpoint.resolve(folder if name in COMMANDS else name)
    config, digest = sizes.from_folder(folder), checkpoint.digest(folder)
    kind = provenance.of(folder)
    return Teacher(name, folder, kind, digest, config, provenance.licence(folder, kind))


def make_tokenizer() -> tokenizer.Renumbered:
    """The packaged tokenizer, cut to the ids that ARC's two kinds of prompt use, in ascending order."""
    base = tokenizer.packaged()
    text = "".join(inputs.prompt(arc.INSTRUCTION, [1] * frames, 1) for frames in (1, 2))
    return tokenizer.Renumbered(base, sorted({*base.encode(text), base.pad_id, base.image_id}))


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
