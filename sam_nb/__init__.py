"""Understand, click and use Meta's Segment Anything Model (SAM) inside JupyterLab.

The short way from a picture to a mask::

    from sam_nb import Prompt, load_image, load_sam, show

    image = load_image("street")
    sam = load_sam()
    embedding = sam.encode(image)
    prompt = Prompt(points=[(500, 375)])
    show(image, sam.decode(embedding, prompt), prompt)

Names are imported on first use, so that ``import sam_nb`` loads neither torch nor matplotlib.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "CHECKPOINTS": "weights.checkpoints",
    "Dataset": "datasets.dataset",
    "Embedding": "model.embeddings",
    "Masks": "masks",
    "PALETTE": "palette",
    "Prompt": "prompts",
    "PromptCanvas": "canvas.widget",
    "SAMPLES": "images",
    "Sam": "model.sam",
    "Segment": "masks",
    "Session": "session",
    "available_models": "model.loading",
    "bounding_box": "masks",
    "click_curve": "clicks",
    "click_on": "clicks",
    "compare_scores": "datasets.evaluation",
    "download": "weights.download",
    "evaluate": "datasets.evaluation",
    "export_onnx": "model.onnx_export",
    "finetune": "learning.finetuning",
    "fit_to_side": "model.sam",
    "fuse_dense_prompt": "networks.internals",
    "innermost": "clicks",
    "iou": "masks",
    "iou_by_prompt": "learning.finetuning",
    "load_coco": "files.coco",
    "load_dataset": "datasets.layouts",
    "load_ground_truth": "ground_truth",
    "load_image": "images",
    "load_label_map": "files.png",
    "load_labelme": "files.labelme",
    "load_mask": "files.png",
    "load_sam": "model.loading",
    "load_yolo": "files.yolo",
    "look_closer": "model.closer",
    "next_click": "clicks",
    "overlay": "draw",
    "play": "canvas.play",
    "predicted_iou": "networks.internals",
    "save_coco": "files.coco",
    "save_cutout": "files.png",
    "save_label_map": "files.png",
    "save_labelme": "files.labelme",
    "save_mask": "files.png",
    "save_segments": "files.results",
    "save_weights": "learning.finetuning",
    "save_yolo": "files.yolo",
    "score": "figures",
    "segment": "canvas.widget",
    "segment_everything": "model.everything",
    "segment_folder": "files.folder",
    "select": "model.everything",
    "show": "figures",
    "show_box": "figures",
    "show_everything": "figures",
    "show_mask": "figures",
    "show_points": "figures",
    "show_row": "figures",
    "show_worst": "datasets.evaluation",
    "synthetic_cells": "learning.synthetic",
    "token_attention": "networks.internals",
    "train_unet": "learning.unet",
    "upscale": "networks.internals",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'sam_nb' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"sam_nb.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
