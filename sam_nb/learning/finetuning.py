"""Teach a model from your own labelled pictures: the mask decoder learns, both encoders stay as they are.

``output = sam(data)`` cannot train: `segment_anything.modeling.Sam.forward` runs without gradients and returns masks
that are cut to True and False already. So its parts are called here one by one. The image encoder is nearly all of the
work and does not change, so each picture goes through it once.

The recipe is the SAM paper's (arXiv 2304.02643, appendix A), cut down to what a few pictures can teach.
"""

import copy
import hashlib
from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from sam_nb.clicks import innermost, next_click, noisy_box, random_click, with_click
from sam_nb.images import load_image
from sam_nb.learning.losses import prompt_loss
from sam_nb.masks import bounding_box, iou
from sam_nb.model.embeddings import Embedding
from sam_nb.model.sam import Sam
from sam_nb.prompts import Prompt
from sam_nb.storage import write_bytes

MAX_GRADIENT_NORM = 1.0  # norm: one odd prompt must not throw the decoder off


@dataclass(frozen=True, eq=False)
class Finetuned:
    """What `finetune` returns.

    Attributes
    ----------
    sam : Sam
        The model with the best weights that were seen. It has its own fingerprint and takes no embeddings of the model
        that it comes from: encode pictures with it.
    losses : list of float
        The loss of each step.
    checks : list of dict
        Of each look at the validation pictures: "step", and the mean IoU after one click, "point", and after a "box".
        The first is of step 0, before any training.
    best_step : int
        The step whose weights were kept: that with the highest mean of the two.
    ended : str
        Why it ended.
    """

    sam: Sam
    losses: list[float]
    checks: list[dict]
    best_step: int
    ended: str

    def __repr__(self):
        best = next(check for check in self.checks if check["step"] == self.best_step)
        changes = ", ".join(f"{kind} {self.checks[0][kind]:.2f} -> {best[kind]:.2f}" for kind in ("point", "box"))
        return f"Finetuned({self.sam.name}: {changes} on the validation pictures, step {self.best_step}; {self.ended})"


def finetune(sam, train, validation, *, steps=100, lr=8e-4, objects=4, rounds=2, validate_every=20, patience=3, seed=0):
    """Train a copy of a model's mask decoder, with a progress bar. It can be interrupted: the best weights are kept.

    Parameters
    ----------
    sam : Sam
        Is left as it is.
    train : sequence of (picture, mask)
        To learn from. A picture is anything that `load_image` takes. A mask is an array HxW of the same size: bool for
        one object, or whole numbers, 0 for background and another number for each object. Objects that overlap go
        into pairs of their own, with the same picture.
    validation : sequence of (picture, mask)
        Other pictures, which tell when to stop. To say how good the result is take a third set: these were used.
    steps : int
        At most.
    lr : float
        The highest learning rate, of AdamW; it rises to it over the first tenth of the steps and then falls to zero.
        The SAM paper trains with 8e-4, and `lite` takes it well; with Meta's weights, which have more to lose, people
        begin with 1e-4.
    objects : int
        In each step, each with a prompt of its own: a click somewhere on it, or a box from a shaky hand.
    rounds : int
        A step has one of 1 to so many: the first prompt, then one corrective click each, with the last logits.
    validate_every, patience : int
        The validation pictures are looked at after so many steps; training stops when so many looks in a row were no
        better.
    seed : int
        The same seed gives the same weights, on the same machine.

    Returns
    -------
    Finetuned

    Raises
    ------
    ValueError
        A pair is not a picture and its mask; a mask has another size than its picture, is empty, or is neither bool nor
        whole numbers; an object is too small for the model to see; or a picture is in both sets. The message names the
        pair.
    FileNotFoundError
        There is no such picture.
    """
    learnt, checked = _examples(sam, train, "train"), _examples(sam, validation, "validation")
    keys = {example.embedding.key for example in learnt}
    for number, example in enumerate(checked):
        if example.embedding.key in keys:
            raise ValueError(
                f"validation[{number}]: this picture is among those to learn from, so it would tell nothing about new "
                "ones; keep a picture with all of its masks in one set"
            )
    lessons = [_lesson(sam, example, f"train[{number}]") for number, example in enumerate(learnt)]
    # Of the same weights as `sam` so far, and its image encoder stays so: it may take that one's embeddings.
    tuned = Sam(copy.deepcopy(sam.model), sam.name, sam.weights, sam.precision)
    decoder = tuned.model.mask_decoder
    optimizer = torch.optim.AdamW(decoder.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng(seed)
    losses, checks, best, ended = [], [], None, "all steps done"
    try:
        with tqdm(total=steps, unit="step", desc="fine-tune") as bar:
            for step in range(steps + 1):
                if step > 0:
                    losses.append(_train_step(tuned, lessons, optimizer, objects=objects, rounds=rounds, rng=rng))
                    schedule.step()
                    bar.update()
                    bar.set_postfix(loss=f"{losses[-1]:.2f}", best_iou=f"{_quality(best[0]):.2f}")
                if step % validate_every == 0 or step == steps:
                    means = {kind: float(values.mean()) for kind, values in _ious(tuned, checked).items()}
                    checks.append({"step": step} | means)
                    if best is None or _quality(checks[-1]) > _quality(best[0]):
                        # In one piece: an interruption must not come between the two.
                        best = checks[-1], copy.deepcopy(decoder.state_dict())
                    elif step - best[0]["step"] >= patience * validate_every:
                        ended = f"no better in {patience} looks"
                        break
    except KeyboardInterrupt:
        if best is None:
            raise
        ended = "interrupted"
    check, weights = best
    decoder.load_state_dict(weights)
    optimizer.zero_grad()
    fingerprint = hashlib.sha256(encode_weights(tuned.model)).hexdigest()
    return Finetuned(Sam(tuned.model, sam.name, fingerprint, sam.precision), losses, checks, check["step"], ended)


def iou_by_prompt(sam, pairs):
    """Return how well a model finds objects by one click in their middle, and by the box around them.

    Parameters
    ----------
    sam : Sam
    pairs : sequence of (picture, mask)
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
    return _ious(sam, _examples(sam, pairs, "pairs"))


def save_weights(sam, path, *, overwrite=False):
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


def encode_weights(model):
    """Return a model's weights as the bytes of a safetensors file."""
    return safetensors.torch.save({name: value.cpu().contiguous() for name, value in model.state_dict().items()})


@dataclass(frozen=True, eq=False)
class _Example:
    """A picture that is encoded, and its labels: HxW, in which each of the numbers stands for an object."""

    embedding: Embedding
    labels: np.ndarray
    numbers: np.ndarray

    def masks(self, chosen=np.s_[:]):
        """Return the masks of the chosen objects, list of HxW bool."""
        return [self.labels == number for number in self.numbers[chosen]]


def _examples(sam, pairs, name):
    """Return an `_Example` for each pair; pairs of the same picture share its embedding."""
    pairs = list(pairs)
    if not pairs:
        raise ValueError(f"{name} is empty: expected at least one pair, (picture, mask)")
    read = [_read(pair, f"{name}[{number}]") for number, pair in enumerate(pairs)]
    embeddings, examples = {}, []
    for image, labels, numbers in tqdm(read, unit="picture", desc=f"encode {name}", leave=False):
        embedding = sam.encode(image)
        examples.append(_Example(embeddings.setdefault(embedding.key, embedding), labels, numbers))
    return examples


def _read(pair, name):
    """Return picture HxWx3, labels HxW and the numbers that stand for objects; a ValueError says what is wrong."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"{name}: expected a pair, (picture, mask), got {type(pair).__name__}")
    try:
        image = load_image(pair[0])
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{name}: {error}") from error
    labels, size = np.asarray(pair[1]), image.shape[:2]
    if labels.ndim != 2:
        raise ValueError(
            f"{name}: expected a mask HxW, got the shape {labels.shape}; of a colour picture take a channel"
        )
    if labels.shape != size:
        cure = "turn it, mask.T" if labels.shape == size[::-1] else "give it in the picture's size"
        raise ValueError(f"{name}: the mask is {labels.shape}, the picture {size} (height, width): {cure}")
    if labels.dtype != bool and not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{name}: expected a mask of bool, or of whole numbers with one for each object, got {labels.dtype}; "
            "probabilities become a mask by `> 0.5`"
        )
    numbers = np.setdiff1d(labels, [0])
    if not len(numbers):
        raise ValueError(f"{name}: the mask is empty, there is nothing to point at; leave the pair out")
    return image, labels, numbers


def _ious(sam, examples):
    """Return what `iou_by_prompt` returns."""
    found = {"point": [], "box": []}
    for example in examples:
        masks = example.masks()
        clicks = [Prompt(points=[innermost(mask)]) for mask in masks]
        boxes = [Prompt(box=bounding_box(mask)) for mask in masks]
        for kind, prompts, several in (("point", clicks, True), ("box", boxes, False)):
            answers = sam.decode_batch(example.embedding, prompts, multimask_output=several)
            found[kind] += [iou(answer.best, mask) for answer, mask in zip(answers, masks, strict=True)]
    return {kind: np.array(values) for kind, values in found.items()}


def _quality(check):
    return (check["point"] + check["box"]) / 2


@dataclass(frozen=True, eq=False)
class _Lesson:
    """An example with what the decoder should answer, on the grid of its logits.

    Attributes
    ----------
    example : _Example
    ground_truth : Nx256x256 torch.Tensor of bool
        The mask of each object.
    stride : int
        Pixels of the encoder's input for each cell of the grid, along a side.
    """

    example: _Example
    ground_truth: torch.Tensor
    stride: int

    @property
    def shape(self):
        """How many rows and columns of the grid are picture, not padding."""
        return tuple(-(-length // self.stride) for length in self.example.embedding.input_size)

    def pixel(self, cell):
        """Return the place (x, y) in the picture of the middle of a cell (x, y)."""
        embedding = self.example.embedding
        lengths = zip(cell, embedding.original_size[::-1], embedding.input_size[::-1], strict=True)
        return tuple((place + 0.5) * self.stride * full / seen - 0.5 for place, full, seen in lengths)


def _lesson(sam, example, name):
    """Return the `_Lesson` of an example. Its masks go the picture's way: resized to what the encoder sees, padded."""
    side, cells = sam.model.image_encoder.img_size, sam.model.prompt_encoder.mask_input_size[0]
    height, width = example.embedding.input_size
    ground_truth = []
    for number, mask in zip(example.numbers, example.masks(), strict=True):
        whole = torch.from_numpy(mask)[None, None].float()
        seen = F.interpolate(whole, (height, width), mode="bilinear", align_corners=False, antialias=True)
        ground_truth.append(F.avg_pool2d(F.pad(seen, (0, side - width, 0, side - height)), side // cells)[0, 0] > 0.5)
        if not ground_truth[-1].any():
            raise ValueError(
                f"{name}: object {number} covers {np.count_nonzero(mask)} pixels, too few for the model to see; cut a "
                "smaller picture out around it, or set it to 0. (If the mask is a grey picture, make it bool: `> 127`)"
            )
    return _Lesson(example, torch.stack(ground_truth), side // cells)


def _train_step(sam, lessons, optimizer, *, objects, rounds, rng):
    """Take one step and return its loss, float."""
    loss, left = 0.0, objects
    while left > 0:
        lesson = lessons[rng.integers(len(lessons))]
        chosen = rng.permutation(len(lesson.ground_truth))[:left]
        left -= len(chosen)
        loss += _learn(sam, lesson, chosen, rounds=rng.integers(1, rounds + 1), share=len(chosen) / objects, rng=rng)
    torch.nn.utils.clip_grad_norm_(sam.model.mask_decoder.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
    optimizer.zero_grad()
    return loss


def _learn(sam, lesson, chosen, *, rounds, share, rng):
    """Prompt the chosen objects of a picture, add to the decoder's gradients, and return the loss.

    Parameters
    ----------
    sam : Sam
    lesson : _Lesson
    chosen : P numpy.ndarray of int
    rounds : int
        The first prompt, then a corrective click each.
    share : float
        What the loss is multiplied with: their share of the step's objects.
    rng : numpy.random.Generator

    Returns
    -------
    float
    """
    embedding, decoder = lesson.example.embedding, sam.model.mask_decoder
    features, ground_truth = embedding.features.to(sam.device), lesson.ground_truth[chosen].float().to(sam.device)
    rows, columns = lesson.shape
    valid = torch.zeros_like(ground_truth)
    valid[:, :rows, :columns] = 1
    by_box = rng.random() < 0.5
    masks = lesson.example.masks(chosen)
    prompts = [Prompt(box=noisy_box(mask, rng)) if by_box else Prompt([random_click(mask, rng)]) for mask in masks]
    total = 0.0
    for number in range(rounds):
        with torch.no_grad():
            sparse, dense = sam.encode_prompts(embedding, prompts)
            position = sam.model.prompt_encoder.get_dense_pe()
        logits, predicted = decoder.predict_masks(features, position, sparse, dense)
        losses, _ = prompt_loss(logits, predicted, ground_truth, valid, ambiguous=number == 0)
        loss = losses.mean() * share / rounds
        # Each round by itself: what the user clicks is no function of the weights, and its memory is free again.
        loss.backward()
        total += loss.item()
        if number + 1 < rounds:
            # What a user would see: the best-scored of three masks after a lone click, else the single mask.
            lone = number == 0 and not by_box
            tokens = (1 + predicted[:, 1:].argmax(1)).tolist() if lone else [0] * len(prompts)
            shown = [logits[row, token].detach().cpu().numpy() for row, token in enumerate(tokens)]
            goals = lesson.ground_truth[chosen].numpy()
            prompts = [_corrected(lesson, *each, rng) for each in zip(prompts, shown, goals, strict=True)]
    return total


def _corrected(lesson, prompt, logits, ground_truth, rng):
    """Return a prompt with the click that corrects its answer, and with that answer's logits; both 256x256."""
    rows, columns = lesson.shape
    mask, ground_truth = logits[:rows, :columns] > 0, ground_truth[:rows, :columns]
    cell, label = next_click(mask, ground_truth) or (random_click(ground_truth, rng), 1)
    return with_click(prompt, (lesson.pixel(cell), label), logits)
