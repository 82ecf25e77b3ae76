import os
import pickle

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from finevote.backbones.catalogue import build_backbone
from finevote.build import build_model, build_preprocessing
from finevote.bundle.write import save_bundle
from finevote.errors import WeightsError
from tests.backbones import published
from tests.models import tiny_config

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}
PATCH14 = "vit_small_patch14_dinov2.lvd142m"


def build(weights, *, name=PATCH14, size=56, **changes):
    return build_backbone(name, image_size=(size, size), weights=str(weights), timm_args=TINY | changes)


def official_dinov2(*, grid=4, registers=0, seed=0):
    """Random weights under the official names, as the published .pth files hold them."""
    generator = torch.Generator().manual_seed(seed)

    def make(*shape):
        return torch.randn(*shape, generator=generator)

    dim = TINY["embed_dim"]
    state = {
        "cls_token": make(1, 1, dim),
        "pos_embed": make(1, 1 + grid**2, dim),
        "mask_token": make(1, dim),
        "patch_embed.proj.weight": make(dim, 3, 14, 14),
        "patch_embed.proj.bias": make(dim),
        "norm.weight": make(dim),
        "norm.bias": make(dim),
    }
    if registers:
        state["register_tokens"] = make(1, registers, dim)
    for i in range(TINY["depth"]):
        shapes = {
            "norm1": (dim,),
            "norm2": (dim,),
            "attn.qkv": (3 * dim, dim),
            "attn.proj": (dim, dim),
            "mlp.fc1": (4 * dim, dim),
            "mlp.fc2": (dim, 4 * dim),
        }
        for name, shape in shapes.items():
            state[f"blocks.{i}.{name}.weight"] = make(*shape)
            state[f"blocks.{i}.{name}.bias"] = make(shape[0])
        state |= {f"blocks.{i}.ls{j}.gamma": make(dim) for j in (1, 2)}
    return state


@pytest.mark.parametrize("registers", [0, 4])
def test_an_official_dinov2_file_is_loaded_whole(tmp_path, registers):
    state = official_dinov2(registers=registers)
    torch.save(state, tmp_path / "dinov2.pth")
    name = PATCH14 if not registers else "vit_small_patch14_reg4_dinov2.lvd142m"
    backbone = build(tmp_path / "dinov2.pth", name=name)
    assert torch.equal(backbone.layers[1].attn.qkv.weight, state["blocks.1.attn.qkv.weight"])
    assert torch.equal(backbone.layers[0].ls2.gamma, state["blocks.0.ls2.gamma"])
    if registers:  # registers take no position: timm folds that of CLS into it
        assert torch.equal(backbone.embedding.reg_token, state["register_tokens"])
        expected = state["cls_token"] + state["pos_embed"][:, :1]
        assert torch.equal(backbone.embedding.cls_token, expected)
    else:
        assert torch.equal(backbone.embedding.pos_embed, state["pos_embed"])


def test_positions_are_resampled_from_the_file_s_grid_to_a_rectangle(tmp_path):
    torch.save(official_dinov2(grid=6), tmp_path / "dinov2.pth")
    backbone = build_backbone(PATCH14, image_size=(42, 70), weights=str(tmp_path / "dinov2.pth"), timm_args=TINY)
    assert backbone.embedding.pos_embed.shape == (1, 1 + 3 * 5, 32)


def test_a_safetensors_file_in_timm_s_layout_is_loaded(tmp_path):
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=64, **TINY)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    backbone = build(tmp_path / "vit.safetensors", name="vit_tiny_patch16_224", size=64)
    assert torch.equal(backbone.layers[0].mlp.fc1.weight, vit.blocks[0].mlp.fc1.weight)


def google_npz(*, drop=None):
    dim, heads = TINY["embed_dim"], TINY["num_heads"]
    generator = np.random.default_rng(0)

    def make(*shape):
        return generator.standard_normal(shape, dtype=np.float32)

    arrays = {
        "cls": make(1, 1, dim),
        "embedding/kernel": make(16, 16, 3, dim),
        "embedding/bias": make(dim),
        "Transformer/posembed_input/pos_embedding": make(1, 17, dim),
        "Transformer/encoder_norm/scale": make(dim),
        "Transformer/encoder_norm/bias": make(dim),
    }
    for i in range(TINY["depth"]):
        block = f"Transformer/encoderblock_{i}"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            arrays |= {f"{block}/{norm}/{kind}": make(dim) for kind in ("scale", "bias")}
        arrays |= {f"{block}/MlpBlock_3/Dense_0/kernel": make(dim, 4 * dim)}
        arrays |= {f"{block}/MlpBlock_3/Dense_0/bias": make(4 * dim)}
        arrays |= {f"{block}/MlpBlock_3/Dense_1/kernel": make(4 * dim, dim)}
        arrays |= {f"{block}/MlpBlock_3/Dense_1/bias": make(dim)}
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            arrays |= {f"{attention}/{part}/kernel": make(dim, heads, dim // heads)}
            arrays |= {f"{attention}/{part}/bias": make(heads, dim // heads)}
        arrays |= {f"{attention}/out/kernel": make(heads, dim // heads, dim), f"{attention}/out/bias": make(dim)}
    return {key: value for key, value in arrays.items() if key != drop}


def test_a_google_npz_file_is_loaded(tmp_path):
    arrays = google_npz()
    np.savez(tmp_path / "vit.npz", **arrays)
    backbone = build(tmp_path / "vit.npz", name="vit_b16_in21k", size=64)
    expected = torch.from_numpy(arrays["Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel"].T)
    assert torch.equal(backbone.layers[1].mlp.fc1.weight, expected)


def test_a_google_npz_file_without_a_key_is_refused(tmp_path):
    missing = "Transformer/encoderblock_1/LayerNorm_2/scale"
    np.savez(tmp_path / "vit.npz", **google_npz(drop=missing))
    with pytest.raises(WeightsError, match=r"Google's layout of ViT, .*1 missing keys: blocks\.1\.norm2\.weight"):
        build(tmp_path / "vit.npz", name="vit_b16_in21k", size=64)


def test_missing_and_left_over_keys_are_listed(tmp_path):
    state = official_dinov2()
    state["blocks.1.norm3.bias"] = state.pop("blocks.1.norm2.bias")
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(
        WeightsError, match=r"1 missing keys: blocks\.1\.norm2\.bias; 1 unmatched keys: blocks\.1\.norm3\.bias"
    ):
        build(tmp_path / "other.pth")


def test_weights_of_another_width_are_refused(tmp_path):
    torch.save(official_dinov2(), tmp_path / "small.pth")
    seems = (
        r"looks like DINOv2 ViT/14 \(2 blocks of width 32, .*\), the backbone is DINOv2 ViT/14 \(2 blocks of width 64"
    )
    with pytest.raises(WeightsError, match=rf"{seems}.*keys of another shape: blocks\.0"):
        build(tmp_path / "small.pth", embed_dim=64)


def test_a_file_with_registers_is_told_from_a_backbone_without(tmp_path):
    torch.save(official_dinov2(registers=4), tmp_path / "weights.pth")
    with pytest.raises(
        WeightsError,
        match=r"in the official DINOv2 layout, does not fit the backbone vit_small.*: "
        r"this looks like DINOv2 ViT/14 \(2 blocks of width 32, MLP of 128, 4 registers\), "
        r"the backbone is DINOv2 ViT/14 \(2 blocks of width 32, MLP of 128\)",
    ):
        build(tmp_path / "weights.pth")


def test_a_file_is_told_by_content_whatever_it_is_called(tmp_path):
    state, arrays = official_dinov2(), google_npz()
    save_file(state, tmp_path / "a.npz")
    torch.save(state, tmp_path / "b.safetensors")
    torch.save({"state_dict": state}, tmp_path / "c", _use_new_zipfile_serialization=False)
    with (tmp_path / "d.pth").open("wb") as file:
        np.savez(file, **arrays)
    for name in "a.npz", "b.safetensors", "c":
        assert torch.equal(build(tmp_path / name).layers[0].ls1.gamma, state["blocks.0.ls1.gamma"])
    backbone = build(tmp_path / "d.pth", name="vit_b16_in21k", size=64)
    assert torch.equal(backbone.norm.bias, torch.from_numpy(arrays["Transformer/encoder_norm/bias"]))


def test_a_prefix_before_every_key_and_a_classifier_do_not_matter(tmp_path):
    state = official_dinov2()
    prefixed = {f"module.backbone.{key}": tensor for key, tensor in state.items()}
    torch.save({"teacher": prefixed | {"module.backbone.head.weight": torch.zeros(3, 32)}}, tmp_path / "weights.pth")
    backbone = build(tmp_path / "weights.pth")
    assert torch.equal(backbone.layers[1].mlp.fc2.bias, state["blocks.1.mlp.fc2.bias"])


def test_tensors_of_something_else_are_in_no_known_layout(tmp_path):
    save_file({"conv1.weight": torch.zeros(3), "layer1.0.bn1.bias": torch.zeros(3)}, tmp_path / "resnet.safetensors")
    with pytest.raises(WeightsError, match=r"in no layout that is known, it has conv1\.weight, layer1\.0\.bn1\.bias"):
        build(tmp_path / "resnet.safetensors")


@pytest.mark.parametrize("enabled", [True, False], ids=["voting", "plain"])
def test_a_bundle_gives_its_trunk_last_block_and_norm_as_start_weights(tmp_path, enabled):
    config = tiny_config(model__voting__enabled=enabled)
    model = build_model(config, num_classes=5).eval()
    preprocessing = build_preprocessing(config.data, model.backbone)
    bundle = save_bundle(
        tmp_path / "bundle", model, config=config, class_names="abcde", preprocessing=preprocessing, details={}
    )
    args = config.model.backbone_args
    backbone = build_backbone("vit_tiny_patch16_224", image_size=(32, 32), weights=str(bundle), timm_args=args)
    last = model.head.refine.layer if enabled else model.backbone.layers[2]
    norm = model.head.refine.norm if enabled else model.head.norm
    assert torch.equal(backbone.layers[0].attn.qkv.weight, model.backbone.layers[0].attn.qkv.weight)
    assert torch.equal(backbone.layers[2].attn.qkv.weight, last.attn.qkv.weight)
    assert torch.equal(backbone.norm.weight, norm.weight)
    assert torch.equal(backbone.embedding.pos_embed, model.backbone.embedding.pos_embed)


def test_a_file_that_would_run_code_is_refused_and_nothing_runs(tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "bad.pth").write_bytes(pickle.dumps(Malicious()))
    torch.save({"model": Malicious()}, tmp_path / "bad_zip.pth")
    for name in ("bad.pth", "bad_zip.pth"):
        with pytest.raises(WeightsError, match="could run code"):
            build(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_text_file_is_no_weight_file(tmp_path):
    (tmp_path / "notes.txt").write_text("my notes on the weights")
    with pytest.raises(WeightsError, match=r"notes\.txt is not a weight file"):
        build(tmp_path / "notes.txt")


def test_a_folder_is_no_weight_file(tmp_path):
    with pytest.raises(WeightsError, match=r"is a folder without model\.safetensors or pytorch_model\.bin"):
        build(tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_a_file_cut_in_half_is_refused(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    state = official_dinov2()
    if suffix == ".pth":
        torch.save(state, path)
    elif suffix == ".npz":
        np.savez(path, **google_npz())
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsError, match=r"cannot be read|could run code"):
        build(path)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(WeightsError, match=r"no weight file at .*nowhere.pth"):
        build(tmp_path / "nowhere.pth")


def test_biases_that_the_backbone_has_no_place_for_are_named_not_dropped(tmp_path):
    model = published.dinov3(dim=48, depth=1, heads=2, width=64, biased=True)
    torch.save(published.official_dinov3(model), tmp_path / "dinov3.pth")
    args = {"embed_dim": 48, "depth": 1, "num_heads": 2, "mlp_ratio": 64 / 48}
    with pytest.raises(WeightsError, match=r"2 unmatched keys: blocks\.0\.attn\.q_bias, blocks\.0\.attn\.v_bias"):
        build_backbone("dinov3_vits16", image_size=(64, 64), weights=str(tmp_path / "dinov3.pth"), timm_args=args)


@pytest.mark.parametrize("enabled", [True, False], ids=["voting", "plain"])
def test_a_bundle_of_rotary_positions_gives_start_weights_too(tmp_path, enabled):
    args = {"embed_dim": 48, "depth": 3, "num_heads": 2}
    changes = {"model__backbone": "dinov3_vits16", "model__backbone_args": args, "model__voting__enabled": enabled}
    config = tiny_config(data__image_size=64, data__resize=64, **changes)
    model = build_model(config, num_classes=5).eval()
    preprocessing = build_preprocessing(config.data, model.backbone)
    bundle = save_bundle(
        tmp_path / "bundle", model, config=config, class_names="abcde", preprocessing=preprocessing, details={}
    )
    backbone = build_backbone("dinov3_vits16", image_size=(64, 64), weights=str(bundle), timm_args=args)
    last = model.head.refine.layer if enabled else model.backbone.layers[2]
    assert torch.equal(backbone.layers[2].ls1.gamma, last.ls1.gamma)
    assert torch.equal(backbone.embedding.reg_token, model.backbone.embedding.reg_token)


def test_positions_of_a_bundle_s_rectangle_are_resampled_from_that_rectangle(tmp_path):
    """A plane over the 4 x 9 patches, which are as many as 6 x 6, stays a plane over 8 x 18."""
    config = tiny_config(data__image_size=[32, 72], data__resize=[36, 76])
    model = build_model(config, num_classes=5).eval()
    with torch.no_grad():
        rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(9.0), indexing="ij")
        model.backbone.embedding.pos_embed[0, 1:, 0] = (10 * rows + columns).flatten()
    preprocessing = build_preprocessing(config.data, model.backbone)
    bundle = save_bundle(
        tmp_path / "bundle", model, config=config, class_names="abcde", preprocessing=preprocessing, details={}
    )
    args = config.model.backbone_args
    same, larger = (
        build_backbone("vit_tiny_patch16_224", image_size=size, weights=str(bundle), timm_args=args)
        for size in ((32, 72), (64, 144))
    )
    assert torch.equal(same.embedding.pos_embed, model.backbone.embedding.pos_embed)
    plane = larger.embedding.pos_embed[0, 1:, 0].reshape(8, 18)
    steps = plane[3:-3, 3:-3].diff(dim=1), plane[3:-3, 3:-3].diff(dim=0)
    assert (steps[0].mean() - 0.5).abs() < 0.05
    assert (steps[1].mean() - 5.0).abs() < 0.5
