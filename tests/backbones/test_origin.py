import json

import pytest

from finevote.backbones.origin import weights_origin
from finevote.backbones.published import PUBLISHED, WeightsOrigin, obligations_of

BINDING = "binds weights derived from these"


def test_random_weights_have_no_licence():
    assert weights_origin("dinov3_vitb16", "none") == WeightsOrigin(
        "vit_base_patch16_dinov3.lvd1689m", "random", "", ""
    )


@pytest.mark.parametrize("weights", ["auto", "hf-hub:timm/vit_base_patch16_dinov3.lvd1689m", "~/dinov3.pth"])
def test_dinov3_s_obligations_come_with_its_weights_wherever_they_are_from(weights):
    origin = weights_origin("dinov3_vitb16", weights)
    assert origin.licence == "dinov3-license"
    assert BINDING in origin.obligations


def test_permissive_weights_ask_for_nothing():
    origin = weights_origin("dinov2_vits14", "auto")
    assert origin == WeightsOrigin(
        "vit_small_patch14_dinov2.lvd142m", "timm/vit_small_patch14_dinov2.lvd142m", "apache-2.0", ""
    )


def test_the_licence_is_that_of_the_weights_that_are_named_not_of_the_model_s_first():
    assert weights_origin("vit_base_patch16_224", "auto").licence == "apache-2.0"
    noncommercial = weights_origin("vit_base_patch16_224", "hf-hub:timm/vit_base_patch16_224.mae")
    assert noncommercial.licence == "cc-by-nc-4.0"
    assert "no commercial use" in noncommercial.obligations


@pytest.mark.parametrize(("name", "weights"), [("dinov2_vits14", "hf-hub:someone/vit"), ("compact_vit", "own.pth")])
def test_a_licence_that_is_not_known_is_not_invented(name, weights):
    origin = weights_origin(name, weights)
    assert origin.licence == ""
    assert origin.obligations.startswith(f"no licence is known for {weights.removeprefix('hf-hub:')}: ask")


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_a_bundle_hands_on_where_its_own_weights_came_from(tmp_path, file):
    stated = {
        "backbone": "vit_small_patch16_dinov3",
        "source": "timm/x",
        "licence": "dinov3-license",
        "obligations": "!",
    }
    (tmp_path / "bundle.json").write_text(json.dumps({"details": {"weights": stated}}))
    assert weights_origin("dinov3_vits16", str(tmp_path / file)) == WeightsOrigin(**stated)


def test_a_silent_bundle_is_taken_for_the_backbone_s_weights(tmp_path):
    (tmp_path / "bundle.json").write_text(json.dumps({"details": {"data": "birds"}}))
    assert weights_origin("dinov3_vits16", str(tmp_path)).licence == "dinov3-license"


def test_every_licence_of_the_list_is_permissive_or_says_what_it_asks():
    licences = {info.licence for info in PUBLISHED.values()}
    assert {licence for licence in licences if not obligations_of(licence)} == {"apache-2.0", "mit"}
