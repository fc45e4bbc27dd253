"""What post-training on a robot trains: the stand-in from scratch, or a checkpoint by GR00T's own fine-tuning."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from teacher_torch import augment, flow, phases, robot_inputs, robot_samples, sight
from teacher_torch.groot.inputs import ModelInputs
from teacher_torch.groot.model import Groot
from teacher_torch.robot_samples import Batch, Samples

VISION, ACTION = range(2)  # streams of random numbers
REMEMBER = 0.1  # weight of the vision losses beside flow matching


@dataclasses.dataclass(frozen=True)
class Tune:
    """Which parts move, as in GR00T's own flags; the head's norm, adapter and future tokens always do."""

    llm: bool = False
    """The language model."""
    visual: bool = False
    """The vision tower and the connector."""
    projector: bool = True
    """State and action encoders, action decoder, position embedding."""
    diffusion_model: bool = True
    """The diffusion transformer."""


@dataclasses.dataclass(frozen=True)
class Course:
    """One phase: steps, samples per step, peak learning rate."""

    steps: int
    batch: int
    rate: float


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How examples become losses."""

    draws: int = 4
    """Pairs of noise and time per example: the context, the larger part of the work, is computed once for all."""
    jitter: augment.Jitter = augment.Jitter()  # noqa: RUF009 - frozen
    """Strength of the colour augmentation."""
    seed: int = 0
    """Of batches, noise, augmentation and dropout."""
    mask_padding: bool = True
    """Hide the padding of shorter prompts from the head, which the official code does not."""


class FlowTrainee:
    """A model under GR00T's flow-matching loss."""

    def __init__(
        self, model: Groot, preparer: robot_inputs.Preparer, samples: Samples, recipe: Recipe, *, tune: Tune
    ) -> None:
        self.model, self.preparer, self.samples, self.recipe, self.tune = model, preparer, samples, recipe, tune
        self.device = model.connector.weight.device
        for part in frozen(model, tune):
            part.requires_grad_(False)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """All that is trained or kept."""
        return {"model": self.model}

    def phases(self, course: Course) -> list[phases.Phase]:
        """Flow matching over every part that is tuned."""
        read = robot_samples.Ahead(lambda step: self.draw(ACTION, step, course.batch))
        groups = [(course.rate, [part]) for part in tuned(self.model, self.tune)]
        return [phases.Phase("actions", course.steps, groups, lambda step: self.flow_loss(read(step), step))]

    def draw(self, stream: int, step: int, size: int) -> Batch:
        """The batch of a step: positions drawn evenly over the samples."""
        rng = np.random.default_rng([self.recipe.seed, stream, step])
        return self.samples.read(np.sort(rng.integers(0, len(self.samples), size)))

    def flow_loss(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """The named losses of one step."""
        return self._flow(batch, step)[0]

    def _flow(self, batch: Batch, step: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The loss, and the image tokens it was computed from."""
        generator = seeded(self.recipe.seed, ACTION, step)
        self._set_training()
        with computing(self.device):
            given = self._augmented(batch, generator)
            tokens = self.model.vision(given.pixel_values)[0]
            features = self.model.read(self.model.embed(given.input_ids, tokens), given.attention_mask)
            mask = given.attention_mask.bool() if self.recipe.mask_padding else None
            adapted = self.model.adapted(features, mask)
            context = self.model.context(adapted, given.state, given.embodiment_id, mask)
            actions = torch.from_numpy(batch.actions)
            value = flow.loss(self.model, context, actions, draws=self.recipe.draws, generator=generator)
        return {"flow": value}, tokens

    def _augmented(self, batch: Batch, generator: torch.Generator) -> ModelInputs:
        given = self.preparer.augmented(
            batch.frames, batch.state, batch.instruction, strength=self.recipe.jitter, generator=generator
        )
        return given.to(self.device)

    def _set_training(self) -> None:
        """Dropout in what is tuned; frozen parts are in eval mode, as officially."""
        self.model.train()
        for part in frozen(self.model, self.tune):
            part.eval()


class StandInTrainee(FlowTrainee):
    """A Groot from scratch. Its vision tower first learns where the task's objects are, from simulator truth that is
    never an input: the stand-in for what SigLIP's pre-training brings. Without it the policy never uses its images."""

    def __init__(self, model: Groot, preparer: robot_inputs.Preparer, samples: Samples, recipe: Recipe) -> None:
        super().__init__(model, preparer, samples, recipe, tune=Tune(llm=True, visual=True))
        if samples.places is None:
            raise phases.TrainingError(
                f"{samples.dataset.folder} has no {robot_samples.PIXELS} and {robot_samples.OBJECTS} columns: the "
                "stand-in's vision learns from them; record demonstrations with python -m bridge.demonstrations"
            )
        views, objects = samples.places.shape[1:3]
        self.sight = sight.Sight(model.config.width, model.config.grid, views=views, objects=objects)

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "sight": self.sight}

    def courses(self, vision: Course, actions: Course) -> list[phases.Phase]:
        """Vision pre-training, then flow matching over everything, language and vision at lower rates."""
        read = robot_samples.Ahead(lambda step: self.draw(VISION, step, vision.batch))
        following = robot_samples.Ahead(lambda step: self.draw(ACTION, step, actions.batch))
        model = self.model
        eyes = [model.tower, model.connector, self.sight]
        parts = [(1.0, [model.head]), (0.5, [model.language]), (0.3, eyes)]
        groups = [(share * actions.rate, modules) for share, modules in parts]
        return [
            phases.Phase("vision", vision.steps, [(vision.rate, eyes)], lambda step: self.sight_loss(read(step), step)),
            phases.Phase("actions", actions.steps, groups, lambda step: self.both_losses(following(step), step)),
        ]

    def sight_loss(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Where the objects are, from the image tokens alone."""
        generator = seeded(self.recipe.seed, VISION, step)
        with computing(self.device):
            tokens = self.model.vision(self._augmented(batch, generator).pixel_values)[0]
        return self._seen(tokens, batch)

    def both_losses(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Flow matching, and a little of the pre-training so that it is not forgotten."""
        terms, tokens = self._flow(batch, step)
        return terms | {name: REMEMBER * value for name, value in self._seen(tokens, batch).items()}

    def _seen(self, tokens: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        space = (batch.objects - self.samples.centre) / self.samples.spread
        return self.sight.loss(tokens, torch.from_numpy(batch.pixels), torch.from_numpy(space.astype(np.float32)))


def tuned(model: Groot, tune: Tune) -> list[nn.Module]:
    """Modules that move."""
    head = model.head
    parts: list[nn.Module] = [head.vlln, head.vl_self_attention, head.future_tokens]
    parts += [model.language] if tune.llm else []
    parts += [model.tower, model.connector] if tune.visual else []
    projector = [head.state_encoder, head.action_encoder, head.action_decoder, head.position_embedding]
    parts += projector if tune.projector else []
    return parts + ([head.model] if tune.diffusion_model else [])


def frozen(model: Groot, tune: Tune) -> list[nn.Module]:
    """Modules that stay as they are."""
    moving = tuned(model, tune)
    every = tuned(model, Tune(llm=True, visual=True))
    return [part for part in every if part not in moving]


def seeded(*numbers: int) -> torch.Generator:
    """A generator for these numbers; dropout, which knows only the global one, is seeded along."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


@contextlib.contextmanager
def computing(device: torch.device) -> Iterator[None]:
    """bfloat16 products over float32 weights. On a CPU, attention by plain products: torch's fused kernel is slower in
    the backward pass at these lengths (0.74 s against 0.60 s a step of the stand-in)."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, torch.bfloat16))
        if device.type == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
