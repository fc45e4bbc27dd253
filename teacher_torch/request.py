"""What every extraction is asked, and what that comes to on this machine."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import pathlib
from typing import Literal

import torch

from bridge import compaction, shards, store
from bridge.compaction import DROPPED, Choices
from bridge.manifest import GROUP_RECORDS, Manifest
from bridge.store import Writer
from teacher_torch import groups, provenance, standin
from teacher_torch.groot import checkpoint, tokenizer
from teacher_torch.groot.config import GrootConfig
from teacher_torch.groot.model import Groot
from teacher_torch.groot.tokenizer import Tokenizer
from teacher_torch.plan import PlanError

FEW = 4  # tasks or episodes a split where no teacher is named
RANDOM = "random"
TOKENS_AT_ONCE = {"cpu": 8_192, "cuda": 262_144}
MOST_AT_ONCE = 256  # records


@dataclasses.dataclass(frozen=True)
class Options:
    """What both tasks have in common."""

    teacher: str | None = None
    """A stand-in's name, a checkpoint folder, a hub id such as nvidia/GR00T-N1.5-3B, or random (an untrained stand-in).
    Default: the task's stand-in if it was trained, else random."""
    splits: tuple[str, ...] = ("train", "validation", "test")
    """Which splits to extract."""
    batch_size: int | None = None
    """Most records at a time; halved until a batch fits into memory, then kept in the manifest for good."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of weights and computation; auto is float32 for this project's stand-ins, else bfloat16."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto is a GPU where there is one."""
    shard: str = "0/1"
    """i/n: this machine is the i-th, from 0, of n that write one store; all other options must be the same."""
    workers: int = 1
    """Processes on this machine that share its work, each with a model of its own; GPUs are dealt out among them."""
    profile: Literal["exact", "compact"] = "exact"
    """compact: blocks of 2 x 2 image tokens in --components values of int8, the teacher's numbers in float16; what
    python -m bridge.compact makes of an exact store."""
    components: int = Choices.components
    """Compact: most values of a block."""
    variance: float = Choices.variance
    """Compact: share of the training tokens' variance that is enough."""
    out: str | None = None
    """The store: a folder, or a URL that tensorstore opens (s3://, gs://). Default: runs/features/TEACHER-DATASET."""
    tokenizer: str | None = None
    """Folder or hub id of GR00T's tokenizer, or packaged. Default: the teacher's own, else the hub's copy."""
    group: int = GROUP_RECORDS
    """Most records that are committed together, which is what a kill may cost."""
    resume: bool = True
    """Go on with a store that was begun; --no-resume refuses one that exists."""


class Setting(abc.ABC):
    """What options and teacher come to: everything that the plan and the model need."""

    source: groups.Source
    words: Tokenizer

    def __init__(self, options: Options, teacher: standin.Teacher, *, seed: int, limit: int | None) -> None:
        """seed: of a random teacher's weights; limit: tasks or episodes a split, None for all."""
        self.options, self.teacher, self.seed = options, teacher, seed
        self.shard = parse_shard(options.shard)
        self.limit = FEW if limit is None and options.teacher is None else limit
        self.device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        self.choices = choices(options)
        self.dtype = options.dtype if options.dtype != "auto" else "float32" if self.ours else "bfloat16"

    @abc.abstractmethod
    def manifest(self, batch_size: int) -> Manifest:
        """The plan with a batch size."""

    @abc.abstractmethod
    def needs(self, manifest: Manifest) -> tuple[bool, bool]:
        """(whether a feature comes from the model, whether one comes from its action head)."""

    @abc.abstractmethod
    def summary(self, manifest: Manifest) -> str:
        """The records in words."""

    def warnings(self) -> list[str]:
        """What must be said loudly before it begins."""
        return []

    def begin(self, manifest: Manifest) -> Writer:
        """The store's writer; nothing changes in a store that was begun."""
        return store.create(self.out, manifest)

    @property
    def ours(self) -> bool:
        """Whether this project made the weights."""
        return self.teacher.id == RANDOM or (self.teacher.folder / provenance.FILE).is_file()

    def default_out(self, dataset: str) -> str:
        """Where the store goes unless --out says."""
        name = f"{pathlib.PurePosixPath(self.teacher.id).name}-{dataset}"
        compact = "-compact" if self.choices else ""
        return f"runs/features/{name}{f'-{self.limit}' if self.limit else ''}{compact}"

    @property
    def out(self) -> str:
        """The store."""
        return self.options.out or self.default_out(self.dataset)

    @property
    @abc.abstractmethod
    def dataset(self) -> str:
        """The dataset's name, no path: bytes are of no machine."""

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

    def load_model(self, *, with_head: bool) -> Groot:
        """The teacher on its device."""
        dtype = getattr(torch, self.dtype)
        if self.teacher.id == RANDOM:
            torch.manual_seed(self.seed)
            return Groot(self.teacher.config, with_head=with_head).to(self.device, dtype).eval()
        return checkpoint.load(self.teacher.folder, dtype=dtype, device=self.device, features_only=not with_head)

    def fit_batch(self, model: Groot | None) -> int:
        """The batch size for this device, tried on as many of the longest records."""
        draft = self.manifest(1)
        lengths = draft.axes["token"].counts
        tokens = max(lengths)
        room = TOKENS_AT_ONCE[torch.device(self.device).type] // tokens
        most = self.options.batch_size or min(1 << max(room, 1).bit_length() - 1, MOST_AT_ONCE)
        longest = [record for record, length in enumerate(lengths) if length == tokens]
        return groups.fit_batch(model, self.source, longest[:most], draft.features)


def find_teacher(name: str | None, task: str) -> standin.Teacher | None:
    """A named teacher; without a name the task's stand-in if it was trained; None for a random one.

    Raises PlanError for one of this project's teachers that was trained for another task than "arc" | "robot".
    """
    if name == RANDOM:
        return None
    try:
        teacher = standin.resolve(name or f"standin-{task}")
    except standin.MissingStandIn:
        if name is not None:
            raise
        return None
    trained = provenance.task(teacher.folder)
    if trained not in (None, task):
        raise PlanError(
            f"the teacher {teacher.id} was trained for --task {trained}, not {task}: name another --teacher, such as "
            f"standin-{task}, or extract --task {trained}"
        )
    return teacher


def random_teacher(config: GrootConfig, seed: int) -> standin.Teacher:
    """An untrained model of these sizes."""
    digest = hashlib.sha256(f"{config} seed {seed}".encode()).hexdigest()
    return standin.Teacher(RANDOM, pathlib.Path(RANDOM), "random", digest, config, "none")


def load_tokenizer(name: str | None, teacher: standin.Teacher) -> Tokenizer:
    """The named tokenizer; without a name the teacher's own, else the hub's copy of GR00T's."""
    own = any((teacher.folder / file).is_file() for file in (tokenizer.TOKEN_IDS, *tokenizer.FILES))
    try:
        return tokenizer.load(name or (teacher.folder if own else tokenizer.HUB_COPY))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; or give --tokenizer {tokenizer.PACKAGED}, which needs no file") from error


def choices(options: Options) -> Choices | None:
    """How compact the store is to be; None: exact. What is named in --features is never left out."""
    if options.profile == "exact":
        return None
    named = getattr(options, "features", None) or ()
    return compaction.choose(options.components, options.variance, [name for name in DROPPED if name not in named])


def parse_shard(text: str) -> tuple[int, int]:
    """ "i/n" with 0 <= i < n."""
    parts = text.split("/")
    if len(parts) == 2 and all(part.isdecimal() for part in parts) and int(parts[0]) < int(parts[1]):
        return int(parts[0]), int(parts[1])
    raise PlanError(f"--shard {text}: expected i/n with 0 <= i < n, such as 0/4, 1/4, 2/4 and 3/4 on four machines")
