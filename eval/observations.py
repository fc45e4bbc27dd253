"""A robot store's observations of one split with what the teacher made of them, a batch in memory at a time."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from bridge import shuffle, store
from eval.frames import SplitError
from train import words

FEATURES = ("frames", "state", "instruction_id", "image_tokens", "fused_tokens", "noise", "actions", "demonstration")
BATCH = 16


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some observations. `inputs` is all that a student is given; the rest is the teacher's and the demonstrator's."""

    inputs: dict[
        str, np.ndarray
    ]  # video [b, 1, v, h, w, 3], state [b, 1, d], tokens, token_mask [b, l], noise [b, n, h, a]
    episode: np.ndarray  # int [b], index of the episode
    actions: np.ndarray  # float32 [b, n, h, a], the teacher's for each noise
    demonstration: np.ndarray  # float32 [b, h, a]
    image_tokens: np.ndarray  # float32 [b, v, t, c]
    fused_tokens: np.ndarray  # float32 [b, v, t, c]


class Observations:
    """At most `most` observations of a split, evenly spaced. Iterating reads them from disk, each time anew."""

    def __init__(self, reader: store.Reader, split: str, *, most: int | None = None):
        self.reader, self.split = reader, split
        if missing := [name for name in FEATURES if name not in reader.manifest.features]:
            raise SplitError(
                f"the store lacks {', '.join(missing)}; extract again with python -m teacher_torch.extract"
            )
        reader.exact("image_tokens", "fused_tokens")
        records = reader.records(split)
        if not len(records):
            raise SplitError(f"split {split!r} of the store is empty: the dataset has no episodes of it")
        self.available = len(records)
        count = min(self.available, most or self.available)
        self.records = records[np.linspace(0, len(records) - 1, count).round().astype(int)]
        names = np.array(reader.manifest.records["episode"])[self.records]
        self.episodes, self.episode = np.unique(names, return_inverse=True)
        self.instructions = tuple(reader.manifest.extraction["instructions"])
        self._asked = reader.take("instruction_id", self.records)
        self.said = [self.instructions[i] for i in self._asked]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the cameras."""
        return self.reader.embodiment().transform.video_keys

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a view."""
        height, width, _ = self.reader.manifest.features["frames"].shape
        return height, width

    def frames(self, at: np.ndarray) -> np.ndarray:
        """What was seen, uint8 [n, v, h, w, 3]."""
        return self._take("frames", at)

    def places(self) -> np.ndarray | None:
        """Where the task's objects are in each view: row and column in [0, 1], float32 [n, v, o, 2], simulator truth.
        None where the store does not say."""
        known = "pixels" in self.reader.manifest.features
        return self.reader.take("pixels", self.records) if known else None

    def batches(self, lexicon: words.Words, length: int, *, shuffled: bool = False) -> Iterator[Batch]:
        """Every observation in order. shuffled: with the images of another episode of the same task."""
        text = lexicon.encode(self.instructions, length)
        images = shuffle.of_another_episode(self.said, self.episode) if shuffled else np.arange(len(self))
        for first in range(0, len(self), BATCH):
            yield self._read(np.arange(first, min(first + BATCH, len(self))), images, text)

    def _read(self, at: np.ndarray, images: np.ndarray, text: tuple[np.ndarray, np.ndarray]) -> Batch:
        tokens, mask = (part[self._asked[at]] for part in text)
        inputs = {
            "video": self._take("frames", images[at])[:, None],
            "state": self._take("state", at)[:, None],
            "tokens": tokens,
            "token_mask": mask,
            "noise": self._take("noise", at),
        }
        views = inputs["video"].shape[2]
        found = {name: self._take(name, at).astype(np.float32) for name in FEATURES[3:] if name != "noise"}
        for name in ("image_tokens", "fused_tokens"):
            found[name] = found[name].reshape(len(at), views, -1, found[name].shape[-1])
        return Batch(inputs, self.episode[at], **found)

    def _take(self, name: str, at: np.ndarray) -> np.ndarray:
        return self.reader.take(name, self.records[at])
