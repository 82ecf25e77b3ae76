import logging
from collections import Counter

import pytest
import timm
import torch

from finevote.backbones import weights
from finevote.backbones.catalogue import SHORT_NAMES, build_backbone, create_vit, round_image_size
from finevote.backbones.published import PUBLISHED
from finevote.backbones.timm_vit import TimmVit
from finevote.errors import ArgumentError, WeightsError


@pytest.mark.parametrize("info", PUBLISHED.values(), ids=lambda info: info.name)
def test_a_short_name_is_what_the_table_says(info):
    """Built whole, on the meta device, so that nothing is allocated; the rest is what timm states of these weights."""
    backbone = TimmVit(create_vit(info.timm_name, image_size=None, timm_args={}, device="meta"))
    stated = timm.get_pretrained_cfg(info.timm_name)
    assert info.num_parameters == sum(parameter.numel() for parameter in backbone.parameters())
    assert backbone.image_size == stated.input_size[1:] == (info.native_px, info.native_px)
    assert backbone.grid == (info.native_px // info.patch_px,) * 2
    assert (backbone.mean, backbone.std) == (stated.mean, stated.std)
    assert info.licence == stated.license
    assert info.hub_id == stated.hf_hub_id
    assert stated.tag in info.timm_name


def test_each_family_of_the_issue_has_its_sizes():
    families = {"dinov2": 8, "dinov3": 5, "vit": 4, "clip": 4, "siglip2": 10, "eva02": 3}
    assert Counter(name.partition("_")[0] for name in SHORT_NAMES) == families


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("dinov2_vits14", 1),
        ("dinov2_vits14_reg4", 5),
        ("dinov3_vits16", 5),
        ("vit_b16_in21k", 1),
        ("siglip2_vitb16_224", 1),
        ("eva02_vits14", 1),
        ("deit_tiny_distilled_patch16_224", 2),
        ("compact_vit", 1),
    ],
)
def test_named_backbones_are_built_with_their_prefix_tokens(name, prefix):
    backbone = build_backbone(name, image_size=(56, 56), timm_args={"depth": 2})
    assert backbone.num_prefix == prefix
    assert len(backbone.layers) == 2


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("vit_b16_in21k", (0.5, 0.5, 0.5)),
        ("dinov2_vits14", (0.485, 0.456, 0.406)),
        ("clip_vitb16", (0.48145466, 0.4578275, 0.40821073)),
        ("vit_large_patch16_dinov3.lvd1689m", (0.485, 0.456, 0.406)),
        ("vit_large_patch16_dinov3.sat493m", (0.43, 0.411, 0.296)),
    ],
)
def test_the_pixel_statistics_are_those_of_the_weights_that_are_named(name, mean):
    assert (
        build_backbone(name, image_size=(32, 32), timm_args={"depth": 1, "embed_dim": 48, "num_heads": 3}).mean == mean
    )


@pytest.mark.parametrize("name", ["clip_vitb16", "clip_vitl14"])
def test_clip_has_the_activation_that_openai_trained_with(name):
    backbone = build_backbone(name, image_size=(32, 32), timm_args={"depth": 1, "embed_dim": 48, "num_heads": 3})
    assert type(backbone.layers[0].mlp.act).__name__ == "QuickGELU"


def test_image_sizes_are_rounded_to_whole_patches():
    assert round_image_size((100, 450), patch_size=(14, 14)) == (98, 448)
    assert round_image_size((3, 16), patch_size=(16, 16)) == (16, 16)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ArgumentError, match="no backbone is called 'dinov2_vitb'; did you mean 'dinov2_vitb14'"):
        build_backbone("dinov2_vitb", image_size=(56, 56))


def test_a_name_like_no_other_is_told_the_short_ones_and_not_all_of_timm_s():
    with pytest.raises(ArgumentError, match=r"allowed: .*dinov2_vitb14, .*or the name of a ViT of timm") as caught:
        build_backbone("qqqq", image_size=(56, 56))
    assert "vit_base_patch16_224" not in str(caught.value)


def test_an_argument_that_timm_does_not_take_is_named():
    with pytest.raises(ArgumentError, match="unexpected keyword argument 'deepth'"):
        build_backbone("vit_tiny_patch16_224", image_size=(32, 32), timm_args={"deepth": 3})


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [({"patch_size": 0}, "division"), ({"embed_dim": -6, "num_heads": 3}, "negative"), ({"num_heads": 0}, "")],
)
def test_what_timm_cannot_build_is_an_error_of_the_arguments(arguments, reason):
    with pytest.raises(ArgumentError, match=rf"timm cannot build vit_tiny_patch16_224 with .*{reason}"):
        build_backbone("vit_tiny_patch16_224", image_size=(32, 32), timm_args=arguments)


def published(monkeypatch, state):
    """Let the hub hold `state`, a state_dict or an error; return the ids that it was asked for."""
    asked = []

    def fetch(hub_id, **_options):
        asked.append(hub_id)
        if isinstance(state, Exception):
            raise state
        return dict(state)

    monkeypatch.setattr(weights, "load_state_dict_from_hf", fetch)
    return asked


SMALL = {"depth": 2, "embed_dim": 24, "num_heads": 3}


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("auto", "timm/vit_small_patch14_dinov2.lvd142m"),
        ("hf-hub:someone/vit", "someone/vit"),
    ],
)
def test_published_weights_are_loaded_whole(monkeypatch, name, hub_id):
    vit = timm.create_model("vit_small_patch14_dinov2.lvd142m", img_size=56, num_classes=7, **SMALL)
    asked = published(monkeypatch, vit.state_dict())
    backbone = build_backbone("dinov2_vits14", image_size=(56, 56), weights=name, timm_args=SMALL)
    assert asked == [hub_id]
    assert torch.equal(backbone.layers[1].mlp.fc2.weight, vit.blocks[1].mlp.fc2.weight)


@pytest.mark.parametrize(("depth", "reason"), [(1, "missing keys: blocks.1"), (3, "unmatched keys: blocks.2")])
def test_published_weights_of_another_depth_are_refused(monkeypatch, depth, reason):
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, **(SMALL | {"depth": depth}))
    published(monkeypatch, vit.state_dict())
    with pytest.raises(WeightsError, match=reason):
        build_backbone("vit_tiny_patch16_224", image_size=(32, 32), weights="auto", timm_args=SMALL)


def test_published_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    published(monkeypatch, OSError("Name or service not known"))
    with pytest.raises(WeightsError, match=r"could not be fetched \(OSError: Name or .*model.weights=PATH"):
        build_backbone("vit_tiny_patch16_224", image_size=(32, 32), weights="auto", timm_args=SMALL)


def test_a_fetch_is_announced_and_the_hub_s_own_log_is_kept_quiet(monkeypatch, caplog):
    def fetch(_hub_id, **_options):
        logging.getLogger("huggingface_hub.utils").warning("Retrying in 8s")
        raise OSError("Cannot send a request. Check it.\nMore of it")

    monkeypatch.setattr(weights, "load_state_dict_from_hf", fetch)
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(WeightsError, match=r"\(OSError: Cannot send a request\): go onl"),
    ):
        build_backbone("dinov2_vits14", image_size=(56, 56), weights="auto", timm_args=SMALL)
    assert caplog.messages == ["fetching the weights timm/vit_small_patch14_dinov2.lvd142m"]


def test_a_model_without_published_weights_says_so():
    with pytest.raises(WeightsError, match="no weights are published for compact_vit"):
        build_backbone("compact_vit", image_size=(32, 32), weights="auto")


def test_building_prints_and_warns_nothing(caplog, capsys):
    with caplog.at_level(logging.WARNING):
        build_backbone("compact_vit", image_size=(32, 32))
    assert not caplog.records
    assert capsys.readouterr().out == ""
