"""A network in training: one step, its schedule, and a state from which it resumes exactly."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
import torch.distributed as dist

from sam_nb.learning.losses import prompt_loss
from sam_nb.networks.fast_decoder import FastLiteDecoder
from sam_nb.networks.lite import IMAGE_SIZE, LOW_RES_STRIDE
from training.corrections import next_clicks
from training.decoding import PromptBatch, decode, first_prompts
from training.meanings import meanings_loss
from training.on_cpu import speed_up_training

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

Metrics: TypeAlias = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Config:
    """What determines the result of a run; saved beside the weights.

    Attributes
    ----------
    steps : int
        Length of the whole run. Default: no end until `Trainer.finish` sets one.
    decay_from : int
        Step from which the learning rates fall to zero, linearly, until the run ends; before, they are constant.
    side : int
        Pixels of the padded square.
    images, prompts : int
        Per step, and per image.
    photographs : float
        Share of the scenes that are photographs; the others are composed.
    rounds : tuple of float
        Probabilities that a step has 1, 2, 3 ... rounds: the first prompt, then one corrective click each.
    lr, backbone_lr : float
        Learning rates of everything else and of the pretrained backbone.
    frozen : int
        How many of the backbone's first stages are frozen: its stem and those stages cost half of a step on CPU.
    warmup : int
        Steps over which the learning rates rise.
    weight_decay : float
        Of AdamW, on matrices and kernels only.
    average : float
        Decay of the moving average of the weights, which is what is exported.
    feedback : float
        Probability that the last logits come back as mask prompt; the other prompts learn to do without.
    still : float
        Probability that a later round adds no click and only refines the logits.
    seed : int
    """

    steps: int = 1_000_000
    decay_from: int = 1_000_000
    side: int = IMAGE_SIZE
    images: int = 4
    prompts: int = 3
    photographs: float = 0.75
    rounds: tuple[float, ...] = (0.5, 0.3, 0.2)
    lr: float = 4e-4
    backbone_lr: float = 1e-4
    frozen: int = 0
    warmup: int = 200
    weight_decay: float = 0.01
    average: float = 0.999
    feedback: float = 0.8
    still: float = 0.1
    seed: int = 0


class Trainer:
    """A network in training.

    Parameters
    ----------
    config : Config
    model : segment_anything.modeling.Sam
        `lite`, already on its device.
    compiled : bool
        Whether PyTorch's compiler fuses the network's layers: on a GPU, after a minute or two.
    """

    def __init__(self, config: Config, model: Sam, compiled: bool = False) -> None:
        self.config = config
        self.model = model
        self.device = next(model.parameters()).device
        self.step = 0
        self.average = {name: value.clone() for name, value in model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(_parameter_groups(model, config), fused=self.device.type == "cuda")
        self.rank, self.processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if config.frozen:
            backbone = model.image_encoder.backbone
            for module in (backbone.conv_stem, backbone.bn1, *backbone.blocks[: config.frozen]):
                module.requires_grad_(False)
        model.mask_decoder.__class__ = FastLiteDecoder
        model.train()
        # Batches are small: BatchNorm keeps ImageNet's statistics, and its scale and shift are trained.
        for module in model.image_encoder.backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        if self.device.type == "cpu":
            speed_up_training(model)
        self.compiled = compiled
        compile_or_not = (
            partial(torch.compile, fullgraph=True, dynamic=False) if compiled else lambda function: function
        )
        self._embed_images = compile_or_not(self._embed_images)
        self._decode = compile_or_not(partial(decode, model))

    def train_step(self, batch: dict[str, torch.Tensor]) -> Metrics:
        """Take one step.

        Parameters
        ----------
        batch : dict of torch.Tensor
            Samples of `SceneDataset`, stacked.

        Returns
        -------
        dict of torch.Tensor
            The step's loss, IoU by kind of prompt and round, and others; each 2 float64, a sum and a count.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self.lr_factor()
        rounds, generator = self._draw_rounds()
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        embeddings, valid = self._encode(batch)
        # Every round is followed by its own backward pass, which frees its memory; the gradients accumulate in `leaf`
        # and go through the encoder once.
        leaf = embeddings.detach().requires_grad_()
        metrics = self._learn_rounds(batch, leaf, valid, rounds, generator)
        embeddings.backward(leaf.grad)
        if self.processes > 1:
            self._share_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._update_average()
        return metrics

    def finish(self, steps: int) -> None:
        """Begin the final decay, unless it has begun: the learning rates fall to zero in `steps`, and the run ends."""
        if self.config.decay_from < Config.decay_from:
            return
        self.config = replace(self.config, decay_from=self.step, steps=self.step + steps)

    def agree(self, stop: bool) -> bool:
        """Return whether any process wants to stop, so that all of them do it after the same step."""
        if self.processes == 1:
            return stop
        wish = torch.tensor([float(stop)], device=self.device)
        dist.all_reduce(wish)
        return bool(wish.item())

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs, a dict for `torch.save`."""
        return {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "config": asdict(self.config),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned, on any device; a final decay that has begun goes on.

        Of the saved configuration only `decay_from` and `steps` are read, so that a checkpoint whose other fields had
        other names is accepted.
        """
        self.model.load_state_dict(state["model"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        # Learning rates and weight decay are the new configuration's, not the checkpoint's.
        for group, fresh in zip(self.optimizer.param_groups, _parameter_groups(self.model, self.config), strict=True):
            group |= {name: value for name, value in fresh.items() if name != "params"}
            group["fused"] = self.device.type == "cuda"
        self.step = state["step"]
        if state["config"]["decay_from"] < Config.decay_from:
            begun = {name: state["config"][name] for name in ("decay_from", "steps")}
            self.config = replace(self.config, **begun)

    def _draw_rounds(self) -> tuple[int, torch.Generator]:
        """Return how many rounds this step has, and the generator of its clicks."""
        config = self.config
        # All processes draw the same rounds, and each its own clicks.
        rng = np.random.default_rng([config.seed, self.step, 1])
        rounds = 1 + int(rng.choice(len(config.rounds), p=np.array(config.rounds) / sum(config.rounds)))
        generator = torch.Generator(self.device)
        generator.manual_seed(int(np.random.default_rng([config.seed, self.step, 2, self.rank]).integers(2**62)))
        return rounds, generator

    def _learn_rounds(
        self,
        batch: dict[str, torch.Tensor],
        embeddings: torch.Tensor,
        valid: torch.Tensor,
        rounds: int,
        generator: torch.Generator,
    ) -> Metrics:
        """Decode first prompts and then corrective clicks, each round with its backward pass; return the metrics."""
        metrics: Metrics = {}
        spare = len(self.config.rounds) - 1
        prompts, meanings = first_prompts(batch, spare), batch["ground_truth"].flatten(0, 1).float()
        ground_truth = meanings[:, 0]
        is_several = meanings[:, 1].flatten(1).any(1)
        first_spare = prompts.labels.shape[1] - spare
        valid = valid[prompts.owner]
        if self.compiled:
            # One program for all rounds: without a mask prompt it gets one that has no effect.
            prompts = replace(prompts, mask_input=torch.zeros_like(ground_truth)[:, None])
        for number in range(rounds):
            ambiguous = prompts.is_ambiguous if number == 0 else torch.zeros_like(prompts.has_box)
            logits, predicted = self._decode(embeddings, prompts)
            loss, found = prompt_loss(logits, predicted, ground_truth, valid, ambiguous & ~is_several)
            rows = torch.nonzero(ambiguous & is_several)[:, 0]
            if len(rows):
                loss = loss.index_add(0, rows, meanings_loss(logits[rows, 1:], meanings[rows], valid[rows]))
            (loss.mean() / rounds).backward()
            logits, predicted, found = logits.detach(), predicted.detach(), found.detach()
            _note(metrics, prompts, number, ambiguous=ambiguous, loss=loss.detach(), predicted=predicted, found=found)
            if number + 1 < rounds:
                # As a user would: the highest-scoring of three masks after one ambiguous prompt, else the single mask.
                best = torch.where(ambiguous, 1 + predicted[:, 1:].argmax(1), 0)
                chosen = logits[torch.arange(len(best), device=self.device), best]
                prompts = self._correct(
                    prompts,
                    chosen,
                    slot=first_spare + number,
                    ground_truths=ground_truth > 0,
                    valid=valid > 0,
                    generator=generator,
                )
        return metrics

    def _encode(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return embeddings Bx256xHxW float32, and which low-res pixels are image, BxhxW float32."""
        side, size = batch["image"].shape[-1], batch["size"]
        # Normalised first and padded with zeros afterwards, as Sam.preprocess does.
        inside = _image_pixels(size, side)
        pixels = (batch["image"].float() - self.model.pixel_mean) / self.model.pixel_std * inside[:, None]
        valid = _image_pixels(size, int(side / LOW_RES_STRIDE), LOW_RES_STRIDE)
        return self._embed_images(pixels.contiguous(memory_format=torch.channels_last)), valid

    def _embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return embeddings Bx256xHxW float32 of normalised images."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            embeddings = self.model.image_encoder(pixels)
        return embeddings.float().contiguous()

    def _correct(
        self,
        prompts: PromptBatch,
        logits: torch.Tensor,
        *,
        slot: int,
        ground_truths: torch.Tensor,
        valid: torch.Tensor,
        generator: torch.Generator,
    ) -> PromptBatch:
        """Return the prompts with one more click each, in a slot, and mostly the logits PxHxW as mask prompt."""
        points, labels = next_clicks((logits > 0) & valid, ground_truths & valid, generator)
        uniform = torch.rand(2, len(labels), generator=generator, device=self.device)
        has_mask = uniform[0] < self.config.feedback
        labels = torch.where((uniform[1] < self.config.still) & has_mask, -1.0, labels)
        points = (points + 0.5) * LOW_RES_STRIDE - 0.5
        return prompts.corrected(slot, points, labels, logits[:, None], has_mask)

    def _share_gradients(self) -> None:
        """Replace every gradient by its mean over all processes."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in trained:
            # What this process's prompts did not need may have been used by another's.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in trained]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.processes
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def lr_factor(self) -> float:
        """Return what the learning rates are multiplied by at this step."""
        config = self.config
        rise = min(1.0, (self.step + 1) / config.warmup)
        if self.step < config.decay_from:
            return rise
        return rise * max(0.0, (config.steps - self.step) / (config.steps - config.decay_from))

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average forgets faster, so that it does not remember the start.
        keep = min(self.config.average, (1 + self.step) / (10 + self.step))
        state = self.model.state_dict()
        names = [name for name, value in state.items() if value.dtype.is_floating_point]
        torch._foreach_lerp_([self.average[name] for name in names], [state[name] for name in names], 1 - keep)


def means(metrics: list[Metrics]) -> dict[str, float]:
    """Return the means of what several steps noted, a dict of str to float.

    Parameters
    ----------
    metrics : list of dict
        From `Trainer.train_step`.
    """
    totals = defaultdict(lambda: torch.zeros(2, dtype=torch.float64))
    for step in metrics:
        for name, value in step.items():
            totals[name] += value.cpu()
    return {name: float(total[0] / total[1]) for name, total in sorted(totals.items()) if total[1] > 0}


def config_of(values: dict[str, Any]) -> Config:
    """Return the `Config` of a dict that may hold more, a command line's for instance."""
    chosen = {field.name: values[field.name] for field in fields(Config)}
    return Config(**chosen | {"rounds": tuple(chosen["rounds"])})


def _image_pixels(size: torch.Tensor, side: int, stride: float = 1) -> torch.Tensor:
    """Return BxSxS float32: 1 where a pixel of a grid of this side and stride begins in its image, 0 in the padding.

    Heights and widths, Bx2, count in pixels of stride 1.
    """
    starts = torch.arange(side, device=size.device) * stride
    rows, columns = (starts < size[..., None]).unbind(1)
    return (rows[:, :, None] & columns[:, None, :]).float()


def _parameter_groups(model: Sam, config: Config) -> list[dict[str, Any]]:
    """Return AdamW's groups: backbone or not, decayed or not."""
    groups = {}
    for name, parameter in model.named_parameters():
        backbone, matrix = name.startswith("image_encoder.backbone"), parameter.ndim > 1
        lr = config.backbone_lr if backbone else config.lr
        decay = config.weight_decay if matrix else 0.0
        fresh = {"params": [], "lr": lr, "base_lr": lr, "weight_decay": decay}
        groups.setdefault((backbone, matrix), fresh)["params"].append(parameter)
    return list(groups.values())


def _note(
    metrics: Metrics,
    prompts: PromptBatch,
    number: int,
    *,
    ambiguous: torch.Tensor,
    loss: torch.Tensor,
    predicted: torch.Tensor,
    found: torch.Tensor,
) -> None:
    """Add a round's results to the step's metrics."""

    def note(name: str, values: torch.Tensor, which: torch.Tensor | None = None) -> None:
        which = torch.ones_like(values) if which is None else which
        total = torch.stack([(values * which).sum(dtype=torch.float64), which.sum(dtype=torch.float64)])
        metrics[name] = metrics.get(name, 0) + total

    note("loss", loss)
    note("iou_error", (predicted - found).abs().mean(1))
    if number > 0:
        note(f"click_{number}", found[:, 0])
        return
    point, box = ambiguous & ~prompts.has_box, ambiguous & prompts.has_box
    note("point", found.gather(1, 1 + predicted[:, 1:].argmax(1, keepdim=True))[:, 0], point)
    note("point_oracle", found[:, 1:].max(1).values, point)
    note("box", found[:, 0], box)
    note("several", found[:, 0], ~ambiguous)
