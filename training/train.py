"""Train `lite`: composed scenes, prompts of every kind, several rounds of corrective clicks.

The run can be stopped at any time (Ctrl-C, SIGTERM) and resumed with the same command: `--out` keeps the
newest checkpoint (network, moving average, optimizer, step), the metrics, the configuration, and the export that the
package loads.

Started with `torchrun --nproc-per-node N -m training.train`, N processes share each step's pictures: on a few CPU
cores, one process of one thread each is faster than one process whose threads wait for each other.
"""

import argparse
import json
import os
import signal
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from sam_nb.export import write_whole
from sam_nb.lite import IMAGE_SIZE, build_lite
from sam_nb.losses import prompt_loss
from training.data import SceneDataset, quiet_worker
from training.imagenet import load_imagenet
from training.prompts import next_click
from training.sources import SourcePack


@dataclass(frozen=True)
class Config:
    """What decides the outcome of a run; saved beside the weights.

    Attributes
    ----------
    steps : int
        Length of the whole run.
    side : int
        Pixels of the padded square. Half of the full size costs a quarter, so a run begins there.
    images, prompts : int
        Per step, and per image.
    rounds : tuple of float
        How likely a step has 1, 2, 3 ... rounds: the first prompt, then one corrective click each.
    rate, backbone_rate : float
        Learning rates of everything else and of the pretrained backbone.
    frozen : int
        How many of the backbone's first stages stay as they are: its stem and those stages cost half of a step on CPU.
    warmup : int
        Steps over which the rates rise.
    decay : float
        Share of the run, at its end, over which the rates fall to zero.
    weight_decay : float
        Of AdamW, on matrices and kernels only.
    average : float
        Decay of the moving average of the weights, which is what is exported.
    feedback : float
        How likely the last logits come back as mask prompt; the rest learns to do without.
    still : float
        How likely a later round adds no click and only refines the logits.
    seed : int
    """

    steps: int = 20000
    side: int = IMAGE_SIZE
    images: int = 4
    prompts: int = 3
    rounds: tuple = (0.25, 0.35, 0.4)
    rate: float = 4e-4
    backbone_rate: float = 1e-4
    frozen: int = 0
    warmup: int = 200
    decay: float = 0.2
    weight_decay: float = 0.01
    average: float = 0.999
    feedback: float = 0.8
    still: float = 0.1
    seed: int = 0


@dataclass
class PromptGroup:
    """Prompts of one kind (as many points, all or none with a box) from all pictures of the step: one decoder call.

    Attributes
    ----------
    owner : P int64
        Row of each prompt's picture.
    points, labels : PxKx2 and PxK float32
    boxes : Px4 float32, or None
    mask_input : Px1xHxW float32, or None
    truth, valid : PxHxW float32
    ambiguous : bool
        Whether it began as a single point or a single box.
    """

    owner: torch.Tensor
    points: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor | None
    truth: torch.Tensor
    valid: torch.Tensor
    ambiguous: bool
    mask_input: torch.Tensor | None = None


def split_by_kind(batch, valid):
    """Return the step's `PromptGroup`s.

    Parameters
    ----------
    batch : dict of torch.Tensor
        Samples of `SceneDataset`, stacked.
    valid : BxHxW torch.Tensor of float32
        1 on the picture, 0 on the padding, in the size of the low-res masks.
    """
    images, prompts = batch["kind"].shape
    owner = torch.arange(images, device=valid.device).repeat_interleave(prompts)
    flat = {name: batch[name].flatten(0, 1) for name in ("truth", "points", "labels", "boxes", "kind")}
    groups = []
    for kind in batch["kind"].unique().tolist():
        rows = torch.nonzero(flat["kind"] == kind)[:, 0]
        count, has_box = divmod(kind, 2)
        groups.append(
            PromptGroup(
                owner=owner[rows],
                points=flat["points"][rows, :count],
                labels=flat["labels"][rows, :count],
                boxes=flat["boxes"][rows] if has_box else None,
                truth=flat["truth"][rows].float(),
                valid=valid[owner[rows]],
                ambiguous=count + has_box == 1,
            )
        )
    return groups


def decode(model, embeddings, group):
    """Return logits Px4xHxW and predicted IoU Px4, float32, of all four mask tokens.

    Parameters
    ----------
    model : segment_anything.modeling.Sam
    embeddings : Bx256xHxW torch.Tensor
        Of all pictures of the step.
    group : PromptGroup
    """
    # The positional encoding of a coordinate needs float32: bfloat16 would round it to a few pixels.
    with torch.autocast(embeddings.device.type, enabled=False):
        points = (group.points, group.labels) if group.points.shape[1] else None
        sparse, dense = model.prompt_encoder(points=points, boxes=group.boxes, masks=group.mask_input)
        position = model.prompt_encoder.get_dense_pe()
    with torch.autocast(embeddings.device.type, dtype=torch.bfloat16):
        logits, predicted = model.mask_decoder.predict_masks(embeddings[group.owner], position, sparse, dense)
    return logits.float(), predicted.float()


class Trainer:
    """A network in training.

    Parameters
    ----------
    config : Config
    model : segment_anything.modeling.Sam
        Already on its device.
    threads : int
        Threads that compute corrective clicks.
    """

    def __init__(self, config, model, threads):
        self.config = config
        self.model = model
        self.device = next(model.parameters()).device
        self.step = 0
        self.average = {name: value.clone() for name, value in model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(_parameter_groups(model, config))
        self.clickers = ThreadPoolExecutor(threads)
        self.rank, self.processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if config.frozen:
            backbone = model.image_encoder.backbone
            for module in (backbone.conv_stem, backbone.bn1, *backbone.blocks[: config.frozen]):
                module.requires_grad_(False)
        model.train()
        # Batches are small: BatchNorm keeps ImageNet's statistics, and its scale and shift are trained.
        for module in model.image_encoder.backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        if self.device.type == "cpu":
            for module in model.mask_decoder.spread.modules():
                if isinstance(module, torch.nn.Conv2d) and module.groups > 1:
                    module.forward = _in_float32(module.forward)

    def train_step(self, batch):
        """Take one step.

        Parameters
        ----------
        batch : dict of torch.Tensor
            Samples of `SceneDataset`, stacked.

        Returns
        -------
        dict of float
            The step's loss and IoU by kind of prompt and round.
        """
        config, model = self.config, self.model
        for group, factor in zip(self.optimizer.param_groups, self._rates(), strict=True):
            group["lr"] = factor
        # All processes draw the same number of rounds, and each its own clicks.
        rng = np.random.default_rng([config.seed, self.step, 1])
        rounds = 1 + rng.choice(len(config.rounds), p=np.array(config.rounds) / sum(config.rounds))
        rng = np.random.default_rng([config.seed, self.step, 2, self.rank])
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        embeddings, valid = self._encode(batch)
        # Every decoder call is followed by its own backward pass, which frees its memory; the gradients gather in
        # `leaf` and go through the encoder once.
        leaf = embeddings.detach().requires_grad_()
        metrics = defaultdict(list)
        groups = split_by_kind(batch, valid)
        total = sum(len(group.owner) for group in groups)
        for number in range(rounds):
            for group in groups:
                logits, predicted = decode(model, leaf, group)
                first = number == 0 and group.ambiguous
                loss, found = prompt_loss(logits, predicted, group.truth, group.valid, first)
                (loss.sum() / total / rounds).backward()
                _note(metrics, group, number=number, loss=loss, predicted=predicted, found=found)
                if number + 1 < rounds:
                    # As a user would: the best-scored of three masks after one ambiguous prompt, else the single mask.
                    best = 1 + predicted[:, 1:].argmax(1) if first else 0 * group.owner
                    chosen = logits.detach()[torch.arange(len(best), device=self.device), best]
                    self._correct(group, chosen, rng)
        embeddings.backward(leaf.grad)
        if self.processes > 1:
            self._share_gradients()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._update_average()
        return {name: float(torch.cat(values).mean()) for name, values in metrics.items()}

    def agree(self, stop):
        """Tell whether any process wants to stop, so that all of them do it after the same step."""
        if self.processes == 1:
            return stop
        wish = torch.tensor([float(stop)], device=self.device)
        dist.all_reduce(wish)
        return bool(wish.item())

    def state(self):
        """Return everything that a resumed run needs, a dict for `torch.save`."""
        return {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "config": asdict(self.config),
        }

    def restore(self, state):
        """Continue from what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        # Rates and weight decay are the new configuration's, not the checkpoint's.
        for group, fresh in zip(self.optimizer.param_groups, _parameter_groups(self.model, self.config), strict=True):
            group |= {name: value for name, value in fresh.items() if name != "params"}
        self.step = state["step"]

    def _encode(self, batch):
        """Return embeddings Bx256xHxW float32, and which low-res pixels are picture, BxHxW float32."""
        images, side = len(batch["image"]), batch["image"].shape[-1]
        inside = torch.arange(side, device=self.device) < batch["size"][..., None]  # B x (height, width) x side
        inside = (inside[:, 0, :, None] & inside[:, 1, None, :]).float()
        # Normalised first and padded with zeros afterwards, as Sam.preprocess does.
        pixels = (batch["image"].float() - self.model.pixel_mean) / self.model.pixel_std * inside[:, None]
        # On CPU the backward pass of depthwise convolutions is slower in bfloat16 than in float32.
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type != "cpu"):
            embeddings = self.model.image_encoder(pixels.contiguous(memory_format=torch.channels_last))
        valid = F.max_pool2d(inside[:, None], 2).view(images, side // 2, side // 2)
        return embeddings.float().contiguous(), valid

    def _correct(self, group, logits, rng):
        """Give the group one more click each, and mostly the logits (PxHxW) as mask prompt."""
        group.mask_input = logits[:, None] if rng.random() < self.config.feedback else None
        if rng.random() < self.config.still and group.mask_input is not None:
            return
        masks = ((logits > 0) & (group.valid > 0)).cpu().numpy()
        truths = (group.truth > 0).cpu().numpy()
        chances = [np.random.default_rng(seed) for seed in rng.integers(2**62, size=len(masks))]
        clicks = list(self.clickers.map(_clicked, masks, truths, chances))
        # A low-res pixel covers 2 x 2 pixels of the network's input.
        points = [[2 * x + 0.5, 2 * y + 0.5] for (x, y), _ in clicks]
        labels = [label for _, label in clicks]
        points = torch.tensor(points, dtype=torch.float32, device=self.device)
        labels = torch.tensor(labels, dtype=torch.float32, device=self.device)
        group.points = torch.cat([group.points, points[:, None]], 1)
        group.labels = torch.cat([group.labels, labels[:, None]], 1)

    def _share_gradients(self):
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

    def _rates(self):
        config = self.config
        rise = min(1.0, (self.step + 1) / config.warmup)
        fall = min(1.0, (config.steps - self.step) / max(1.0, config.decay * config.steps))
        return [group["base_lr"] * rise * fall for group in self.optimizer.param_groups]

    @torch.no_grad()
    def _update_average(self):
        # Early on the average forgets faster, so that it does not remember the start.
        keep = min(self.config.average, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1 - keep)


def _clicked(mask, truth, rng):
    """Return a corrective click; where nothing is wrong, one more click inside."""
    centre = rng.random() < 0.5
    return next_click(mask, truth, rng, centre) or next_click(np.zeros_like(truth), truth, rng, centre) or ((0, 0), -1)


def _in_float32(forward):
    """Return the forward pass of a depthwise convolution in float32, whatever autocast says."""

    def exact(x):
        with torch.autocast("cpu", enabled=False):
            return forward(x.float())

    return exact


def _parameter_groups(model, config):
    """Return AdamW's groups: backbone or not, decayed or not."""
    groups = {}
    for name, parameter in model.named_parameters():
        backbone, matrix = name.startswith("image_encoder.backbone"), parameter.ndim > 1
        rate = config.backbone_rate if backbone else config.rate
        decay = config.weight_decay if matrix else 0.0
        fresh = {"params": [], "lr": rate, "base_lr": rate, "weight_decay": decay}
        groups.setdefault((backbone, matrix), fresh)["params"].append(parameter)
    return list(groups.values())


def _note(metrics, group, *, number, loss, predicted, found):
    """Add a decoder call's results to the step's metrics, lists of tensors."""
    predicted, found = predicted.detach(), found.detach()
    metrics["loss"].append(loss.detach())
    metrics["iou_error"].append((predicted - found).abs().mean(1))
    if number > 0:
        metrics[f"click_{number}"].append(found[:, 0])
    elif group.ambiguous and group.boxes is None:
        metrics["point"].append(found.gather(1, 1 + predicted[:, 1:].argmax(1, keepdim=True))[:, 0])
        metrics["point_oracle"].append(found[:, 1:].max(1).values)
    elif group.ambiguous:
        metrics["box"].append(found[:, 0])
    else:
        metrics["several"].append(found[:, 0])


def export(trainer, folder):
    """Write the averaged weights as float16 `lite.safetensors`, and the configuration and step as `lite.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().cpu().contiguous() for name, value in trainer.average.items()}
    write_whole(folder / "lite.safetensors", safetensors.torch.save(weights), overwrite=True)
    (folder / "lite.json").write_text(json.dumps({"step": trainer.step, **asdict(trainer.config)}, indent=1) + "\n")


def save(trainer, out, export_to):
    """Write the checkpoint and the export; a crash in between leaves the former ones whole."""
    partial = out / "checkpoint.partial"
    torch.save(trainer.state(), partial)
    partial.replace(out / "checkpoint.pt")
    export(trainer, export_to)


def initial_model(init, imagenet, side, device):
    """Return `lite` on a device, with given weights, or with ImageNet's in its backbone and chance elsewhere."""
    model = build_lite(side)
    if init is not None:
        model.load_state_dict(safetensors.torch.load_file(init))
    elif imagenet is not None:
        load_imagenet(model.image_encoder.backbone, imagenet)
    return model.to(device, memory_format=torch.channels_last)


def run(trainer, loader, *, out, export_to, minutes, save_minutes):
    """Train until the steps or minutes are over or a signal says stop; save every `save_minutes` and at the end."""
    asked_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked_to_stop.set())
    first = trainer.rank == 0
    started = saved = time.monotonic()
    recent = defaultdict(list)
    with (
        (out / "metrics.jsonl" if first else Path(os.devnull)).open("a") as log,
        tqdm(total=trainer.config.steps, initial=trainer.step, disable=not first) as bar,
    ):
        for batch in loader:
            for name, value in trainer.train_step(batch).items():
                recent[name].append(value)
            bar.update()
            if trainer.step % 50 == 0:
                means = {name: round(float(np.mean(values)), 4) for name, values in sorted(recent.items())}
                bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
                elapsed = round(time.monotonic() - started)
                log.write(json.dumps({"step": trainer.step, "seconds": elapsed, **means}) + "\n")
                log.flush()
                recent.clear()
            now = time.monotonic()
            if first and now - saved > 60 * save_minutes:
                save(trainer, out, export_to)
                saved = now
            if trainer.agree(asked_to_stop.is_set() or (minutes and now - started > 60 * minutes)):
                break
    if first:
        save(trainer, out, export_to)


def main():
    """Train, or resume: the command `python -m training.train`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=Path, default=Path("training/sources.zip"), help="from training.sources")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; a checkpoint there is resumed")
    parser.add_argument("--export", type=Path, help="folder of lite.safetensors (default: the run's folder)")
    parser.add_argument("--init", type=Path, help="safetensors to start from")
    parser.add_argument("--imagenet", type=Path, help="ImageNet weights of the backbone, a .pth, if there is no --init")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="threads of the network on CPU, and of the clicks")
    parser.add_argument("--workers", type=int, default=1, help="processes that compose scenes; 0: in place")
    parser.add_argument("--minutes", type=float, default=0, help="save and stop after so long; 0: never")
    parser.add_argument("--save-minutes", type=float, default=5, help="time between checkpoints")
    for field in fields(Config):
        listed = isinstance(field.default, tuple)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=float if listed else type(field.default),
            nargs="+" if listed else None,
            default=field.default,
            help=f"(default: {field.default})",
        )
    arguments = parser.parse_args()
    values = {field.name: getattr(arguments, field.name) for field in fields(Config)}
    config = Config(**values | {"rounds": tuple(arguments.rounds)})
    if "RANK" in os.environ:  # torchrun's children
        dist.init_process_group("gloo" if arguments.device == "cpu" else "nccl")
    torch.manual_seed(config.seed)
    if arguments.device == "cpu":
        torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = initial_model(arguments.init, arguments.imagenet, config.side, arguments.device)
    trainer = Trainer(config, model, arguments.threads)
    checkpoint = arguments.out / "checkpoint.pt"
    if checkpoint.exists():
        trainer.restore(torch.load(checkpoint, map_location=arguments.device, weights_only=True))
        print(f"resumed {checkpoint} at step {trainer.step}")
    pack = SourcePack(arguments.sources, "train")
    length = config.steps * config.images
    if config.images % trainer.processes:
        parser.error(f"--images {config.images} cannot be shared evenly by {trainer.processes} processes")
    if not arguments.workers:
        quiet_worker(0)
    loader = DataLoader(
        SceneDataset(pack, config.side, config.prompts, config.seed, length),
        batch_size=config.images // trainer.processes,
        sampler=range(trainer.step * config.images + trainer.rank, length, trainer.processes),
        num_workers=arguments.workers,
        worker_init_fn=quiet_worker,
        prefetch_factor=4 if arguments.workers else None,
        pin_memory=arguments.device != "cpu",
    )
    run(
        trainer,
        loader,
        out=arguments.out,
        export_to=arguments.export or arguments.out,
        minutes=arguments.minutes,
        save_minutes=arguments.save_minutes,
    )


if __name__ == "__main__":
    main()
