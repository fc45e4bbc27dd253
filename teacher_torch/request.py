"""What is asked of an extraction, and what that comes to on this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from typing import Literal

import torch

from bridge import shards, store
from bridge.manifest import GROUP_RECORDS, Manifest
from teacher_torch import groups, plan, provenance, standin
from teacher_torch.arc_inputs import Preparer
from teacher_torch.groot import checkpoint, tokenizer
from teacher_torch.groot.model import Groot
from teacher_torch.groot.tokenizer import Tokenizer
from teacher_torch.plan import PlanError

FEW = 4  # tasks a split where no teacher is named
OFFICIAL_TILES = 12
RANDOM = "random"
TOKENS_AT_ONCE = {"cpu": 8_192, "cuda": 262_144}
MOST_AT_ONCE = 256  # records
HEAD_FEATURES = ("adapted_features",)


@dataclasses.dataclass(frozen=True)
class Options:
    """Run a teacher over ARC records and write its features to a store. Stop it at any moment and run it again: it goes
    on after the last committed group and ends with the same bytes as an uninterrupted run. Without any option it
    extracts a few tasks, with the stand-in if that was trained, else with a random model of the same sizes."""

    teacher: str | None = None
    """standin-arc, a checkpoint folder, a hub id such as nvidia/GR00T-N1.5-3B, or random (an untrained stand-in)."""
    task: Literal["arc"] = "arc"
    """What the records are of."""
    dataset: Literal["arc1", "arc2"] = "arc1"
    """ARC-AGI-1 or -2. ARC-2's train split holds ARC-1 evaluation tasks: see bridge.arc.trainable before a report."""
    splits: tuple[str, ...] = ("train", "validation", "test")
    """Which splits to extract."""
    limit: int | None = None
    """Most tasks of each split, the first by id. Default: all; 4 where no teacher is named."""
    features: tuple[str, ...] = plan.DEFAULT_FEATURES
    """Names of features; there are also adapted_features and layer_convergence. cells are always stored."""
    tiles: int | None = None
    """Most tiles a frame is cut into: 12 is official, 1 compact. Default: 1 for a stand-in, else 12."""
    batch_size: int | None = None
    """Most records at a time; halved until a batch fits into memory, then kept in the manifest for good."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of weights and computation; auto is float32 for this project's stand-ins, else bfloat16."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto is a GPU where there is one."""
    shard: str = "0/1"
    """i/n: this machine is the i-th, from 0, of n that write one store; all other options must be the same."""
    out: str | None = None
    """The store: a folder, or a URL that tensorstore opens (s3://, gs://). Default: runs/features/TEACHER-DATASET."""
    seed: int = 0
    """Of the weights of a random teacher; nothing else here is drawn."""
    padding: Literal["white", "black"] = "white"
    """Colour outside the grid; black is the first attempt's and hides the grid's size."""
    tokenizer: str | None = None
    """Folder or hub id of GR00T's tokenizer, or packaged. Default: the teacher's own, else the hub's copy."""
    group: int = GROUP_RECORDS
    """Most records that are committed together, which is what a kill may cost."""
    resume: bool = True
    """Go on with a store that was begun; --no-resume refuses one that exists."""


class Setting:
    """What options and teacher come to: everything that the plan and the model need."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.shard = parse_shard(options.shard)
        self.teacher = find_teacher(options.teacher, options.seed)
        ours = self.teacher.id == RANDOM or (self.teacher.folder / provenance.FILE).is_file()
        self.device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = options.dtype if options.dtype != "auto" else "float32" if ours else "bfloat16"
        self.limit = FEW if options.limit is None and options.teacher is None else options.limit
        self.records = plan.choose_records(options.dataset, options.splits, self.limit)
        self.max_tiles = options.tiles or (standin.MAX_TILES if ours else OFFICIAL_TILES)
        self.words = load_tokenizer(options.tokenizer, self.teacher)
        self.preparer = Preparer(self.teacher.config, self.words, max_tiles=self.max_tiles, padding=options.padding)
        name = f"{pathlib.PurePosixPath(self.teacher.id).name}-{options.dataset}"
        self.out = options.out or f"runs/features/{name}{f'-{self.limit}' if self.limit else ''}"

    def manifest(self, batch_size: int) -> Manifest:
        """The plan with a batch size."""
        options = self.options
        return plan.make_manifest(
            self.teacher,
            self.words,
            self.records,
            names=options.features,
            max_tiles=self.max_tiles,
            group_records=options.group,
            extraction={
                "dataset": options.dataset,
                "dtype": self.dtype,
                "device": torch.device(self.device).type,
                "batch_size": batch_size,
                "seed": options.seed,
                "padding": options.padding,
            },
        )

    def recorded_batch(self) -> int | None:
        """The batch size of a store that was begun; None if there is none yet."""
        files = shards.connect(self.out)
        if shards.read(files, "manifest.json") is None:
            return None
        recorded = store.load_manifest(files).extraction.get("batch_size", 1)
        asked = self.options.batch_size
        if asked is not None and asked < recorded:
            raise PlanError(
                f"--batch-size {asked}, but {files.url} was begun with {recorded}, and its bytes depend on it: "
                "leave the option out, or choose another --out"
            )
        return recorded

    def load_model(self) -> Groot:
        """The teacher on its device; the action head only where a feature needs it."""
        features_only = not set(self.options.features) & set(HEAD_FEATURES)
        dtype = getattr(torch, self.dtype)
        if self.teacher.id == RANDOM:
            torch.manual_seed(self.options.seed)
            return Groot(self.teacher.config, with_head=not features_only).to(self.device, dtype).eval()
        return checkpoint.load(self.teacher.folder, dtype=dtype, device=self.device, features_only=features_only)

    def fit_batch(self, model: Groot | None) -> int:
        """The batch size for this device, tried on as many of the longest records."""
        longest = max(len(record.cells) for _, record in self.records)
        probes = [record for _, record in self.records if len(record.cells) == longest]
        tokens = max(self.manifest(1).axes["token"].counts)
        room = TOKENS_AT_ONCE[torch.device(self.device).type] // tokens
        most = self.options.batch_size or min(1 << max(room, 1).bit_length() - 1, MOST_AT_ONCE)
        features = plan.chosen_features(self.teacher.config, self.options.features)
        return groups.fit_batch(model, self.preparer, probes[:most], features)


def find_teacher(name: str | None, seed: int) -> standin.Teacher:
    """A named teacher; without a name the stand-in if it was trained, else a random model of its sizes."""
    if name is None:
        try:
            return standin.resolve("standin-arc")
        except standin.MissingStandIn:
            name = RANDOM
    if name != RANDOM:
        return standin.resolve(name)
    config = standin.make_config(standin.make_tokenizer())
    digest = hashlib.sha256(f"{config} seed {seed}".encode()).hexdigest()
    return standin.Teacher(RANDOM, pathlib.Path(RANDOM), "random", digest, config, "none")


def load_tokenizer(name: str | None, teacher: standin.Teacher) -> Tokenizer:
    """The named tokenizer; without a name the teacher's own, else the hub's copy of GR00T's."""
    if teacher.id == RANDOM and name is None:
        return standin.make_tokenizer()
    own = any((teacher.folder / file).is_file() for file in (tokenizer.TOKEN_IDS, *tokenizer.FILES))
    try:
        return tokenizer.load(name or (teacher.folder if own else tokenizer.HUB_COPY))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; or give --tokenizer {tokenizer.PACKAGED}, which needs no file") from error


def parse_shard(text: str) -> tuple[int, int]:
    """ "i/n" with 0 <= i < n."""
    parts = text.split("/")
    if len(parts) == 2 and all(part.isdecimal() for part in parts) and int(parts[0]) < int(parts[1]):
        return int(parts[0]), int(parts[1])
    raise PlanError(f"--shard {text}: expected i/n with 0 <= i < n, such as 0/4, 1/4, 2/4 and 3/4 on four machines")
