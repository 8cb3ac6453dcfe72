"""All prompts of a training step in one decoder call, whatever their shapes.

`segment_anything`'s decoder takes prompts of the same shape at a time: as many points each, all or none with a box.
Here every prompt gets the same number of tokens, and nothing attends to those that are padding. A prompt's masks are
the same as if it were decoded alone (tests/test_trainer.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from segment_anything.modeling.transformer import Attention, TwoWayTransformer

    from sam_nb.networks.lite import LitePromptEncoder


@dataclass(frozen=True)
class PromptBatch:
    """P prompts about B images.

    Attributes
    ----------
    owner : P int64
        Row of each prompt's image.
    points : PxKx2 float32
        (x, y) in pixels of the padded square.
    labels : PxK float32
        1 foreground, 0 background, -1 no point.
    boxes : Px4 float32
        Zeros where there is none.
    has_box : P bool
    mask_input : Px1xhxw float32, or None
        Low-res logits.
    has_mask : P bool
        Which prompts get theirs.
    """

    owner: torch.Tensor
    points: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor
    has_box: torch.Tensor
    mask_input: torch.Tensor | None
    has_mask: torch.Tensor

    @property
    def is_ambiguous(self) -> torch.Tensor:
        """P bool: one point or one box, and nothing else."""
        return ((self.labels >= 0).sum(1) + self.has_box == 1) & ~self.has_mask

    def corrected(
        self,
        slot: int,
        points: torch.Tensor,
        labels: torch.Tensor,
        mask_input: torch.Tensor,
        has_mask: torch.Tensor,
    ) -> PromptBatch:
        """Return the prompts with one click more, points Px2 and labels P, and with low-res logits Px1xhxw."""
        all_points, all_labels = self.points.clone(), self.labels.clone()
        all_points[:, slot], all_labels[:, slot] = points, labels
        return replace(self, points=all_points, labels=all_labels, mask_input=mask_input, has_mask=has_mask)


def first_prompts(batch: dict[str, torch.Tensor], spare: int = 0) -> PromptBatch:
    """Return the `PromptBatch` of a step's samples.

    Parameters
    ----------
    batch : dict of torch.Tensor
        Of `training.data.SceneDataset`, stacked.
    spare : int
        How many clicks may follow. Their slots are allocated at once: fixed shapes compile once.
    """
    images, each = batch["labels"].shape[:2]
    owner = torch.arange(images, device=batch["labels"].device).repeat_interleave(each)
    boxes = batch["boxes"].flatten(0, 1)
    return PromptBatch(
        owner=owner,
        points=F.pad(batch["points"].flatten(0, 1), (0, 0, 0, spare)),
        labels=F.pad(batch["labels"].flatten(0, 1), (0, spare), value=-1.0),
        boxes=boxes,
        has_box=boxes.any(1),
        mask_input=None,
        has_mask=torch.zeros_like(owner, dtype=torch.bool),
    )


def embed(
    encoder: LitePromptEncoder, prompts: PromptBatch, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what `LitePromptEncoder.forward` makes of each prompt by itself, padded to one length.

    Parameters
    ----------
    encoder : sam_nb.networks.lite.LitePromptEncoder
    prompts : PromptBatch
    dtype : torch.dtype
        Of the dense embedding.

    Returns
    -------
    sparse : PxNxC torch.Tensor of float32
        Tokens of the points, of the one that SAM adds where there is no box, and of the box's corners.
    present : PxN torch.Tensor of bool
        Which of them are not padding.
    dense : PxCxHxW torch.Tensor of dtype
    """
    labels, has_box = prompts.labels, prompts.has_box
    size = encoder.input_image_size
    points = encoder.pe_layer.forward_with_coords(prompts.points + 0.5, size)
    kinds = torch.stack([layer.weight[0] for layer in encoder.point_embeddings])
    points = points + kinds[labels.clamp(min=0).long()]
    nothing = encoder.not_a_point_embed.weight.expand(len(labels), 1, -1)
    corners = encoder.pe_layer.forward_with_coords(prompts.boxes.reshape(-1, 2, 2) + 0.5, size) + kinds[2:]
    sparse = torch.cat([points, nothing, corners], 1)
    present = torch.cat([labels >= 0, ~has_box[:, None], has_box[:, None].expand(-1, 2)], 1)
    drawn = encoder.draw((prompts.points, labels), prompts.boxes, len(labels))
    drawn = drawn.to(dtype, memory_format=torch.channels_last)
    no_mask = encoder.no_mask_embed.weight[..., None, None]
    with _precision(drawn.device, dtype):
        dense = encoder.drawn(drawn) + no_mask.to(dtype)
        if prompts.mask_input is not None:
            masks = encoder.mask_downscaling(prompts.mask_input) - no_mask
            dense = dense + masks.to(dtype) * prompts.has_mask[:, None, None, None]
    return sparse, present, dense


def decode(
    model: Sam, embeddings: torch.Tensor, prompts: PromptBatch, dtype: torch.dtype = torch.bfloat16
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits Px4xhxw and predicted IoU Px4, float32, of all four mask tokens.

    Parameters
    ----------
    model : segment_anything.modeling.Sam
        `lite`.
    embeddings : BxCxHxW torch.Tensor
        Of all images of the step.
    prompts : PromptBatch
        As many of each image.
    dtype : torch.dtype
        What it computes in.
    """
    device, decoder = embeddings.device, model.mask_decoder
    # The positional encoding of a coordinate needs float32: bfloat16 would round it to a few pixels.
    with torch.autocast(device.type, enabled=False):
        sparse, present, dense = embed(model.prompt_encoder, prompts, dtype)
        position = model.prompt_encoder.get_dense_pe()
    with _precision(device, dtype):
        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([output_tokens.expand(len(sparse), -1, -1), sparse], 1)
        present = F.pad(present, (len(output_tokens), 0), value=True)
        features = embeddings.to(dtype)
        cells = decoder.fuse_dense_prompt(features, dense)
        tokens, mixed = _two_way(decoder.transformer, cells, position.to(dtype), tokens.to(dtype), present)
        logits, predicted = decoder.finish(tokens, mixed, features)
    return logits.float(), predicted.float()


def _precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def _two_way(
    transformer: TwoWayTransformer,
    cells: torch.Tensor,
    position: torch.Tensor,
    tokens: torch.Tensor,
    present: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `TwoWayTransformer.forward` returns, cells as PxCxHxW; tokens that are padding change nothing."""
    shape = cells.shape
    cells, position = cells.flatten(2).transpose(1, 2), position.flatten(2).transpose(1, 2)
    place = tokens
    for layer in transformer.layers:
        if layer.skip_first_layer_pe:
            tokens = layer.norm1(_attend(layer.self_attn, tokens, tokens, tokens, present))
        else:
            queries = tokens + place
            tokens = layer.norm1(tokens + _attend(layer.self_attn, queries, queries, tokens, present))
        placed = cells + position
        tokens = layer.norm2(tokens + _attend(layer.cross_attn_token_to_image, tokens + place, placed, cells))
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        to_cells = _attend(layer.cross_attn_image_to_token, placed, tokens + place, tokens, present)
        cells = layer.norm4(cells + to_cells)
    to_tokens = _attend(transformer.final_attn_token_to_image, tokens + place, cells + position, cells)
    tokens = transformer.norm_final_attn(tokens + to_tokens)
    return tokens, cells.transpose(1, 2).unflatten(2, shape[2:])


def _attend(
    attention: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, present: torch.Tensor | None = None
) -> torch.Tensor:
    """Return what `segment_anything.modeling.transformer.Attention` returns, without the keys that are padding."""
    q, k, v = (
        project(x).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for project, x in ((attention.q_proj, q), (attention.k_proj, k), (attention.v_proj, v))
    )
    if q.device.type == "cpu":
        mixed = _mix(q, k, v, present)
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if present is None else present[:, None, None])
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def _mix(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return softmax(q k) v, PxHxNxC, on a CPU three times as fast as the fused kernel, which suits square scores.

    Scores have the cells in their rows, whichever of queries and keys these are: rows of thousands, not of a dozen.
    """
    k = k * k.shape[-1] ** -0.5
    if q.shape[2] <= k.shape[2]:
        scores = q @ k.transpose(2, 3)
        if present is not None:
            scores = scores.masked_fill(~present[:, None, None], -torch.inf)
        return scores.softmax(3) @ v
    scores = k @ q.transpose(2, 3)
    if present is not None:
        scores = scores.masked_fill(~present[:, None, :, None], -torch.inf)
    return scores.softmax(2).transpose(2, 3) @ v
