"""What post-training trains: the stand-in from scratch, or only the decoder over the features of a frozen teacher."""

import functools
import hashlib
import pathlib
import shutil
from collections.abc import Callable, Sequence

import numpy as np
import torch

from bridge import arc
from teacher_torch import arc_batches, decoder, phases, probe, records
from teacher_torch.arc_batches import Episode
from teacher_torch.groot.config import GrootConfig
from teacher_torch.groot.model import Groot
from teacher_torch.groot.tokenizer import Tokenizer
from teacher_torch.readout import CellReadout

ROUND = 8  # batches that are drawn together and sorted by size
MOST_SHOWN = 3  # demonstrations of a training episode of the stand-in: more cost time and teach little
FITTED = 40  # tasks whose features the decoder's whitening is taken from
VISION, TASKS = range(2)  # streams of random numbers


class DiskError(ValueError):
    """Too little room for cached features; the message says how much they take."""


class StandInTrainee:
    """A Groot from scratch: first its vision tower by the cell readout, then its language model with the decoder."""

    def __init__(self, config: GrootConfig, tokenizer: Tokenizer, *, seed: int) -> None:
        torch.manual_seed(seed)
        self.seed = seed
        self.model = Groot(config)
        self.readout = CellReadout(config.width, config.grid)
        self.decoder = decoder.GridDecoder(decoder.DecoderConfig(config.width))
        self.layout = records.Layout(config, tokenizer, max_tiles=1)

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """All that is trained or kept."""
        return {"model": self.model, "readout": self.readout, "decoder": self.decoder}

    def phases(
        self, tasks: Sequence[arc.Task], *, vision: tuple[int, int, float], cells: tuple[int, int, float]
    ) -> list[phases.Phase]:
        """Vision pre-training, then language model and decoder together; each (steps, batch size, peak rate)."""
        pool = arc_batches.grids(tasks)
        drawn = functools.lru_cache(1)(lambda r: self._draw(tasks, r, cells[1]))
        eyes = [(vision[2], [self.model.tower, self.model.connector, self.readout])]
        mind = [(cells[2], [self.decoder]), (cells[2] / 2, [self.model.language])]
        return [
            phases.Phase("vision", vision[0], eyes, lambda step: self._vision_loss(pool, step, vision[1])),
            phases.Phase(
                "tasks",
                cells[0],
                mind,
                lambda step: self._loss(drawn(step // ROUND)[step % ROUND]),
                lambda: _fit(self.decoder, self.read, tasks),
            ),
        ]

    def see(self, cells: np.ndarray) -> torch.Tensor:
        """Canvases uint8 [n, 30, 30] -> image tokens [n, t, d]."""
        return self.model.vision(self.layout.prepare(list(cells[:, None])).pixel_values)[0]

    def read(self, episodes: Sequence[Episode]) -> decoder.Context:
        """The decoder's context of some episodes."""
        return records.read(self.model, self.layout, episodes)

    def measure(self, tasks: Sequence[arc.Task]) -> dict[str, float]:
        """Vision and probe numbers on tasks not trained on, with the weights rounded to bfloat16 as they are stored."""
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(parameter.bfloat16())
        frames = np.stack([arc.cells(grid) for grid in arc_batches.grids(tasks)])
        seen = probe.measure_vision(self.see, self.readout, frames)
        return seen | probe.measure(self.decoder, self.read, arc_batches.published(tasks))

    def _draw(self, tasks: Sequence[arc.Task], index: int, size: int) -> list[list[Episode]]:
        rng = np.random.default_rng([self.seed, TASKS, index])
        return arc_batches.draw(tasks, rng, size=size, batches=ROUND, most_shown=MOST_SHOWN)

    def _vision_loss(self, pool: Sequence[np.ndarray], step: int, batch: int) -> dict[str, torch.Tensor]:
        cells = arc_batches.canvases(pool, np.random.default_rng([self.seed, VISION, step]), batch)
        return {"readout": self.readout.loss(self.see(cells), torch.tensor(cells).long())}

    def _loss(self, episodes: Sequence[Episode]) -> dict[str, torch.Tensor]:
        return _grid_loss(self.decoder, self.read(episodes), episodes)


class FrozenTrainee:
    """Only a decoder, over features that a frozen teacher computes once per record and that are kept on disk."""

    def __init__(self, model: Groot, tokenizer: Tokenizer, *, cache: pathlib.Path, max_tiles: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.seed, self.model, self.cache = seed, model, cache
        self.layout = records.Layout(model.config, tokenizer, max_tiles=max_tiles)
        self.decoder = decoder.GridDecoder(decoder.DecoderConfig(model.config.width)).to(model.connector.weight.device)

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """All that is trained."""
        return {"decoder": self.decoder}

    def phases(self, tasks: Sequence[arc.Task], *, cells: tuple[int, int, float]) -> list[phases.Phase]:
        """One phase for the decoder: (steps, batch size, peak rate)."""
        published = arc_batches.published(tasks)
        drawn = functools.lru_cache(1)(lambda r: self._draw(published, r, cells[1]))
        rounds = -(-len(published) // cells[1])
        group = [(cells[2], [self.decoder])]
        return [
            phases.Phase(
                "tasks",
                cells[0],
                group,
                lambda step: self._loss(drawn(step // rounds)[step % rounds]),
                lambda: _fit(self.decoder, self.read, tasks),
            )
        ]

    def read(self, episodes: Sequence[Episode]) -> decoder.Context:
        """The decoder's context of some episodes."""
        shown = [[self._features(frames) for frames in episode.shown] for episode in episodes]
        return records.context(self.layout, shown, [self._features(episode.asked) for episode in episodes])

    def fill(self, tasks: Sequence[arc.Task], advance: Callable[[int, int], None]) -> None:
        """Compute what the cache lacks; advance(done, total) after every record. DiskError where it has no room."""
        frames = [cells for e in arc_batches.published(tasks) for cells in (*e.shown, e.asked)]
        lacking = {self._file(cells): cells for cells in frames if not self._file(cells).is_file()}
        lengths = {2: len(self.layout.shown.ids), 1: len(self.layout.asked.ids)}
        need = 2 * self.model.config.width * sum(lengths[len(cells)] for cells in lacking.values())
        self.cache.mkdir(parents=True, exist_ok=True)
        if need > (free := shutil.disk_usage(self.cache).free):
            raise DiskError(
                f"the features of {len(lacking)} records take {need / 1e9:.1f} GB, {self.cache} has {free / 1e9:.1f} "
                "GB left: give --max-tiles 1, or an --out on a larger disk"
            )
        for done, cells in enumerate(lacking.values(), start=1):
            self._features(cells)
            advance(done, len(lacking))

    def measure(self, tasks: Sequence[arc.Task]) -> dict[str, float]:
        """Probe numbers on tasks that were not trained on."""
        return probe.measure(self.decoder, self.read, arc_batches.published(tasks))

    def _draw(self, published: Sequence[Episode], index: int, size: int) -> list[list[Episode]]:
        rng = np.random.default_rng([self.seed, TASKS, index])
        return arc_batches.group([arc_batches.shuffled(episode, rng) for episode in published], rng, size)

    def _file(self, cells: np.ndarray) -> pathlib.Path:
        return self.cache / f"{hashlib.sha256(bytes([len(cells)]) + cells.tobytes()).hexdigest()[:24]}.pt"

    def _features(self, cells: np.ndarray) -> torch.Tensor:
        """Features [s, d] of one record, from the cache if it has them."""
        path, device = self._file(cells), self.model.connector.weight.device
        if path.is_file():
            return torch.load(path, weights_only=True, map_location=device)
        given = self.layout.prepare([cells]).to(device)
        with torch.no_grad():
            features = self.model.features(given.input_ids, given.attention_mask, given.pixel_values)[0]
        partial = path.with_suffix(".partial")
        torch.save(features.bfloat16().cpu().clone(), partial)
        partial.replace(path)
        return features.bfloat16()

    def _loss(self, episodes: Sequence[Episode]) -> dict[str, torch.Tensor]:
        return _grid_loss(self.decoder, self.read(episodes), episodes)


def _fit(
    grids: decoder.GridDecoder, read: Callable[[Sequence[Episode]], decoder.Context], tasks: Sequence[arc.Task]
) -> None:
    with torch.no_grad():
        grids.fit([read([episode]) for episode in arc_batches.published(tasks[:FITTED])])


def _grid_loss(
    grids: decoder.GridDecoder, context: decoder.Context, episodes: Sequence[Episode]
) -> dict[str, torch.Tensor]:
    device = context.features.device
    target, size = (part.to(device) for part in records.answers(episodes))
    return decoder.loss(grids(context, size), target, size, records.frames(episodes).to(device))
