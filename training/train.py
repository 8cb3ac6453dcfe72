"""Train `lite`: photographs and composed scenes, all kinds of prompts, several rounds of corrective clicks.

The learning rates stay constant for as long as the run goes on, and the weights that are exported are a moving average.
`--finish N` begins the final decay at any time. The run can be stopped (Ctrl-C, SIGTERM) and resumed with the same
command: `--out` keeps the newest checkpoint (network, moving average, optimizer, step), the metrics, the
configuration, and the export that the package loads. A resumed run takes the steps that it would have taken.

Started with `torchrun --nproc-per-node N -m training.train`, N processes share each step's images: on a few CPU
cores, one process of one thread each is faster than one process whose threads wait for each other.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
from tqdm import tqdm

from sam_nb.networks.lite import build_lite
from sam_nb.storage import write_bytes, writing
from training.data import SceneDataset, SceneSource, limit_threads
from training.imagenet import load_imagenet
from training.photos import Mixed, PhotoComposer, PhotoPack
from training.scenes import Composer
from training.sources import SourcePack
from training.trainer import Config, Trainer, config_of, means

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

LOG_EVERY = 50  # steps


def export(trainer: Trainer, folder: Path) -> None:
    """Write the averaged weights as float16 `lite.safetensors`, and the configuration and step as `lite.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().cpu().contiguous() for name, value in trainer.average.items()}
    write_bytes(folder / "lite.safetensors", safetensors.torch.save(weights), overwrite=True)
    (folder / "lite.json").write_text(json.dumps({"step": trainer.step, **asdict(trainer.config)}, indent=1) + "\n")


def save(trainer: Trainer, out: Path, export_to: Path) -> None:
    """Write the checkpoint and the export; a crash in between leaves the former ones whole."""
    with writing(out / "checkpoint.pt", overwrite=True) as part:
        torch.save(trainer.state(), part)
    export(trainer, export_to)


def initial_model(init: Path | None, imagenet: Path | None, side: int, device: str) -> Sam:
    """Return `lite` on a device, with given weights, ImageNet's in its backbone, and random initialization elsewhere.

    Parameters
    ----------
    init : pathlib.Path, or None
        Weights, safetensors; those of an earlier architecture are taken where name and shape fit.
    imagenet : pathlib.Path, or None
        See `training.imagenet`. The backbone of `init` has precedence, if it is complete.
    side : int
    device : str
    """
    model = build_lite(side)
    if imagenet is not None:
        load_imagenet(model.image_encoder.backbone, imagenet)
    if init is not None:
        wanted, given = model.state_dict(), safetensors.torch.load_file(init)
        taken = {name: value for name, value in given.items() if name in wanted and value.shape == wanted[name].shape}
        backbone = {name for name in wanted if name.startswith("image_encoder.backbone.")}
        if not backbone <= set(taken):
            taken = {name: value for name, value in taken.items() if name not in backbone}
        model.load_state_dict(wanted | taken)
        print(f"{init}: {len(taken)} of {len(wanted)} tensors taken")
    return model.to(device, memory_format=torch.channels_last)


def run(
    trainer: Trainer,
    loader: DataLoader,
    *,
    out: Path,
    export_to: Path,
    minutes: float,
    decay_minutes: float,
    save_minutes: float,
) -> None:
    """Train until the steps or minutes are over or a signal stops it; save every `save_minutes` and at the end.

    Of the minutes, the last `decay_minutes` are the final decay, over as many steps as they are expected to take.
    """
    should_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: should_stop.set())
    first = trainer.rank == 0
    started = saved = time.monotonic()
    recent, from_step = [], trainer.step
    with (
        (out / "metrics.jsonl" if first else Path(os.devnull)).open("a") as log,
        tqdm(total=trainer.config.steps, initial=trainer.step, disable=not first) as bar,
    ):
        for batch in loader:
            recent.append(trainer.train_step(batch))
            bar.update()
            if trainer.step % LOG_EVERY == 0:
                found = means(recent)
                bar.set_postfix({name: f"{value:.3f}" for name, value in found.items()})
                found = {name: round(value, 4) for name, value in found.items()}
                elapsed = round(time.monotonic() - started)
                log.write(json.dumps({"step": trainer.step, "seconds": elapsed, **found}) + "\n")
                log.flush()
                recent.clear()
            now = time.monotonic()
            if first and now - saved > 60 * save_minutes:
                save(trainer, out, export_to)
                saved = now
            left = 60 * minutes - (now - started)
            if decay_minutes and left < 60 * decay_minutes:
                trainer.finish(max(1, round(0.97 * left * (trainer.step - from_step) / (now - started))))
                decay_minutes = 0
            over = trainer.step >= trainer.config.steps or (minutes and left < 0)
            if trainer.agree(should_stop.is_set() or over):
                break
    if first:
        save(trainer, out, export_to)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=Path, default=Path("training/sources.zip"), help="from training.sources")
    parser.add_argument("--photos", type=Path, nargs="+", default=[], help="packs of annotated photographs")
    parser.add_argument("--decode-all", action="store_true", help="keep all images decoded: 7 GB that workers share")
    parser.add_argument("--compile", action="store_true", help="compile the network for its device: a minute or two")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; a checkpoint there is resumed")
    parser.add_argument("--export", type=Path, help="folder of lite.safetensors (default: the run's folder)")
    parser.add_argument("--init", type=Path, help="safetensors to start from")
    parser.add_argument("--imagenet", type=Path, help="ImageNet weights of the backbone, a .pth")
    parser.add_argument("--finish", type=int, help="begin the final decay now, over this many steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="threads of the network on CPU")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes; 0: in this process")
    parser.add_argument("--minutes", type=float, default=0, help="save and stop after this time; 0: never")
    parser.add_argument("--decay-minutes", type=float, default=0, help="of --minutes: how long the final decay takes")
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
    if arguments.photographs and not arguments.photos:
        parser.error("--photographs is a share of scenes from --photos: name packs, or say --photographs 0")
    return arguments


def scene_composer(arguments: argparse.Namespace, side: int) -> SceneSource:
    """Return what draws the scenes: composed ones, photographs, or both."""
    composed = photographs = None
    if arguments.photographs < 1:
        composed = Composer(SourcePack(arguments.sources, "train"), side)
    if arguments.photographs > 0:
        photographs = PhotoComposer(PhotoPack(arguments.photos, "train"), side)
    for composer in (composed, photographs):
        if arguments.decode_all and composer is not None:
            composer.pack.decode_all(os.cpu_count())
    if None in (composed, photographs):
        return composed or photographs
    return Mixed(photographs, composed, arguments.photographs)


def main() -> None:
    """Train, or resume: the command `python -m training.train`."""
    arguments = parse_arguments()
    config = config_of(vars(arguments))
    if "RANK" in os.environ:  # torchrun's children
        dist.init_process_group("gloo" if arguments.device == "cpu" else "nccl")
    torch.manual_seed(config.seed)
    if arguments.device == "cpu":
        torch.set_num_threads(arguments.threads)
    else:
        torch.set_float32_matmul_precision("high")
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = initial_model(arguments.init, arguments.imagenet, config.side, arguments.device)
    trainer = Trainer(config, model, compiled=arguments.compile)
    checkpoint = arguments.out / "checkpoint.pt"
    if checkpoint.exists():
        trainer.restore(torch.load(checkpoint, map_location=arguments.device, weights_only=True))
        print(f"resumed {checkpoint} at step {trainer.step}")
    if arguments.finish:
        trainer.finish(arguments.finish)
    config = trainer.config
    if config.images % trainer.processes:
        raise SystemExit(f"--images {config.images} cannot be shared evenly by {trainer.processes} processes")
    if not arguments.workers:
        limit_threads(0)
    length = config.steps * config.images
    loader = DataLoader(
        SceneDataset(scene_composer(arguments, config.side), config.side, config.prompts, config.seed, length),
        batch_size=config.images // trainer.processes,
        sampler=range(trainer.step * config.images + trainer.rank, length, trainer.processes),
        num_workers=arguments.workers,
        worker_init_fn=limit_threads,
        prefetch_factor=4 if arguments.workers else None,
        pin_memory=arguments.device != "cpu",
    )
    run(
        trainer,
        loader,
        out=arguments.out,
        export_to=arguments.export or arguments.out,
        minutes=arguments.minutes,
        decay_minutes=arguments.decay_minutes,
        save_minutes=arguments.save_minutes,
    )


if __name__ == "__main__":
    main()
