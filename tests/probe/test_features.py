import json
from dataclasses import replace

import pytest
import torch

from finevote.backbones.catalogue import create_vit
from finevote.build import build_eval_loader, build_frozen_backbone, build_model
from finevote.data.registry import open_source
from finevote.errors import WeightsError
from finevote.evaluation.predict import predict
from finevote.probe.features import Extractor, FeatureSpace, FrozenBackbone, describe_space, hash_tensors
from tests.models import FAMILIES, NARROW, tiny_config
from tests.probe.helpers import write_weights
from tests.training.helpers import make_photographs


@pytest.fixture
def source(tmp_path):
    return open_source(make_photographs(tmp_path / "data", num_train=4), splits=("train", "val"))


def test_the_tokens_are_those_of_timm_s_own_model():
    vit = create_vit("vit_tiny_patch16_224", image_size=(32, 32), timm_args=NARROW).eval()
    frozen = FrozenBackbone(build_frozen_backbone(tiny_config())).eval()
    with torch.no_grad():
        frozen.backbone.load_state_dict(_renamed(vit.state_dict(), frozen.backbone.state_dict()))
        images = torch.randn(2, 3, 32, 32)
        tokens = vit.forward_features(images)  # (B, N, D), after the final norm
        found = frozen(images)
    torch.testing.assert_close(found[:, 0], tokens[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[:, 1], tokens[:, 1:].mean(1), atol=1e-5, rtol=1e-5)


def _renamed(state, wanted):
    """Return timm's tensors under our names: all of the embedding's, then those of blocks, then the norm's."""
    renamed = {}
    for name in wanted:
        theirs = name.removeprefix("embedding.").replace("layers.", "blocks.")
        renamed[name] = state[theirs]
    return renamed


@pytest.mark.parametrize("family", FAMILIES)
def test_cls_is_what_the_plain_head_classifies(family, source):
    changes = {**FAMILIES[family], "model__voting__enabled": False, "loss__triplet_weight": 0.0}
    config = tiny_config(**changes)
    model, records = build_model(config, num_classes=3), source.splits["val"]
    extractor = Extractor(config)
    loader = build_eval_loader(
        records, read=source.read, preprocessing=extractor.space.preprocessing, batch_size=4, num_workers=0
    )
    expected = predict(model, loader, records=records, device="cpu").embeddings
    found = extractor.features(source, records)
    assert found.cls == pytest.approx(expected, abs=1e-4)
    assert found.patch_mean.shape == found.cls.shape


def test_a_second_time_the_features_are_there_and_a_damaged_one_is_made_again(source):
    records = source.splits["train"]
    first = Extractor(tiny_config()).features(source, records)
    extractor = Extractor(tiny_config())
    second = extractor.features(source, records)
    entry = next(extractor.cache.folder.rglob("*.npz"))
    entry.write_bytes(entry.read_bytes()[:50])
    third = Extractor(tiny_config()).features(source, records)
    assert [features.num_cached for features in (first, second, third)] == [0, 12, 11]
    for features in (second, third):
        assert features.cls == pytest.approx(first.cls, abs=1e-6)
        assert features.patch_mean == pytest.approx(first.patch_mean, abs=1e-6)


def test_the_order_of_images_and_what_is_kept_of_them_do_not_matter(source):
    records = source.splits["train"]
    Extractor(tiny_config()).features(source, records[3:7])
    backwards = Extractor(tiny_config()).features(source, records[::-1])
    assert backwards.num_cached == 4
    (alone,) = Extractor(tiny_config()).features(source, records[:1]).cls
    assert backwards.cls[-1] == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"data__resize": 40},
        {"data__image_size": 40, "data__resize": 40},
        {"data__decoding": "exact"},
        {"training__seed": 1},
        {"model__backbone_args": {**NARROW, "num_heads": 4}},
    ],
)
def test_all_that_features_depend_on_names_another_space(changes):
    config = tiny_config(**changes)
    space = describe_space(config, build_frozen_backbone(config))
    assert space.key != describe_space(tiny_config(), build_frozen_backbone(tiny_config())).key


def test_a_short_name_and_timm_s_own_name_the_same_space():
    space = describe_space(tiny_config(), build_frozen_backbone(tiny_config()))
    short, long = (replace(space, backbone=name) for name in ("dinov2_vits14", "vit_small_patch14_dinov2"))
    assert short.key == long.key


def test_a_space_comes_back_from_json():
    space = describe_space(tiny_config(), build_frozen_backbone(tiny_config()))
    assert FeatureSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_tensors_are_told_apart_by_name_kind_shape_and_value():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(4)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(4)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(4)},
        {"c": torch.zeros(2, 3), "b": torch.ones(4)},
        {"a": torch.zeros(2, 3), "b": torch.tensor([1.0, 1.0, 1.0, 1.5])},
    ]
    assert hash_tensors(dict(reversed(base.items()))) == hash_tensors(base)
    assert len({hash_tensors(tensors) for tensors in (base, *others)}) == 5


def test_kept_features_need_no_weights_and_others_need_the_same(source, tmp_path):
    path = write_weights(tmp_path / "vit.safetensors")
    config = tiny_config(model__weights=str(path))
    extractor = Extractor(config)
    first = extractor.features(source, source.splits["train"])
    path.unlink()
    again = Extractor(config, space=extractor.space)
    assert again.features(source, source.splits["train"]).cls == pytest.approx(first.cls)
    with pytest.raises(WeightsError, match="no weight file at"):
        again.features(source, source.splits["val"])
    torch.manual_seed(7)
    write_weights(path)
    with pytest.raises(WeightsError, match="not those that the probe was fitted with: bring these back"):
        again.features(source, source.splits["val"])
