import pytest
import torch
from safetensors.torch import save_file

from finevote.backbones.catalogue import create_vit
from finevote.backbones.identify import anatomy_of, identify, names_of
from finevote.backbones.published import PUBLISHED
from finevote.errors import WeightsError
from tests.backbones import published

SMALL = {"dim": 384, "depth": 12, "heads": 6}


def test_a_file_is_told_to_be_of_the_backbone_that_it_fits(tmp_path):
    model = published.dinov2(**SMALL, registers=4, grid=4)
    torch.save(published.official_dinov2(model), tmp_path / "weights")
    found = identify(tmp_path / "weights")
    assert found.layout == "the official DINOv2 layout"
    assert found.names == ("dinov2_vits14_reg4",)
    assert str(found.anatomy) == "DINOv2 ViT-S/14 (12 blocks of width 384, MLP of 1536, 4 registers)"


def test_a_size_without_a_name_has_none(tmp_path):
    model = published.dinov2(dim=48, depth=1, heads=2, grid=4)
    model.save_pretrained(tmp_path)
    assert identify(tmp_path).names == ()


def test_other_tensors_are_refused(tmp_path):
    save_file({"fc.weight": torch.zeros(3)}, tmp_path / "fc.safetensors")
    with pytest.raises(WeightsError, match="in no layout of a vision transformer that is known"):
        identify(tmp_path / "fc.safetensors")


@pytest.mark.parametrize(
    ("name", "also"),
    [("dinov3_vits16plus", ()), ("eva02_vits14", ()), ("vit_b16_in21k", ("vit_b16_augreg_in21k",))],
)
def test_backbones_of_one_anatomy_are_named_together(name, also):
    vit = create_vit(PUBLISHED[name].timm_name, image_size=None, timm_args={}, device="meta")
    assert names_of(anatomy_of(vit.state_dict())) == (name, *also)
