"""MobileSAM's model against MobileSAM's own code, on the same weights."""

import copy
import warnings

import numpy as np
import pytest
import torch

from sam_nb import finetune, save_weights, segment_everything
from sam_nb.model import loading
from sam_nb.model.loading import load_sam, set_precision, use_fast_layers
from sam_nb.model.sam import META_THRESHOLDS, Sam
from sam_nb.networks.tiny_vit import STRIP, AttentionBlock, ConvBlock, Mlp
from sam_nb.prompts import Prompt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # timm has moved what it imports
    import mobile_sam
    from mobile_sam.modeling import tiny_vit_sam

TOLERANCE = 1e-5  # of the largest value


def assert_equal_but_for_rounding(ours, expected):
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.fixture(scope="module")
def oracle(random_vit_t):
    """Return MobileSAM's predictor. Its attention keeps a copy of its biases, which `eval` makes anew."""
    model = mobile_sam.sam_model_registry["vit_t"]()
    model.load_state_dict(random_vit_t.state_dict())
    return mobile_sam.SamPredictor(model.eval())


@pytest.fixture(scope="module")
def sam(random_vit_t):
    return Sam(use_fast_layers(copy.deepcopy(random_vit_t)), "vit_t", "random vit_t")


def test_the_file_is_mobilesam_s(random_vit_t, oracle):
    ours, theirs = ({k: (v.shape, v.dtype) for k, v in m.state_dict().items()} for m in (random_vit_t, oracle.model))
    assert ours == theirs
    assert random_vit_t.image_encoder.img_size == oracle.model.image_encoder.img_size == 1024


@pytest.mark.parametrize("turned", [False, True])
def test_features_and_masks_equal_mobilesam_s(sam, oracle, photo, turned):
    image = np.ascontiguousarray(photo.transpose(1, 0, 2)) if turned else photo
    embedding = sam.encode(image)
    oracle.set_image(image)
    assert oracle.features.std() > 0.1
    assert_equal_but_for_rounding(embedding.features.numpy(), oracle.features.numpy())
    points, labels, box = np.array([[120, 200], [281.5, 90.25]]), np.array([1, 0]), np.array([37, 21, 251, 240])
    for prompt, several in ((Prompt(points[:1]), True), (Prompt(points, labels, box), False)):
        ours = sam.decode(embedding, prompt)
        lone = {"point_coords": points[:1], "point_labels": labels[:1]}
        full = {"point_coords": points, "point_labels": labels, "box": box}
        masks, scores, logits = oracle.predict(**(lone if several else full), multimask_output=several)
        assert_equal_but_for_rounding(ours.logits, logits)
        assert_equal_but_for_rounding(ours.scores, scores)
        assert np.mean(ours.bits == masks) > 0.9999
        assert 0.01 < masks.mean() < 0.99


@pytest.mark.parametrize("size", [(9, 20), (14, 7), (7, 7)], ids=["padded", "whole windows", "one window"])
@pytest.mark.parametrize("with_gradients", [True, False])
def test_attention_equals_mobilesam_s_on_any_size(size, with_gradients, random_vit_t):
    ours = AttentionBlock(128, 4, 7).eval()
    ours.load_state_dict(random_vit_t.image_encoder.layers[1].blocks[0].state_dict())
    theirs = tiny_vit_sam.TinyViTBlock(128, size, 4, window_size=7)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 128, *size)
    with torch.set_grad_enabled(with_gradients):
        made, expected = ours(x), theirs.eval()(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, size)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    if with_gradients:
        for output in (made, expected):
            output.square().mean().backward()
        # MobileSAM's biases have no gradient in evaluation mode.
        gradients = {name: parameter.grad for name, parameter in theirs.named_parameters() if "biases" not in name}
        for name, parameter in ours.named_parameters():
            if name in gradients:
                torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("height", [1, STRIP, STRIP + 1, 2 * STRIP + 5])
def test_strips_equal_the_whole(height, random_vit_t):
    block = ConvBlock(64).eval()
    block.load_state_dict(random_vit_t.image_encoder.layers[0].blocks[0].state_dict())
    x = torch.randn(2, 64, height, 11)
    expected = block(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected)


def test_an_mlp_in_parts_equals_the_whole(monkeypatch):
    mlp, x = Mlp(8), torch.randn(2, 3, 5, 8)
    expected = mlp(x).detach()
    monkeypatch.setattr("sam_nb.networks.tiny_vit.MAX_TOKENS", 7)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), expected)


def test_in_training_it_normalises_by_the_batch(random_vit_t):
    ours, theirs = ConvBlock(64), tiny_vit_sam.MBConv(64, 64, 4.0, torch.nn.GELU, 0.0)
    for block in (ours, theirs):
        block.load_state_dict(random_vit_t.image_encoder.layers[0].blocks[0].state_dict())
    x = torch.randn(2, 64, 9, 11)
    torch.testing.assert_close(ours.train()(x), theirs.train()(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.conv2.bn.running_var, theirs.conv2.bn.running_var)


def test_encoding_reports_its_progress(sam, photo):
    shares = []
    sam.encode(photo[:200], shares.append)
    assert shares == pytest.approx(np.arange(1, 13) / 12)


def test_in_bfloat16_features_are_near(sam, random_vit_t, photo):
    model = set_precision(use_fast_layers(copy.deepcopy(random_vit_t)), torch.bfloat16)
    rough = Sam(model, "vit_t", "random vit_t", "bfloat16").encode(photo).features
    exact = sam.encode(photo).features
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().mean() / exact.abs().mean() < 0.01
    types = {name: value.dtype for name, value in model.image_encoder.named_parameters()}
    assert types["layers.1.blocks.0.attn.qkv.weight"] == types["layers.3.blocks.1.mlp.fc2.bias"] == torch.bfloat16
    assert types["layers.1.blocks.0.attn.norm.weight"] == types["layers.0.blocks.0.conv1.c.weight"] == torch.float32


@pytest.fixture
def file(random_vit_t, tmp_path):
    torch.save(random_vit_t.state_dict(), tmp_path / "mobile.pt")
    return tmp_path / "mobile.pt"


def test_auto_keeps_float32(file, monkeypatch, capsys):
    monkeypatch.setattr(loading, "_has_bfloat16", lambda device: True)
    assert load_sam(checkpoint=file, device="cpu", precision="auto").precision == "float32"  # nothing to gain
    assert "vit_t: weights from mobile.pt, 10.1 M parameters, on cpu.\n" in capsys.readouterr().out


def test_weights_of_another_tiny_vit(random_vit_t, tmp_path):
    state = random_vit_t.state_dict()
    state["image_encoder.layers.1.blocks.0.attn.attention_biases"] = torch.zeros(8, 49)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="does not hold the weights of vit_t"):
        load_sam(checkpoint=tmp_path / "other.pt")


def test_everything_mode_takes_it(sam, photo):
    assert sam.thresholds == META_THRESHOLDS  # MobileSAM's generator has the same
    records = segment_everything(sam, photo, points_per_side=3, pred_iou_thresh=-99, stability_score_thresh=0)
    assert records
    assert records[0]["segmentation"].shape == photo.shape[:2]


def test_its_decoder_learns_and_comes_back_from_a_file(sam, photo, tmp_path):
    mask = np.zeros(photo.shape[:2], bool)
    mask[60:200, 250:400] = True
    tuned = finetune(sam, [(photo, mask)], [(photo[:200], mask[:200])], steps=1, batch_size=1, rounds=1)
    assert len(tuned.losses) == 1
    save_weights(tuned.sam, tmp_path / "tuned.safetensors")
    again = load_sam(checkpoint=tmp_path / "tuned.safetensors", device="cpu")
    assert again.name == "vit_t"
    prompt = Prompt(box=(250, 60, 400, 200))
    ours, theirs = (each.decode(each.encode(photo), prompt) for each in (again, tuned.sam))
    assert np.array_equal(ours.logits, theirs.logits)
