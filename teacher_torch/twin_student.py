"""The same student in PyTorch: its equations from its exported weights, every step of every module, x_0 = 0."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from teacher_torch import twin_layers as layers
from teacher_torch.twin_layers import TwinError, Weights
from teacher_torch.twin_vision import LIMIT, Readout, Vision

State = tuple[torch.Tensor, ...]
UNKNOWN = ("grid", "h_module", "seed")


class Language(nn.Module):
    """Text and the vision's tokens in one sequence [b, l + f p, d], refined by all steps."""

    def __init__(self, weights: Weights, config: Mapping, grid: int, target: Mapping, dtype: torch.dtype):
        super().__init__()
        self.steps = config["max_steps"]
        self.pieces, self.position = weights.value("pieces"), weights.value("position")
        self.widen, self.image = (layers.Linear(weights.within(name), dtype) for name in ("widen", "image"))
        self.text_blocks, self.blocks = (
            nn.ModuleList(layers.Block(each, config["heads"], dtype) for each in weights.each(name))
            for name in ("text_blocks", "blocks")
        )
        self.image_norm = layers.RmsNorm(weights.within("image_norm"))
        self.frame = weights.value("frame")
        self.step_embedding, self.gate = weights.value("step_embedding"), weights.value("gate")
        self.readout = Readout(weights.within("readout"), grid, target, dtype) if weights.has("readout") else None
        self.text_norm = layers.RmsNorm(weights.within("text_norm")) if self.readout else None
        self.text = layers.Linear(weights.within("text"), dtype) if self.readout else None
        parts = {name: weights.within(f"judge.{name}") for name in ("norm", "up", "out")}
        self.judge = layers.Judge(parts, weights.value("error_scale"), dtype)

    def start(self, seen: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """seen: the vision's tokens [b, f, p, d]; tokens int [b, l], mask bool [b, l]."""
        text = self.widen(self.pieces[tokens]).float() + self.position[: tokens.shape[1]]
        for block in self.text_blocks:
            text = block(text, mask)
        image = self.image(self.image_norm(seen)).float() + self.frame[: seen.shape[1], None]
        return torch.cat([text, image.flatten(1, 2)], dim=1).clamp(-LIMIT, LIMIT)

    def step(self, x: torch.Tensor, mask: torch.Tensor, k: int) -> torch.Tensor:
        """Refinement number k; mask bool [b, l + f p]."""
        before = x + self.step_embedding[k]
        after = before
        for block in self.blocks:
            after = block(after, mask)
        return (x + self.gate[k] * (after - before)).clamp(-LIMIT, LIMIT)

    def output(self, text: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """The teacher's adapted features at image positions, and their mean over the instruction's."""
        if self.readout is None:
            return {}
        mean = masked_mean(self.text_norm(text), mask)
        adapted = self.readout.token(self.readout.centres(image))
        return {"adapted_features": adapted.float(), "text_features": self.text(mean).float()}


class Control(nn.Module):
    """Normalised actions [b, h, a] from x_0 = 0, and the hidden tokens [b, h, d] that carry them from step to step."""

    def __init__(self, weights: Weights, config: Mapping, actions: Mapping, dtype: torch.dtype):
        super().__init__()
        self.steps, self.count, self.chunk = (
            config["max_steps"],
            config["heads"],
            (actions["horizon"], actions["width"]),
        )
        self.context_norm, self.carry_norm, self.out_norm = (
            layers.RmsNorm(weights.within(f"{name}_norm")) for name in ("context", "carry", "out")
        )
        self.keys_values = layers.Linear(weights.within("keys_values"), dtype)
        self.situation, self.prior, self.robot, self.embed, self.condition, self.modulate, self.out = (
            layers.Linear(weights.within(name))
            for name in ("situation", "prior", "robot", "embed", "condition", "modulate", "out")
        )
        self.embed.weight = nn.Parameter(self.embed.weight[:, : actions["width"]].contiguous(), requires_grad=False)
        weights.tensor("spread")  # it scales x_0, and so does the half of `embed` that is left out: x_0 is nought
        self.position, self.carry = weights.value("position"), weights.value("carry")
        self.step_embedding = weights.value("step_embedding")
        self.blocks = nn.ModuleList(layers.ActionBlock(each, self.count, dtype) for each in weights.each("blocks"))
        parts = {name: weights.within(f"judge.{name}") for name in ("norm", "up", "out")}
        self.judge = layers.Judge(parts, weights.value("error_scale"), dtype)
        self.low, self.high = weights.value("low"), weights.value("high")

    def start(self, context: torch.Tensor, mask: torch.Tensor, state: torch.Tensor) -> tuple[State, State]:
        """((actions, hidden), what all steps read of the context [b, n, d] and of the normalised state [b, s])."""
        seen = self.context_norm(context)
        features = F.gelu(self.situation(torch.cat([state, masked_mean(seen, mask)], -1)), approximate="tanh")
        key, value = layers.heads(self.keys_values(seen), self.count, 2)
        hidden = (features[:, None] + self.position).clamp(-LIMIT, LIMIT)
        actions = self.prior(features).unflatten(-1, self.chunk).clamp(self.low, self.high)
        return (actions, hidden), (features, self.robot(state)[:, None], key, value, mask)

    def step(self, x: State, known: State, k: int) -> State:
        """Refinement number k."""
        (actions, hidden), (features, robot, key, value, mask) = x, known
        changes = self.modulate(F.silu(self.condition(self.step_embedding[k] + features))).unflatten(-1, (6, -1))
        tokens = self.embed(actions) + self.position + self.carry * self.carry_norm(hidden)
        y = torch.cat([tokens, robot], dim=1)
        for block in self.blocks:
            y = block(y, changes, key, value, mask)
        hidden = y[:, : self.chunk[0]]
        actions = actions + self.out(self.out_norm(hidden))
        return actions.clamp(self.low, self.high), hidden.clamp(-LIMIT, LIMIT)


class Twin(nn.Module):
    """The student of an artifact. `config` is meta.json's "student"; weights as exported, folded: where those of the
    heads for the teacher's features were left out, it acts alone too."""

    def __init__(self, config: Mapping, arrays: Mapping[str, torch.Tensor], dtype: torch.dtype):
        super().__init__()
        if found := [name for name in UNKNOWN if config.get(name)]:
            raise TwinError(f"this student has {', '.join(found)}; the twin is of students that see, read and act")
        weights, target = Weights(arrays), config["target"]
        grid = config["vision"]["canvas"] // config["vision"]["patch"]
        self.vision = Vision(weights.within("vision"), config["vision"], target, dtype)
        self.language, self.control = None, None
        if settings := config.get("language"):
            self.language = Language(weights.within("language"), settings, grid, target, dtype)
        if settings := config.get("control"):
            self.control = Control(weights.within("control"), settings, config["actions"], dtype)
        if weights.rest:
            raise TwinError(f"{len(weights.rest)} weights have no place in the twin: {', '.join(weights.rest[:5])}")

    def forward(
        self,
        video: torch.Tensor,
        tokens: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        state: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Every feature by name and `energy.MODULE` [b], float32. video uint8 [b, t, v, h, w, 3]; tokens int64 and mask
        bool [b, l]; state float32 [b, 1, d] and `actions` [b, h, a] in normalised units."""
        first, again = self.vision.start(video)
        (seen,), energy = refine((first,), lambda x, k: (self.vision.step(*x, again, k),), self.vision)
        found = self.vision.output(seen) | {"energy.vision": energy}
        if self.language is None:
            return found
        length, shape = tokens.shape[1], seen.shape[:3]
        whole = torch.cat([mask, mask.new_ones(shape[0], shape[1] * shape[2])], dim=1)

        def image(x: torch.Tensor) -> torch.Tensor:
            return x[:, length:].unflatten(1, shape[1:])

        first = (self.language.start(seen, tokens, mask),)
        step = lambda x, k: (self.language.step(*x, whole, k),)  # noqa: E731
        (fused,), energy = refine(first, step, self.language, judged=image)
        found |= self.language.output(fused[:, :length], image(fused), mask) | {"energy.language": energy}
        if self.control is None:
            return found
        first, known = self.control.start(fused, whole, state[:, 0])
        (actions, _), energy = refine(first, lambda x, k: self.control.step(x, known, k), self.control)
        return found | {"actions": actions, "energy.control": energy}


def refine(
    state: State,
    step: Callable[[State, int], State],
    module: nn.Module,
    *,
    judged: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
) -> tuple[State, torch.Tensor]:
    """All steps of a module; the state of the lowest energy [b], the earlier one where two are equal, and that energy.

    judged: the part of the state's last tensor that the module's judge reads.
    """
    best, least = state, module.judge(judged(state[-1]))
    for k in range(module.steps):
        state = step(state, k)
        energy = module.judge(judged(state[-1]))
        better = energy < least
        best = tuple(
            torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old) for new, old in zip(state, best, strict=True)
        )
        least = torch.where(better, energy, least)
    return best, least


def masked_mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that may be read; zero where none may. x [b, n, d], mask bool [b, n]."""
    total = (x * mask[..., None]).sum(1)
    return total / mask.sum(1, keepdim=True).clamp(min=1)
