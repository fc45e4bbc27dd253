"""What a teacher is timed at, from an observation to arrays on the host: image tokens, backbone features, actions."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bridge import embodiment as embodiments
from bridge.embodiment import Embodiment
from bridge.observation import Observation
from teacher_torch.groot import inputs, tokenizer
from teacher_torch.groot.model import Groot

OUTPUTS = ("image_tokens", "backbone_features", "actions")
Arrays = tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Passes:
    """The model's large parts, eager or compiled."""

    vision: Callable
    language: Callable
    adapted: Callable | None = None
    context: Callable | None = None
    velocity: Callable | None = None

    @classmethod
    def of(cls, model: Groot) -> "Passes":
        """As they are."""
        seeing = cls(model.vision, model.language)
        if model.head is None:
            return seeing
        return dataclasses.replace(seeing, adapted=model.adapted, context=model.context, velocity=model.head.velocity)

    def compiled(self, device: torch.device) -> "Passes":
        """Each on its own; on a GPU as CUDA graphs, which leave no launches to wait for."""
        how = {"dynamic": False} | ({"mode": "reduce-overhead"} if device.type == "cuda" else {})
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        parts = {name: part for name, part in parts.items() if part is not None}
        # The context holds what CUDA graphs would overwrite at their next replay, and is a hundredth of the work.
        made = {name: part if name == "context" else torch.compile(part, **how) for name, part in parts.items()}
        return Passes(**made)


class Clock:
    """A teacher before one observation. physical: state and actions are in the embodiment's units, not normalised."""

    def __init__(
        self,
        model: Groot,
        observation: Observation,
        words: tokenizer.Tokenizer,
        body: Embodiment,
        *,
        physical: bool = False,
    ):
        self.model, self.observation, self.words = model, observation, words
        self.embodiment, self.physical = body, physical
        self.device = next(model.parameters()).device
        self.modes = {"eager": Passes.of(model)}

    def compile(self) -> None:
        """Also compile every pass; the first call of each pays for it."""
        self.modes["compiled"] = self.modes["eager"].compiled(self.device)

    def call(self, output: str, *, mode: str = "eager", batch: int = 1) -> Callable[[], Arrays]:
        """A call without arguments that makes `output` of `batch` copies of the observation."""
        seen = repeated(self.observation, batch)
        return functools.partial(getattr(self, f"_{output}"), self.modes[mode], seen)

    def cost(self, output: str) -> dict[str, float]:
        """Parameters, bytes of weights and FLOPs (products only) behind one output."""
        model = self.model
        parts = [model.tower, model.connector]
        parts += [model.language] * (output != "image_tokens") + [model.head] * (output == "actions")
        weights = [p for part in parts for p in part.parameters()]
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self.call(output)()
        size = sum(p.numel() for p in weights)
        return {"parameters": size, "bytes": size * weights[0].element_size(), "flops": counter.get_total_flops()}

    @torch.inference_mode()
    def _image_tokens(self, passes: Passes, seen: Observation) -> Arrays:
        """Observation -> image tokens and vision attention, the outputs that the student's vision has."""
        config = self.model.config
        images = seen.video.reshape(-1, *seen.video.shape[-3:])
        cut = functools.partial(inputs.pixel_values, tile=config.tile, max_tiles=self.embodiment.transform.max_tiles)
        pixels = torch.cat([cut(image) for image in images]).to(self.device)
        return _host(*passes.vision(pixels, attention=True))

    @torch.inference_mode()
    def _backbone_features(self, passes: Passes, seen: Observation) -> Arrays:
        """Observation and its prompt -> backbone features."""
        return _host(self._features(passes, self._ready(seen)))

    @torch.inference_mode()
    def _actions(self, passes: Passes, seen: Observation) -> Arrays:
        """The whole policy, as `get_action` runs it: every step of the flow from fresh noise."""
        ready, head = self._ready(seen), self.model.config.head
        features = self._features(passes, ready)
        context = passes.context(passes.adapted(features).clone(), ready.state, ready.embodiment_id)
        noise = torch.randn(len(features), head.horizon, head.action_dim, device=self.device)
        chunk = self.model.integrate(context, noise, steps=head.steps, velocity=passes.velocity)
        (actions,) = _host(chunk.actions)
        return tuple(embodiments.denormalise(self.embodiment, actions).values()) if self.physical else (actions,)

    def _ready(self, seen: Observation) -> inputs.ModelInputs:
        config = self.model.config
        if self.physical:
            seen = dataclasses.replace(seen, state=embodiments.normalise_rows(self.embodiment, seen.state))
        return inputs.prepare(
            seen,
            self.embodiment,
            self.words,
            tile=config.tile,
            tokens_per_tile=config.tokens_per_tile,
            state_dim=config.head.state_dim,
        ).to(self.device)

    def _features(self, passes: Passes, ready: inputs.ModelInputs) -> torch.Tensor:
        tokens = passes.vision(ready.pixel_values)[0]
        embeddings = self.model.embed(ready.input_ids, tokens)
        return self.model.read(embeddings, ready.attention_mask, language=passes.language)


def repeated(observation: Observation, batch: int) -> Observation:
    """So many copies of an observation of one sample."""
    video, state = (np.repeat(each, batch, axis=0) for each in (observation.video, observation.state))
    return Observation(video, state, observation.instruction * batch, observation.embodiment)


def _host(*tensors: torch.Tensor) -> Arrays:
    return tuple(tensor.float().cpu().numpy() for tensor in tensors)
