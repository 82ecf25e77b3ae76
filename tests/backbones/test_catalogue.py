import logging

import pytest
import timm
import torch

from finevote.backbones import weights
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
