"""What a teacher can do on ARC: its decoder's grids scored by DESIGN.md's rules, beside copying and a constant."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from bridge import arc
from teacher_torch import records
from teacher_torch.arc_batches import Episode
from teacher_torch.decoder import Context, GridDecoder
from teacher_torch.readout import CellReadout

BATCH = 8


@dataclasses.dataclass(frozen=True)
class Score:
    """Of one grid: right size; share of the true grid's cells that are right; all right."""

    size: float
    cells: float
    exact: float


def score(predicted: np.ndarray, answer: np.ndarray) -> Score:
    """Grids int [h, w]. Cells are counted inside the true grid alone; one that the prediction lacks is wrong."""
    height, width = (min(a, b) for a, b in zip(predicted.shape, answer.shape, strict=True))
    right = int((predicted[:height, :width] == answer[:height, :width]).sum())
    size = predicted.shape == answer.shape
    return Score(float(size), right / answer.size, float(size and right == answer.size))


def copy(episode: Episode) -> np.ndarray:
    """The baseline that repeats the query."""
    return arc.grid(episode.asked[0])


def constant(episode: Episode) -> np.ndarray:
    """The baseline that answers with colour 0 everywhere, on a grid of the query's size."""
    return np.zeros_like(copy(episode))


def measure(
    decoder: GridDecoder, read: Callable[[Sequence[Episode]], Context], episodes: Sequence[Episode]
) -> dict[str, float]:
    """Means over queries of the decoder's and the baselines' scores; `cells_at_true_size` is told the size first."""
    ordered = sorted(episodes, key=lambda episode: max(episode.answer.shape))
    scores: dict[str, list[Score]] = {"probe": [], "copy": [], "constant": []}
    told: list[float] = []
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        with torch.inference_mode():
            context = read(batch)
            told += _told(decoder, context, batch)
            scores["probe"] += [
                score(p.cpu().numpy(), e.answer) for p, e in zip(decoder.predict(context), batch, strict=True)
            ]
        scores["copy"] += [score(copy(episode), episode.answer) for episode in batch]
        scores["constant"] += [score(constant(episode), episode.answer) for episode in batch]
    means = {
        f"{who}.{field.name}": float(np.mean([getattr(s, field.name) for s in found]))
        for who, found in scores.items()
        for field in dataclasses.fields(Score)
    }
    return means | {"probe.cells_at_true_size": float(np.mean(told)), "queries": len(ordered)}


def _told(decoder: GridDecoder, context: Context, batch: Sequence[Episode]) -> list[float]:
    target, size = records.answers(batch)
    right = decoder(context, size.to(context.features.device)).cells.argmax(-1).cpu() == target
    return [float(grid[:h, :w].float().mean()) for grid, (h, w) in zip(right, size.tolist(), strict=True)]


def measure_vision(
    see: Callable[[np.ndarray], torch.Tensor], readout: CellReadout, cells: np.ndarray
) -> dict[str, float]:
    """How well single image tokens tell their cells, and how image tokens vary.

    see: uint8 cells [n, 30, 30] -> image tokens [n, t, d]. `colour` counts cells inside the grids, `canvas` all 900;
    `least_varied` and `most_varied` are channel standard deviations over the median channel's; `directions` is the
    participation ratio (sum of eigenvalues)^2 / sum of squares of the tokens' covariance, `directions_99` how many
    carry 99 % of it, and `_inside` the same over tokens whose patch holds a cell of the grid.
    """
    with torch.inference_mode():
        tokens = torch.cat([see(part) for part in np.array_split(cells, max(1, len(cells) // 64))])
        right = (readout(tokens).argmax(-1) == torch.tensor(cells)).numpy()
    inside = cells != arc.OUTSIDE
    per_token = torch.zeros(tokens.shape[:2]).scatter_add_(
        1, readout.token.flatten().expand(len(cells), -1), torch.tensor(inside).flatten(1).float()
    )
    deviation = tokens.flatten(0, 1).std(0)
    whole, within = _spectrum(tokens.flatten(0, 1)), _spectrum(tokens[per_token > 0])
    return {
        "vision.colour": float(right[inside].mean()),
        "vision.canvas": float(right.mean()),
        "vision.exact": float(right.all((1, 2)).mean()),
        "tokens.least_varied": float(deviation.min() / deviation.median()),
        "tokens.most_varied": float(deviation.max() / deviation.median()),
        "tokens.directions": whole[0],
        "tokens.directions_99": whole[1],
        "tokens.directions_inside": within[0],
        "tokens.directions_99_inside": within[1],
        "frames": len(cells),
    }


def _spectrum(tokens: torch.Tensor) -> tuple[float, float]:
    """(participation ratio, directions that carry 99 % of the variance) of tokens [n, d]."""
    values = torch.linalg.eigvalsh(torch.cov(tokens.double().T)).flip(0).clamp(min=0)
    carried = torch.cumsum(values / values.sum(), 0)
    return float(values.sum() ** 2 / values.square().sum()), int((carried < 0.99).sum()) + 1
