"""The article's prompts on the painted street (`sam_nb.article`), decoded as in the notebooks."""

import numpy as np
import numpy.typing as npt
from segment_anything import SamPredictor

from sam_nb.prompts import Prompt


def ask(predictor: SamPredictor, prompt: Prompt) -> npt.NDArray[np.bool_]:
    """Return the mask that a reader of the notebooks gets for a prompt.

    Parameters
    ----------
    predictor : segment_anything.SamPredictor
        With the image set.
    prompt : Prompt
        Points, a box, or both.

    Returns
    -------
    HxW numpy.ndarray of bool
        A lone click is ambiguous: the highest-scoring of three masks. A second click goes with the low-res logits of
        that mask, and any prompt with a box gives a single mask.
    """
    points = {}
    if prompt.points is not None:  # copies: PyTorch warns of arrays that are read-only, as a prompt's are
        points = {"point_coords": prompt.points.copy(), "point_labels": prompt.labels.copy()}
    if prompt.box is not None:
        return predictor.predict(**points, box=prompt.box, multimask_output=False)[0][0]
    first_click = {name: array[:1] for name, array in points.items()}
    masks, scores, logits = predictor.predict(**first_click, multimask_output=True)
    best = scores.argmax()
    if len(prompt.points) == 1:
        return masks[best]
    return predictor.predict(**points, mask_input=logits[best][None], multimask_output=False)[0][0]
