"""A model to ask: load it, encode a picture once, decode as many prompts as you like.

The work is done by `segment_anything`'s networks: `Sam.model` is its model, with attention computed in a faster order,
and `Sam.predictor` hands out its `SamPredictor`. What is added: pictures and prompts are checked, the embedding is a
value that is kept, and answers name their model.
"""

import contextlib
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from sam_nb.images import fit_to_side, load_image
from sam_nb.masks import Masks
from sam_nb.model.embeddings import Embedding, EmbeddingCache, embedding_key
from sam_nb.storage import cache_dir

CHUNKS = {"cpu": 4}  # prompts decoded in one pass: more of them no longer fit a processor's cache, and take longer
OTHER_CHUNKS = 32  # on graphics cards: a hundred take gigabytes


class Sam:
    """A loaded model. Made by `load_sam`.

    Attributes
    ----------
    model : segment_anything.modeling.Sam
        The model itself, for everything that is written for `segment_anything`.
    name : str
        "lite", "vit_b", "vit_l" or "vit_h".
    weights : str
        SHA-256 of the weights.
    precision : str
        What the image encoder computes in, "float32" or "bfloat16".
    """

    def __init__(self, model, name, weights, precision="float32"):
        self.model = model
        self.name = name
        self.weights = weights
        self.precision = precision
        self._cache = EmbeddingCache(cache_dir() / "embeddings")

    def __repr__(self):
        return f"Sam({self.name}, {self.millions} parameters, {self.device})"

    @property
    def millions(self):
        """Number of parameters, a str such as "7.2 M"."""
        return f"{sum(parameter.numel() for parameter in self.model.parameters()) / 1e6:.1f} M"

    @property
    def device(self):
        """Where the model computes, `torch.device`."""
        return self.model.device

    def encode(self, image, progress=None):
        """Return the `Embedding` of a picture: the slow step, once a picture.

        It is looked up first, by the picture's pixels and the model's weights, in memory and on disk.

        Parameters
        ----------
        image : HxWx3 numpy.ndarray of uint8, RGB
            Or anything else that `load_image` takes.
        progress : callable, optional
            Called with the share that is done, 0 to 1, after each block of the encoder's transformer (vit_b has 12,
            `lite` none).

        Returns
        -------
        Embedding
            With features equal to those of ``SamPredictor.set_image``.

        Raises
        ------
        ValueError
            This is no picture, or one so thin that nothing is left of it at the model's size.
        """
        image = load_image(image)
        key = embedding_key(image, self.weights, f"{self.device.type} {self.precision}")
        embedding = self._cache.get(key)
        if embedding is None:
            resized = fit_to_side(image, self._side)
            pixels = torch.from_numpy(resized).to(self.device).permute(2, 0, 1).contiguous()[None]
            with torch.no_grad(), _watched(getattr(self.model.image_encoder, "blocks", ()), progress):
                features = self.model.image_encoder(self.model.preprocess(pixels))
            embedding = Embedding(
                features=features.cpu(),
                original_size=image.shape[:2],
                input_size=resized.shape[:2],
                model=self.name,
                weights=self.weights,
                key=key,
            )
            self._cache.put(embedding)
        return embedding

    def predictor(self, embedding):
        """Return a `segment_anything.SamPredictor` that holds this embedding, as if `set_image` had been called."""
        from segment_anything import SamPredictor  # noqa: PLC0415 - brings torchvision, see sam_nb.model.upstream

        self._check_made_here(embedding)
        predictor = SamPredictor(self.model)
        predictor.original_size = embedding.original_size
        predictor.input_size = embedding.input_size
        predictor.features = embedding.features.to(self.device)
        predictor.is_image_set = True
        return predictor

    def decode(self, embedding, prompt, multimask_output=None):
        """Return the `Masks` that answer one prompt: the fast step.

        Parameters
        ----------
        embedding : Embedding
            From `encode` of this model.
        prompt : Prompt
        multimask_output : bool, optional
            True for three masks (whole, part, subpart), False for one. Left out: three for a lone click, which can mean
            any of them, and one for everything else, as the SAM paper has it.

        Returns
        -------
        Masks
            Equal to what ``SamPredictor.predict`` returns, bit for bit.

        Raises
        ------
        ValueError
            The prompt lies far outside the picture, its mask_input has another size than the model's, or the embedding
            is another model's.
        """
        self._check_prompt(prompt, embedding)
        if multimask_output is None:
            multimask_output = _is_ambiguous(prompt)
        return self._decode_same_shape(embedding, [prompt], multimask_output)[0]

    def decode_batch(self, embedding, prompts, multimask_output=False):
        """Return the answers to several prompts about one picture, each about its own object.

        Prompts of one kind (as many points, a box or none) go through the decoder together.

        Parameters
        ----------
        embedding : Embedding
        prompts : sequence of Prompt
        multimask_output : bool
            For all of them.

        Returns
        -------
        list of Masks
            In the order of the prompts; equal to what ``SamPredictor.predict_torch`` returns for a batch of one kind.

        Raises
        ------
        ValueError
            As `decode`.
        """
        kinds = {}
        for index, prompt in enumerate(prompts):
            self._check_prompt(prompt, embedding)
            kind = (
                None if prompt.points is None else len(prompt.points),
                prompt.box is None,
                prompt.mask_input is None,
            )
            kinds.setdefault(kind, []).append(index)
        answers = {}
        for indices in kinds.values():
            answered = self._decode_same_shape(embedding, [prompts[index] for index in indices], multimask_output)
            answers.update(zip(indices, answered, strict=True))
        return [answers[index] for index in range(len(prompts))]

    def encode_prompts(self, embedding, prompts):
        """Return what the prompt encoder makes of prompts of one kind: the decoder's other input beside the features.

        Parameters
        ----------
        embedding : Embedding
            Of the picture that they are about; only its sizes are looked at.
        prompts : sequence of P Prompt
            Each with as many points as the others, all or none with a box, all or none with a mask_input.

        Returns
        -------
        (PxNxC torch.Tensor, PxCxHxW torch.Tensor)
            The sparse embeddings, a token for each point and corner, and the dense ones, for each cell of the features.
        """
        (height, width), (rows, columns) = embedding.original_size, embedding.input_size
        per_pixel = np.array([columns / width, rows / height])  # of the encoder's input, along x and y

        def batch(field, scale=1):
            values = [getattr(prompt, field) for prompt in prompts]
            if values[0] is None:
                return None
            # Apple's GPU has no float64.
            return torch.as_tensor(np.stack(values) * scale, dtype=torch.float32, device=self.device)

        points, boxes = batch("points", per_pixel), batch("box", np.tile(per_pixel, 2))
        return self.model.prompt_encoder(
            points=None if points is None else (points, batch("labels")), boxes=boxes, masks=batch("mask_input")
        )

    def _decode_same_shape(self, embedding, prompts, multimask_output):
        """Return the `Masks` for prompts of one kind: `SamPredictor.predict_torch`, but for the full-size masks."""
        self._check_made_here(embedding)
        count, chunk_size = 3 if multimask_output else 1, CHUNKS.get(self.device.type, OTHER_CHUNKS)
        # All at once, because pieces that stay, made between larger ones that go, would leave holes in the memory.
        scores = np.empty((len(prompts), count), np.float32)
        logits = np.empty((len(prompts), count, *self.model.prompt_encoder.mask_input_size), np.float32)
        with torch.inference_mode():
            position = self.model.prompt_encoder.get_dense_pe()
        for start in range(0, len(prompts), chunk_size):
            chunk = slice(start, start + chunk_size)
            made = self._decode_chunk(embedding, prompts[chunk], position, multimask_output)
            logits[chunk], scores[chunk] = (tensor.cpu().numpy() for tensor in made)
        size = embedding.original_size
        return [
            Masks(*pair, self.name, size, partial(_upscaled, pair[1], self._side, embedding.input_size, size))
            for pair in zip(scores, logits, strict=True)
        ]

    def _decode_chunk(self, embedding, prompts, position, multimask_output):
        """Return logits PxCxhxw and predicted IoU PxC, tensors, for prompts of one kind."""
        with torch.inference_mode():
            sparse, dense = self.encode_prompts(embedding, prompts)
            return self.model.mask_decoder(
                image_embeddings=embedding.features.to(self.device),
                image_pe=position,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask_output,
            )

    @property
    def _side(self):
        """Pixels of the padded square that the encoder sees."""
        return self.model.image_encoder.img_size

    def _check_prompt(self, prompt, embedding):
        prompt.check_inside(*embedding.original_size)
        expected = (1, *self.model.prompt_encoder.mask_input_size)
        if prompt.mask_input is not None and prompt.mask_input.shape != expected:
            raise ValueError(
                f"mask_input: {self.name} expects logits of shape {expected}, got {prompt.mask_input.shape}; take them "
                "from Masks.logits of this model"
            )

    def _check_made_here(self, embedding):
        if embedding.weights != self.weights:
            other = f"other weights of {self.name}" if embedding.model == self.name else embedding.model
            raise ValueError(f"this embedding was made by {other}: encode the picture again with this model")


def _upscaled(logits, side, input_size, original_size, index):
    """Return logits in the size of the original picture, HxW float32, as `Sam.postprocess_masks` makes them.

    Parameters
    ----------
    logits : CxhxW numpy.ndarray of float32
        Of the padded square.
    side : int
        Of that square, in pixels of the encoder's input.
    input_size, original_size : (int, int)
        Height and width of the picture in the square, and of the original picture.
    index : int
        Which of the C masks.
    """
    scale = side // logits.shape[-1]
    # Padding is not enlarged, but for one line: the last of the picture mixes with it.
    height, width = (-(-length // scale) + 1 for length in input_size)
    low_res = torch.from_numpy(logits[index, :height, :width])[None, None]
    part = F.interpolate(
        low_res, [scale * length for length in low_res.shape[2:]], mode="bilinear", align_corners=False
    )
    picture = F.interpolate(
        part[..., : input_size[0], : input_size[1]], original_size, mode="bilinear", align_corners=False
    )
    return picture[0, 0].numpy()


@contextlib.contextmanager
def _watched(blocks, progress):
    """Call `progress` with the share of the blocks that have run."""
    hooks = []
    if progress is not None:
        for number, block in enumerate(blocks, start=1):
            share = number / len(blocks)
            hooks.append(block.register_forward_hook(lambda *_, share=share: progress(share)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _is_ambiguous(prompt):
    return prompt.box is None and prompt.mask_input is None and len(prompt.points) == 1
