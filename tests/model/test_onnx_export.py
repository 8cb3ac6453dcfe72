"""The ONNX files in onnxruntime, against PyTorch: encoder and decoder as a chain, on images that are not square."""

import copy
import dataclasses
import importlib.util
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from segment_anything import modeling
from segment_anything.utils.onnx import SamOnnxModel

from sam_nb import Prompt, export_onnx, fit_to_side, iou, load_image
from sam_nb.model import onnx_export
from sam_nb.model.loading import ARCHITECTURES, set_precision, use_fast_layers
from sam_nb.model.sam import Sam

TOLERANCE = 1e-3  # of logits that reach 20; measured: 1e-4
INPUTS = ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"]
OUTPUTS = ["masks", "iou_predictions", "low_res_masks"]


class Exported:
    """A folder that `export_onnx` wrote, run by onnxruntime as another program would: by what model.json says."""

    def __init__(self, folder):
        self.about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(folder / self.about[part]["file"], options) for part in ("encoder", "decoder")
        )

    def encode(self, image):
        resized = fit_to_side(image, self.about["long_side"]).astype(np.float32)
        return self.encoder.run(None, {"input_image": resized})[0]

    def feed(self, features, size, prompts):
        """Return the decoder's inputs for prompts of the same shape."""
        side = self.about["long_side"]
        scale = np.array([int(n * side / max(size) + 0.5) / n for n in size])[::-1]
        coords, labels = [], []
        for prompt in prompts:
            points = [] if prompt.points is None else [*zip(prompt.points, prompt.labels, strict=True)]
            if prompt.box is None:
                points.append(((0, 0), -1))
            else:
                points += [(prompt.box[:2], 2), (prompt.box[2:], 3)]
            coords.append([np.array(place) * scale for place, _ in points])
            labels.append([label for _, label in points])
        given = [prompt.mask_input for prompt in prompts if prompt.mask_input is not None]
        low_res = self.about["low_res_side"]
        values = [features, coords, labels, given or np.zeros((1, 1, low_res, low_res)), [bool(given)], size]
        return {name: np.asarray(value, np.float32) for name, value in zip(INPUTS, values, strict=True)}

    def decode(self, features, size, prompts):
        return self.decoder.run(OUTPUTS, self.feed(features, size, prompts))


def small_vit(seed=0):
    """Return a SAM as Meta's are built, small, with windows that reach over the edge and weights that all matter."""
    torch.manual_seed(seed)
    made = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=256,
            embed_dim=48,
            depth=3,
            num_heads=3,
            out_chans=256,
            use_rel_pos=True,
            window_size=6,
            global_attn_indexes=(1,),
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=256, image_embedding_size=(16, 16), input_image_size=(256, 256), mask_in_chans=16
        ),
        mask_decoder=modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=512, num_heads=8),
            transformer_dim=256,
        ),
    )
    for name, parameter in made.named_parameters():
        if "rel_pos" in name or "pos_embed" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


@pytest.fixture(scope="module", params=["lite", "vit"])
def pair(request, lite, tmp_path_factory):
    """Return a model and what was exported of it."""
    sam = lite if request.param == "lite" else Sam(use_fast_layers(small_vit()), "vit_b", "random")
    return sam, Exported(export_onnx(sam, tmp_path_factory.mktemp("onnx") / request.param))


@pytest.fixture(scope="module")
def encoded(pair):
    """Return an image's size, our embedding of it and the exported encoder's."""
    sam, exported = pair
    image = load_image("cat")
    return image.shape[:2], sam.encode(image), exported.encode(image)


def random_prompts(sam, size, shape):
    """Return prompts of a shape: (number of points, has a box, has a mask_input, number of prompts)."""
    points, box, mask_input, count = shape
    rng = np.random.default_rng(points + 10 * count)
    prompts = []
    for _ in range(count):
        fields = {}
        if points:
            fields = {"points": rng.uniform(0, size[::-1], (points, 2)), "labels": [1, *[0, 1] * 3][:points]}
        if box:
            corners = np.sort(rng.uniform(0, np.array(size[::-1]) - 20, (2, 2)), axis=0)
            fields["box"] = [*corners[0], *(corners[1] + 20)]
        if mask_input:
            low_res = sam.model.prompt_encoder.mask_input_size
            fields["mask_input"] = rng.normal(0, 5, (1, *low_res)).astype(np.float32)
        prompts.append(Prompt(**fields))
    return prompts


@pytest.mark.parametrize("crop", [np.s_[:, 300:], np.s_[:, :333], np.s_[:120, :301]], ids=["wide", "tall", "small"])
def test_the_encoder_equals_encode(pair, crop):
    sam, exported = pair
    image = load_image("street")[crop]
    features = sam.encode(image).features.numpy()
    assert features.std() > 0.1
    np.testing.assert_allclose(exported.encode(image), features, atol=TOLERANCE)


@pytest.mark.parametrize(
    "shape",
    [  # number of points, box, mask_input, number of prompts
        *((points, False, False, 1) for points in (1, 2, 3, 7)),
        *((points, True, False, 1) for points in (0, 1, 2, 3, 7)),
        (1, False, True, 1),
        (2, True, True, 1),
        (1, False, False, 5),
        (0, True, False, 3),
        (7, True, False, 2),
        (3, False, True, 3),
    ],
)
def test_the_chain_equals_decode(pair, encoded, shape):
    (sam, exported), (size, embedding, features) = pair, encoded
    prompts = random_prompts(sam, size, shape)
    masks, scores, low_res = exported.decode(features, size, prompts)
    assert masks.shape == (shape[-1], 4, *size)
    for several, indices in ((False, [0]), (True, [1, 2, 3])):
        for number, expected in enumerate(sam.decode_batch(embedding, prompts, multimask_output=several)):
            np.testing.assert_allclose(low_res[number, indices], expected.logits, atol=TOLERANCE)
            np.testing.assert_allclose(scores[number, indices], expected.scores, atol=TOLERANCE)
            full = [expected.upscale(index) for index in range(len(indices))]
            np.testing.assert_allclose(masks[number, indices], full, atol=TOLERANCE)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in {"vit_b", "vit_l", "vit_h"}])
def test_every_model_that_is_small_enough(name, tmp_path):
    """Those of Meta's have the layers of the small one above."""
    torch.manual_seed(0)
    sam = Sam(use_fast_layers(ARCHITECTURES[name]().eval()), name, f"random {name}")
    exported = Exported(export_onnx(sam, tmp_path / "out"))
    image = load_image("cat")
    np.testing.assert_allclose(exported.encode(image), sam.encode(image).features.numpy(), atol=TOLERANCE)


def test_no_mask_input_whatever_is_in_it(pair, encoded):
    """With `has_mask_input` of 0 `mask_input` does not count: zeros, as Meta's clients send them, or anything else."""
    (sam, exported), (size, embedding, features) = pair, encoded
    prompts = random_prompts(sam, size, (2, False, False, 1))
    feed = exported.feed(features, size, prompts)
    expected = sam.decode(embedding, prompts[0]).logits
    for value in (0, 7, np.nan):
        feed["mask_input"] = np.full_like(feed["mask_input"], value)
        np.testing.assert_allclose(exported.decoder.run(OUTPUTS, feed)[2][0, :1], expected, atol=TOLERANCE)
    feed |= {"mask_input": np.full_like(feed["mask_input"], 7), "has_mask_input": np.ones(1, np.float32)}
    assert np.abs(exported.decoder.run(OUTPUTS, feed)[2][0, :1] - expected).max() > 10 * TOLERANCE


def test_one_mask_input_for_all_prompts(pair, encoded):
    (sam, exported), (size, _, features) = pair, encoded
    prompts = random_prompts(sam, size, (1, False, True, 3))
    same = [Prompt(points=prompt.points, mask_input=prompts[0].mask_input) for prompt in prompts]
    feed = exported.feed(features, size, same)
    expected = exported.decoder.run(OUTPUTS, feed)[2]
    feed["mask_input"] = feed["mask_input"][:1]
    np.testing.assert_allclose(exported.decoder.run(OUTPUTS, feed)[2], expected, atol=TOLERANCE)


def test_a_client_of_metas_export_gets_what_it_expects(tmp_path):
    """The same inputs, by name, into Meta's own model for the export and into ours: the same outputs."""
    model = small_vit()
    theirs = SamOnnxModel(model, return_single_mask=False)
    exported = Exported(export_onnx(Sam(use_fast_layers(copy.deepcopy(model)), "vit_b", "x"), tmp_path / "out"))
    rng = np.random.default_rng(0)
    feed = {
        "image_embeddings": rng.normal(size=(1, 256, 16, 16)),
        "point_coords": rng.uniform(0, 256, (1, 5, 2)),
        "point_labels": [[1, 0, 2, 3, -1]],
        "mask_input": rng.normal(size=(1, 1, 64, 64)),
        "has_mask_input": [1],
        "orig_im_size": [301, 222],
    }
    feed = {name: np.asarray(value, np.float32) for name, value in feed.items()}
    expected = theirs(**{name: torch.from_numpy(value) for name, value in feed.items()})
    for found, value in zip(exported.decoder.run(None, feed), expected, strict=True):
        np.testing.assert_allclose(found, value, atol=TOLERANCE)


def test_the_json_describes_the_graphs(pair):
    sam, exported = pair
    about = exported.about
    assert (about["model"], about["weights_sha256"], about["long_side"]) == (sam.name, sam.weights, sam.side)
    assert about["licence"].startswith("Apache-2.0" if sam.name == "lite" else "that of the weights")
    assert about["mean"] == [123.675, 116.28, 103.53]
    assert "logits, not booleans" in about["masks"]
    for part in ("encoder", "decoder"):
        session = getattr(exported, part)
        for kind, values in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
            described = about[part][kind]
            assert [value.name for value in values] == list(described)
            assert [value.shape for value in values] == [each["shape"] for each in described.values()]
            assert {value.type for value in values} == {"tensor(float)"}
    assert list(about["decoder"]["inputs"]) == INPUTS
    assert list(about["decoder"]["outputs"]) == OUTPUTS


def test_the_opset_is_the_one_stated(lite, tmp_path):
    folder = export_onnx(lite, tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == ["decoder.onnx", "encoder.onnx", "model.json"]
    for name in ("encoder.onnx", "decoder.onnx"):
        (opset,) = onnx.load(folder / name).opset_import
        assert (opset.domain, opset.version) == ("", 17)
    assert json.loads((folder / "model.json").read_text(encoding="utf-8"))["opset"] == 17


def test_the_model_stays_as_it_is_and_bfloat16_becomes_float32(tmp_path):
    model = set_precision(use_fast_layers(small_vit()), torch.bfloat16)
    before = {name: (value.dtype, value.clone()) for name, value in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    sam = Sam(model, "vit_b", "x", "bfloat16")
    exported = Exported(export_onnx(sam, tmp_path / "out"))
    assert [type(module) for module in model.modules()] == kinds
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert value.dtype == before[name][0]
        assert torch.equal(value, before[name][1])
    image = load_image("cat")
    expected = sam.encode(image).features.numpy()
    assert np.abs(exported.encode(image) - expected).mean() < 0.02 * expected.std()


def test_int8_gives_the_same_masks(lite, tmp_path, caplog):
    """100 prompts on two images: the mean IoU that the docstring states, with margin."""
    rng = np.random.default_rng(0)
    exported = Exported(export_onnx(lite, tmp_path / "out", int8=True))
    assert not caplog.records  # a notebook would show them in red
    assert exported.about["encoder_weights"] == "float32, of matrix products int8"
    assert (tmp_path / "out" / "encoder.onnx").stat().st_size < 21e6  # in float32: 24.8 MB
    found = []
    for name in ("cat", "coffee"):
        image = load_image(name)
        size, embedding = image.shape[:2], lite.encode(image)
        features = torch.from_numpy(exported.encode(image))
        assert not torch.allclose(features, embedding.features, atol=TOLERANCE)
        prompts = [Prompt(points=[rng.uniform(0, size[::-1])]) for _ in range(50)]
        expected = lite.decode_batch(embedding, prompts, multimask_output=False)
        quantized = lite.decode_batch(
            dataclasses.replace(embedding, features=features), prompts, multimask_output=False
        )
        found += [iou(mine.best, other.best) for mine, other in zip(quantized, expected, strict=True)]
    assert len(found) == 100
    assert np.mean(found) > 0.99


def test_weights_beyond_protobuf_s_limit_lie_beside_the_graph(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 10_000)
    sam = Sam(use_fast_layers(small_vit()), "vit_b", "x")
    folder = export_onnx(sam, tmp_path / "out")
    names = ["decoder.onnx", "decoder.onnx.data", "encoder.onnx", "encoder.onnx.data", "model.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "encoder.onnx").stat().st_size < (folder / "encoder.onnx.data").stat().st_size
    image = load_image("cat")
    features = sam.encode(image).features.numpy()
    np.testing.assert_allclose(Exported(folder).encode(image), features, atol=TOLERANCE)
    export_onnx(sam, folder, overwrite=True)


def test_an_earlier_export_is_replaced_only_on_request(tmp_path):
    sam = Sam(use_fast_layers(small_vit()), "vit_b", "first")
    folder = tmp_path / "out"
    folder.mkdir()
    export_onnx(sam, folder)
    sam.weights = "second"
    with pytest.raises(FileExistsError, match=r"holds an export already: .* overwrite=True"):
        export_onnx(sam, folder)
    assert Exported(folder).about["weights_sha256"] == "first"
    export_onnx(sam, str(folder), overwrite=True)
    assert Exported(folder).about["weights_sha256"] == "second"
    assert {path.name for path in tmp_path.iterdir()} <= {"home", "out"}


def test_other_files_are_never_replaced(tmp_path, lite):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"holds other files \(.*thesis.txt.*\): choose another folder"):
        export_onnx(lite, tmp_path, overwrite=True)
    with pytest.raises(FileExistsError, match="is a file: expected the path of a folder"):
        export_onnx(lite, tmp_path / "thesis.txt", overwrite=True)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    sam = Sam(use_fast_layers(small_vit()), "vit_b", "x")

    def fail(*_, **__):
        raise onnx.checker.ValidationError("broken")

    monkeypatch.setattr(onnx.checker, "check_model", fail)
    with pytest.raises(onnx.checker.ValidationError):
        export_onnx(sam, tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if path.name != "home"]


def test_without_onnx_the_error_names_the_cure(tmp_path, lite, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    with pytest.raises(RuntimeError, match=r'needs the package onnx: pip install "sam-nb\[onnx\]"'):
        export_onnx(lite, tmp_path / "out")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "onnxruntime" else name)
    with pytest.raises(RuntimeError, match=r"needs the package onnxruntime"):
        export_onnx(lite, tmp_path / "out", int8=True)
