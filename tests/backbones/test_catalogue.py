import logging

import pytest
import timm
import torch

from finevote.backbones.catalogue import SHORT_NAMES, build_backbone, round_image_size
from finevote.errors import ArgumentError, WeightsError


@pytest.mark.parametrize("short", SHORT_NAMES)
def test_every_short_name_is_a_timm_model(short):
    assert timm.is_model(SHORT_NAMES[short])


@pytest.mark.parametrize(
    ("name", "prefix"), [("dinov2_vits14", 1), ("dinov2_vits14_reg4", 5), ("vit_b16_in21k", 1), ("compact_vit", 1)]
)
def test_named_backbones_are_built_with_their_prefix_tokens(name, prefix):
    backbone = build_backbone(name, image_size=(56, 56), timm_args={"depth": 2})
    assert backbone.num_prefix == prefix
    assert len(backbone.layers) == 2


def test_the_backbone_brings_its_own_pixel_statistics():
    assert build_backbone("vit_b16_in21k", image_size=(32, 32), timm_args={"depth": 1}).mean == (0.5, 0.5, 0.5)
    assert build_backbone("dinov2_vits14", image_size=(28, 28), timm_args={"depth": 1}).mean == (0.485, 0.456, 0.406)


def test_image_sizes_are_rounded_to_whole_patches():
    assert round_image_size((100, 450), patch_size=(14, 14)) == (98, 448)
    assert round_image_size((3, 16), patch_size=(16, 16)) == (16, 16)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ArgumentError, match="no backbone is called 'dinov2_vitb'; did you mean 'dinov2_vitb14'"):
        build_backbone("dinov2_vitb", image_size=(56, 56))


def test_an_argument_that_timm_does_not_take_is_named():
    with pytest.raises(ArgumentError, match="unexpected keyword argument 'deepth'"):
        build_backbone("vit_tiny_patch16_224", image_size=(32, 32), timm_args={"deepth": 3})


def test_published_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("Name or service not known")

    created = timm.create_model

    def create(name, *, pretrained, **settings):
        return refuse() if pretrained else created(name, pretrained=False, **settings)

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(WeightsError, match=r"could not be fetched.*model.weights=PATH"):
        build_backbone("vit_tiny_patch16_224", image_size=(32, 32), weights="auto")


def test_the_compact_vit_is_independent_of_its_batch():
    backbone = build_backbone("compact_vit", image_size=(32, 32))
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(backbone.embed(images)[:1], backbone.embed(images[:1]))


def test_a_patch_that_convolutions_cannot_reach_is_refused():
    with pytest.raises(ArgumentError, match="patch_size=12 of compact_vit must be a power of two"):
        build_backbone("compact_vit", image_size=(48, 48), timm_args={"patch_size": 12})


def test_building_prints_and_warns_nothing(caplog, capsys):
    with caplog.at_level(logging.WARNING):
        build_backbone("compact_vit", image_size=(32, 32))
    assert not caplog.records
    assert capsys.readouterr().out == ""
