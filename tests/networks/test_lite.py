"""The embedded model's own parts: prompts drawn where they are, fine features unfolded where they were."""

import numpy as np
import pytest
import timm
import torch
from segment_anything import SamPredictor

from sam_nb.networks.efficientnet import EfficientNetLite2
from sam_nb.networks.lite import IMAGE_SIZE, STRIDE, LiteEncoder, build_lite


@pytest.mark.parametrize("size", [(96, 160), (95, 33)])
def test_the_backbone_is_timms(size):
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite2", pretrained=False, features_only=True).eval()
    for name, value in theirs.state_dict().items():
        if "running" in name:
            value.uniform_(0.5, 1.5)
    ours = EfficientNetLite2().eval()
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.channels) == theirs.feature_info.channels()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        for mine, other in zip(ours(images), theirs(images), strict=True):
            assert torch.equal(mine, other)


def test_a_point_is_drawn_in_its_cell():
    encoder = build_lite().prompt_encoder
    points = torch.tensor([[[100.0, 35.0], [403.0, 500.0]], [[7.0, 8.0], [0.0, 0.0]]])
    labels = torch.tensor([[1, 0], [0, -1]])
    drawn = encoder.draw((points, labels), None, 2).numpy()
    assert drawn.shape == (2, 3, 64, 64)
    for channel, (x, y) in ((0, (100, 35)), (1, (403, 500))):
        row, column = np.unravel_index(drawn[0, channel].argmax(), (64, 64))
        assert (row, column) == (y // STRIDE, x // STRIDE)
        distance = np.hypot((column + 0.5) * STRIDE - x - 0.5, (row + 0.5) * STRIDE - y - 0.5)
        np.testing.assert_allclose(drawn[0, channel, row, column], np.exp(-0.5 * (distance / STRIDE) ** 2), rtol=1e-5)
    assert not drawn[1, 0].any()  # neither a background point nor padding is a foreground point
    assert drawn[1, 1].argmax() == 64
    assert not drawn[:, 2].any()


def test_a_box_covers_its_area():
    encoder = build_lite().prompt_encoder
    boxes = torch.tensor([[10.0, 20.0, 301.0, 83.5], [0.0, 0.0, IMAGE_SIZE, IMAGE_SIZE]])
    drawn = encoder.draw(None, boxes, 2)
    assert not drawn[:, :2].any()
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    torch.testing.assert_close(drawn[:, 2].sum((1, 2)) * STRIDE**2, area)
    rows, columns = np.nonzero(drawn[0, 2].numpy() == 1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 9, 2, 36)


def test_fine_features_come_back_in_their_places():
    torch.manual_seed(0)
    encoder = LiteEncoder().eval()
    kept = {}
    for name, convolution in (("stride 4", encoder.fine[0]), ("stride 2", encoder.fine[1])):
        convolution.register_forward_hook(lambda module, args, output, name=name: kept.update({name: output}))
    with torch.no_grad():
        _, four, two = encoder(torch.randn(1, 3, 64, 96)).split([128, 64, 64], dim=1)
    torch.testing.assert_close(torch.pixel_shuffle(four, 2), kept["stride 4"])
    torch.testing.assert_close(torch.pixel_shuffle(two, 4), kept["stride 2"])


def test_the_decoder_uses_fine_features_where_they_are():
    torch.manual_seed(0)
    model = build_lite()
    sparse, dense = model.prompt_encoder((torch.tensor([[[100.0, 35.0]]]), torch.ones(1, 1)), None, None)
    position = model.prompt_encoder.get_dense_pe()
    embedding = torch.randn(1, 256, 64, 64)
    row, column = 20, 33
    # (first channel of the block, pixels of a cell's side, feature, row and column within the cell)
    for start, side, feature, down, across in ((128, 2, 3, 1, 0), (192, 4, 2, 3, 1)):
        changed = embedding.clone()
        changed[0, start + feature * side**2 + down * side + across, row, column] += 5
        with torch.no_grad():
            before, after = (
                model.mask_decoder.predict_masks(tensor, position, sparse, dense)[0] for tensor in (embedding, changed)
            )
        _, _, rows, columns = torch.nonzero(before != after, as_tuple=True)
        pixels = 4 // side  # of the logits for one of these features
        assert set(rows.tolist()) == {4 * row + down * pixels + offset for offset in range(pixels)}
        assert set(columns.tolist()) == {4 * column + across * pixels + offset for offset in range(pixels)}


def test_several_prompts_of_one_image_decode_as_one_by_one():
    torch.manual_seed(0)
    model = build_lite()
    for parameter in model.mask_decoder.spread.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    embedding = torch.randn(1, 256, 64, 64)
    points = torch.tensor([[[100.0, 35.0]], [[403.0, 500.0]], [[250.0, 260.0]]])
    labels = torch.ones(3, 1)

    def decode(rows):
        sparse, dense = model.prompt_encoder((points[rows], labels[rows]), None, None)
        return model.mask_decoder(embedding, model.prompt_encoder.get_dense_pe(), sparse, dense, True)

    with torch.no_grad():
        together = decode(slice(None))
        alone = [decode(slice(row, row + 1)) for row in range(3)]
    for part in (0, 1):
        torch.testing.assert_close(together[part], torch.cat([one[part] for one in alone]), atol=1e-4, rtol=1e-4)
    assert together[0].shape == (3, 3, 256, 256)


def test_points_in_float64_give_the_same_masks(lite):
    """As `SamAutomaticMaskGenerator` gives them."""
    predictor = SamPredictor(lite.model)
    predictor.set_image(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8))
    points = torch.tensor([[[140.5, 33.25]], [[311.0, 200.0]]], dtype=torch.float64)
    labels = torch.ones(2, 1, dtype=torch.int64)
    expected = predictor.predict_torch(points.float(), labels, return_logits=True)[0]
    found = predictor.predict_torch(points, labels, return_logits=True)[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
