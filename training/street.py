"""The article's prompts on the painted street, asked as the notebooks ask them."""

from typing import Any

import numpy as np

# Each prompt with the name of what it means in `sam_nb.load_ground_truth("street")`.
STREET_PROMPTS = {
    "point": ("car", {"point_coords": [(500, 375)], "point_labels": [1]}),
    "two points": ("car", {"point_coords": [(500, 375), (184, 359)], "point_labels": [1, 1]}),
    "box": ("car", {"box": (44, 160, 1011, 504)}),
    "box and negative point: ring without hub": (
        "tyre",
        {"box": (250, 370, 410, 510), "point_coords": [(334, 438)], "point_labels": [0]},
    ),
    "first of three boxes": ("car", {"box": (24, 170, 998, 472)}),
    "second of three boxes": ("rear_wheel", {"box": (830, 338, 966, 458)}),
    "third of three boxes": ("small_window", {"box": (720, 209, 772, 258)}),
}


def ask(predictor: Any, prompt: dict) -> np.ndarray:
    """Return the mask that a reader of the notebooks gets for a prompt.

    Parameters
    ----------
    predictor : segment_anything.SamPredictor
        With the image set.
    prompt : dict
        Of ``point_coords`` and ``point_labels``, ``box``, or all three, in pixels.

    Returns
    -------
    HxW numpy.ndarray of bool
        A lone click is ambiguous: the highest-scoring of three masks. A second click goes with the low-res logits of
        that mask, and anything with a box is asked for one mask.
    """
    arrays = {key: np.array(value) for key, value in prompt.items()}
    if "box" in prompt:
        return predictor.predict(**arrays, multimask_output=False)[0][0]
    first_click = {key: array[:1] for key, array in arrays.items()}
    masks, scores, logits = predictor.predict(**first_click, multimask_output=True)
    best = scores.argmax()
    if len(arrays["point_coords"]) == 1:
        return masks[best]
    return predictor.predict(**arrays, mask_input=logits[best][None], multimask_output=False)[0][0]
