"""Fine-tune a model on your own labelled images: the mask decoder learns, both encoders stay as they are.

``output = sam(data)`` cannot train: `segment_anything.modeling.Sam.forward` runs without gradients and returns masks
that are thresholded already. So its parts are called here one by one. The image encoder is nearly all of the work and
does not change, so each image goes through it once.

The recipe is the SAM paper's (arXiv 2304.02643, appendix A), cut down to what a few images can teach.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from tqdm.auto import tqdm

from sam_nb.clicks import innermost
from sam_nb.learning.decoder_step import one_cycle, train_step
from sam_nb.learning.examples import Example, LowResTargets, encode_examples, low_res_targets
from sam_nb.masks import bounding_box, iou
from sam_nb.model.sam import Sam
from sam_nb.prompts import Prompt, checked_integer, checked_number
from sam_nb.storage import write_bytes
from sam_nb.weights.weights_file import encode_weights

if TYPE_CHECKING:
    from sam_nb.images import ImageLike


class Validation(TypedDict):
    """How well a model does on the validation images after a step: the mean IoU after one click, and after a box."""

    step: int
    point: float
    box: float


@dataclass(frozen=True, eq=False)
class Finetuned:
    """What `finetune` returns.

    Attributes
    ----------
    sam : Sam
        The model with the best weights of the run. It has its own fingerprint and takes no embeddings of the model that
        it comes from: encode images with it.
    losses : list of float
        The loss of each step that was taken.
    validation : list of dict
        Of each validation: "step", and the mean IoU after one click, "point", and after a "box". The first is of
        step 0, before any training.
    best_step : int
        The step whose weights were kept: that with the highest mean of the two.
    ended : str
        Why it ended: "all steps done", "no better in ... validations", "interrupted", or "diverged in step ...": the
        loss was NaN or infinite, which a lower learning rate cures.
    """

    sam: Sam
    losses: list[float]
    validation: list[Validation]
    best_step: int
    ended: str

    def __repr__(self) -> str:
        first, best = self.validation[0], next(each for each in self.validation if each["step"] == self.best_step)
        changes = f"point {first['point']:.2f} -> {best['point']:.2f}, box {first['box']:.2f} -> {best['box']:.2f}"
        return f"Finetuned({self.sam.name}: {changes} on the validation images, step {self.best_step}; {self.ended})"


def finetune(
    sam: Sam,
    train: Iterable[tuple[ImageLike, npt.ArrayLike]],
    validation: Iterable[tuple[ImageLike, npt.ArrayLike]],
    *,
    steps: int = 100,
    lr: float = 8e-4,
    batch_size: int = 4,
    rounds: int = 2,
    validate_every: int = 20,
    patience: int = 3,
    seed: int = 0,
    on_validation: Callable[[Validation, Sam], None] | None = None,
) -> Finetuned:
    """Train a copy of a model's mask decoder, with a progress bar.

    Whatever ends it early, an interruption or a loss that is no longer a number, the best weights so far are kept.

    Parameters
    ----------
    sam : Sam
        Is left as it is.
    train : iterable of (image, mask), or Dataset
        To learn from: a part of a data set (`load_dataset`), or pairs. An image is anything that `load_image` takes. A
        mask is an array HxW of the same size: bool for one object, or integers, 0 for background and another number for
        each object; what is to be ignored, such as -1 or VOC's 255, must be 0. Objects that overlap go into pairs of
        their own, with the same image, as a `Dataset` gives them.
    validation : iterable of (image, mask), or Dataset
        Other images, which decide when to stop. To say how good the result is take a third set: these were used.
    steps : int
        At most.
    lr : float
        The highest learning rate, of AdamW; it rises to it over the first tenth of the steps and then falls to zero.
        The SAM paper trains with 8e-4, and `lite` takes it well; with Meta's weights, which have more to lose, people
        begin with 1e-4.
    batch_size : int
        Objects in each step, each with a prompt of its own: a click somewhere on it, or a box from a shaky hand.
    rounds : int
        At most. A step has one or more: the first prompt, then one corrective click each, with the last logits.
    validate_every : int
        Steps between two validations.
    patience : int
        Training stops after this many validations in a row without a better one.
    seed : int
        0 or more. The same seed gives the same weights, on the same machine.
    on_validation : callable, optional
        Is called after each validation, that of step 0 included, with its entry of `Finetuned.validation` and with the
        model as it is then, to decode with: it takes the embeddings of `sam`. Training goes on in that model, so keep
        what it gives, such as masks, and not the model.

    Returns
    -------
    Finetuned

    Raises
    ------
    ValueError
        A pair is not an image and its mask; a mask has another size than its image, is empty, or is neither bool nor
        integers; all objects are too small for the model to see; or an image is in both sets. The message names the
        pair.
        A number of steps, objects, rounds or validations is not an integer of 1 or more, or `lr` not a number above 0.
    FileNotFoundError
        There is no such image.

    Warns
    -----
    UserWarning
        Some objects are too small for the model to see, and left out.
    """
    steps = checked_integer(steps, "steps", 1)
    batch_size = checked_integer(batch_size, "batch_size", 1)
    rounds = checked_integer(rounds, "rounds", 1)
    validate_every = checked_integer(validate_every, "validate_every", 1)
    patience = checked_integer(patience, "patience", 1)
    seed = checked_integer(seed, "seed", 0)
    lr = checked_number(lr, "lr", above=0)
    examples, held_out = encode_examples(sam, train, "train"), encode_examples(sam, validation, "validation")
    _refuse_shared_images(examples, held_out)
    targets = low_res_targets(sam, examples, "train")
    # Until its decoder learns it has the weights of `sam`, and always its image encoder: it may take its embeddings.
    tuned = Sam(copy.deepcopy(sam.model), sam.name, sam.weights, sam.precision)
    run = _Run(tuned, targets, held_out, steps=steps, lr=lr, seed=seed, on_validation=on_validation)
    try:
        ended = run.train(batch_size=batch_size, rounds=rounds, validate_every=validate_every, patience=patience)
    except KeyboardInterrupt:
        if run.best is None:
            raise
        ended = "interrupted"
    best_step = run.restore_best()
    fingerprint = hashlib.sha256(encode_weights(tuned.model)).hexdigest()
    # A model of its own: `tuned` has cached embeddings under the fingerprint of `sam`.
    return Finetuned(
        Sam(tuned.model, sam.name, fingerprint, sam.precision), run.losses, run.validation, best_step, ended
    )


def _refuse_shared_images(train: Sequence[Example], validation: Sequence[Example]) -> None:
    """Raise a ValueError where an image is in both sets."""
    keys = {example.embedding.key for example in train}
    for number, example in enumerate(validation):
        if example.embedding.key in keys:
            raise ValueError(
                f"validation[{number}]: this image is in train, too, so it would say nothing about new images; keep an "
                "image with all of its masks in one set"
            )


class _Run:
    """A training loop and what it has found so far, which an interruption leaves whole.

    Parameters
    ----------
    sam : Sam
        Its mask decoder learns.
    targets : sequence of LowResTargets
    held_out : sequence of Example
        The validation images.
    steps, lr, seed, on_validation
        As in `finetune`.

    Attributes
    ----------
    losses : list of float
    validation : list of Validation
    best : (Validation, dict of str to torch.Tensor), or None
        The best validation so far, and the decoder's weights at its step.
    """

    def __init__(
        self,
        sam: Sam,
        targets: Sequence[LowResTargets],
        held_out: Sequence[Example],
        *,
        steps: int,
        lr: float,
        seed: int,
        on_validation: Callable[[Validation, Sam], None] | None,
    ) -> None:
        self.sam, self.targets, self.held_out, self.steps = sam, targets, held_out, steps
        self.on_validation = on_validation
        self.optimizer = torch.optim.AdamW(sam.model.mask_decoder.parameters())
        self.schedule = one_cycle(self.optimizer, lr, steps)
        self.rng = np.random.default_rng(seed)
        self.losses: list[float] = []
        self.validation: list[Validation] = []
        self.best: tuple[Validation, dict[str, torch.Tensor]] | None = None

    def train(self, *, batch_size: int, rounds: int, validate_every: int, patience: int) -> str:
        """Train until the steps are over, validation no longer improves or the loss is not finite; return which."""
        with tqdm(total=self.steps, unit="step", desc="fine-tune") as bar:
            best = self.validate(0)
            for step in range(1, self.steps + 1):
                loss = train_step(
                    self.sam, self.targets, self.optimizer, batch_size=batch_size, rounds=rounds, rng=self.rng
                )
                if not math.isfinite(loss):
                    return f"diverged in step {step}: the loss is {loss}; try a lower lr"
                self.losses.append(loss)
                self.schedule.step()
                bar.update()
                bar.set_postfix(loss=f"{loss:.2f}", best_iou=f"{_mean_iou(best):.2f}")
                if step % validate_every == 0 or step == self.steps:
                    best = self.validate(step)
                    if best["step"] < step and step - best["step"] >= patience * validate_every:
                        return f"no better in {patience} validations"
        return "all steps done"

    def validate(self, step: int) -> Validation:
        """Measure the model on the validation images, keep its weights if they are the best, and return the best."""
        ious = measure_ious(self.sam, self.held_out)
        latest = Validation(step=step, point=float(ious["point"].mean()), box=float(ious["box"].mean()))
        self.validation.append(latest)
        if self.best is None or _mean_iou(latest) > _mean_iou(self.best[0]):
            # In one assignment: an interruption must not come between the two.
            self.best = latest, copy.deepcopy(self.sam.model.mask_decoder.state_dict())
        if self.on_validation is not None:
            self.on_validation(latest, self.sam)
        return self.best[0]

    def restore_best(self) -> int:
        """Give the decoder its best weights back, and return their step."""
        if self.best is None:
            raise RuntimeError("no validation has been finished: there are no best weights to restore")
        best, weights = self.best
        self.sam.model.mask_decoder.load_state_dict(weights)
        self.optimizer.zero_grad()
        return best["step"]


def _mean_iou(validation: Validation) -> float:
    return (validation["point"] + validation["box"]) / 2


def measure_ious(sam: Sam, examples: Sequence[Example]) -> dict[str, npt.NDArray[np.float64]]:
    """Return what `iou_by_prompt` returns, for examples that are encoded already."""
    found: dict[str, list[float]] = {"point": [], "box": []}
    for example in examples:
        masks = example.masks()
        clicks = [Prompt(points=np.array([innermost(mask)])) for mask in masks]
        boxes = [Prompt(box=np.array(bounding_box(mask))) for mask in masks]
        for kind, prompts, multimask_output in (("point", clicks, True), ("box", boxes, False)):
            decoded = sam.decode_batch(example.embedding, prompts, multimask_output=multimask_output)
            found[kind] += [iou(each.best, mask) for each, mask in zip(decoded, masks, strict=True)]
    return {kind: np.array(values) for kind, values in found.items()}


def iou_by_prompt(sam: Sam, pairs: Iterable[tuple[ImageLike, npt.ArrayLike]]) -> dict[str, npt.NDArray[np.float64]]:
    """Return how well a model finds objects by one click in their middle, and by the box around them.

    Parameters
    ----------
    sam : Sam
    pairs : iterable of (image, mask)
        As in `finetune`.

    Returns
    -------
    dict of str to numpy.ndarray
        "point" and "box": the IoU of each object's highest-scoring mask, N float64, in the pairs' order.

    Raises
    ------
    ValueError, FileNotFoundError
        As `finetune`.
    """
    return measure_ious(sam, encode_examples(sam, pairs, "pairs"))


def save_weights(sam: Sam, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a model's weights as a safetensors file, which ``load_sam(checkpoint=path)`` takes.

    Parameters
    ----------
    sam : Sam
    path : str or pathlib.Path
        Ending in ``.safetensors``. An encoder that computes in bfloat16 is written as it is, rounded.
    overwrite : bool

    Raises
    ------
    ValueError
        The name ends otherwise: `load_sam` would take it for a file of another kind.
    FileExistsError
        There is a file already, and `overwrite` is false.
    """
    if not str(path).endswith(".safetensors"):
        raise ValueError(f"{str(path)!r}: expected a name that ends in .safetensors")
    write_bytes(path, encode_weights(sam.model), overwrite=overwrite)
