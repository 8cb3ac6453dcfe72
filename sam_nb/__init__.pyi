"""The public names, for editors and type checkers: those of the lazy table in `__init__.py`."""

from sam_nb.canvas.sliders import MaskSliders as MaskSliders
from sam_nb.canvas.widget import PromptCanvas as PromptCanvas
from sam_nb.canvas.widget import segment as segment
from sam_nb.clicks import click_curve as click_curve
from sam_nb.clicks import click_on as click_on
from sam_nb.clicks import next_click as next_click
from sam_nb.draw import overlay as overlay
from sam_nb.figures import score as score
from sam_nb.figures import show as show
from sam_nb.figures import show_box as show_box
from sam_nb.figures import show_everything as show_everything
from sam_nb.figures import show_mask as show_mask
from sam_nb.figures import show_points as show_points
from sam_nb.figures import show_row as show_row
from sam_nb.files.coco import load_coco as load_coco
from sam_nb.files.coco import save_coco as save_coco
from sam_nb.files.folder import segment_folder as segment_folder
from sam_nb.files.labelme import load_labelme as load_labelme
from sam_nb.files.labelme import save_labelme as save_labelme
from sam_nb.files.png import load_label_map as load_label_map
from sam_nb.files.png import load_mask as load_mask
from sam_nb.files.png import save_cutout as save_cutout
from sam_nb.files.png import save_label_map as save_label_map
from sam_nb.files.png import save_mask as save_mask
from sam_nb.files.results import save_segments as save_segments
from sam_nb.files.yolo import load_yolo as load_yolo
from sam_nb.files.yolo import save_yolo as save_yolo
from sam_nb.ground_truth import load_ground_truth as load_ground_truth
from sam_nb.images import SAMPLES as SAMPLES
from sam_nb.images import load_image as load_image
from sam_nb.learning.finetuning import finetune as finetune
from sam_nb.learning.finetuning import iou_by_prompt as iou_by_prompt
from sam_nb.learning.finetuning import save_weights as save_weights
from sam_nb.learning.synthetic import synthetic_cells as synthetic_cells
from sam_nb.learning.unet import train_unet as train_unet
from sam_nb.masks import Masks as Masks
from sam_nb.masks import Segment as Segment
from sam_nb.masks import iou as iou
from sam_nb.model.checkpoints import CHECKPOINTS as CHECKPOINTS
from sam_nb.model.checkpoints import download as download
from sam_nb.model.embeddings import Embedding as Embedding
from sam_nb.model.everything import segment_everything as segment_everything
from sam_nb.model.everything import select as select
from sam_nb.model.loading import load_sam as load_sam
from sam_nb.model.sam import Sam as Sam
from sam_nb.palette import PALETTE as PALETTE
from sam_nb.prompts import Prompt as Prompt
from sam_nb.session import Session as Session

__version__: str
__all__: list[str]
