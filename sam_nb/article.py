"""The article's prompts on `load_image("street")`, with what each means: for tests, scripts and training."""

from sam_nb.prompts import Prompt

ARTICLE_PROMPTS: dict[str, tuple[str, Prompt]] = {
    "point": ("car", Prompt(points=[(500, 375)])),
    "two points": ("car", Prompt(points=[(500, 375), (184, 359)])),
    "box": ("car", Prompt(box=(44, 160, 1011, 504))),
    "box and negative point: ring without hub": (
        "tyre",
        Prompt(points=[(334, 438)], labels=[0], box=(250, 370, 410, 510)),
    ),
    "first of three boxes": ("car", Prompt(box=(24, 170, 998, 472))),
    "second of three boxes": ("rear_wheel", Prompt(box=(830, 338, 966, 458))),
    "third of three boxes": ("small_window", Prompt(box=(720, 209, 772, 258))),
}
"""Name of the prompt -> (name of what it means in `load_ground_truth("street")`, the prompt)."""
