"""Every family of backbones through the whole of the package: training, a bundle, and back."""

import re

import pytest
import timm
import torch
from timm.models.eva import EvaBlock
from torch import nn

from finevote.backbones.catalogue import SHORT_NAMES, build_backbone
from finevote.build import build_model, build_preprocessing
from finevote.bundle.read import load_bundle
from finevote.bundle.write import save_bundle
from finevote.run_folder import RunFolder
from finevote.training.fit import fit
from finevote.training.optim import group_parameters
from finevote.voting.head import gather_forwarded
from tests.models import FAMILIES, NARROW, tiny_config, tiny_model
from tests.training.helpers import make_photographs

each_family = pytest.mark.parametrize("family", FAMILIES)
QUICK = ("dinov3", "siglip2")
ROTARY = ("dinov3", "dinov3 H+", "eva02", "learnt rotations")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return make_photographs(tmp_path_factory.mktemp("data"), num_train=4, num_val=1)


@pytest.mark.parametrize(
    "family", [family if family in QUICK else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]
)
def test_it_trains_for_two_steps_and_its_bundle_predicts(family, photographs, tmp_path):
    config = tiny_config(**FAMILIES[family], training__batch_size=6, training__ema_decay=0.9)
    run = RunFolder(fit(config, photographs, out=tmp_path / "run"))
    bundle = load_bundle(run.bundle)
    assert bundle.model(torch.randn(2, 3, 32, 32)).logits.isfinite().all()
    assert bundle.manifest.details["weights"]["source"] == "random"


def test_what_the_licence_asks_is_said_in_training_and_kept_in_the_bundle(photographs, tmp_path, capsys):
    vit = timm.create_model(timm_name("dinov3_vits16"), img_size=32, num_classes=0, **NARROW)
    torch.save(vit.state_dict(), tmp_path / "dinov3.pth")
    changes = FAMILIES["dinov3"] | {"model__weights": str(tmp_path / "dinov3.pth"), "training__batch_size": 6}
    run = RunFolder(fit(tiny_config(**changes), photographs, out=tmp_path / "run"))
    assert "the DINOv3 licence also binds weights derived from these" in " ".join(capsys.readouterr().out.split())
    weights = load_bundle(run.bundle).manifest.details["weights"]
    assert weights["licence"] == "dinov3-license"
    assert "binds weights derived" in weights["obligations"]


@each_family
@pytest.mark.parametrize("size", [[32, 32], [24, 48]], ids=["square", "rectangle"])
def test_a_bundle_gives_back_the_model_bit_for_bit(family, size, tmp_path):
    config = tiny_config(**FAMILIES[family], data__image_size=size, data__resize=[40, 56])
    model = build_model(config, num_classes=5)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    names, preprocessing = tuple("abcde"), build_preprocessing(config.data, model.backbone)
    bundle = save_bundle(
        tmp_path / "b", model.eval(), config=config, class_names=names, preprocessing=preprocessing, details={}
    )
    images = torch.randn(2, 3, *size)
    assert torch.equal(load_bundle(bundle).model(images).logits, model(images).logits)


@each_family
@pytest.mark.parametrize("enabled", [True, False], ids=["voting", "plain"])
def test_a_bundle_gives_the_whole_backbone_as_start_weights(family, enabled, tmp_path):
    config = tiny_config(**FAMILIES[family], model__voting__enabled=enabled)
    model = build_model(config, num_classes=5)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    names, preprocessing = tuple("abcde"), build_preprocessing(config.data, model.backbone)
    bundle = save_bundle(
        tmp_path / "b", model, config=config, class_names=names, preprocessing=preprocessing, details={}
    )
    backbone = build_backbone(config.model.backbone, image_size=(32, 32), weights=str(bundle), timm_args=NARROW)
    expected = model.backbone.state_dict()
    if enabled:
        stage = model.head.refine.state_dict()
        expected |= {key.replace("layer.", "layers.2."): value for key, value in stage.items()}
    else:
        expected |= {f"norm.{key}": value for key, value in model.head.norm.state_dict().items()}
    assert backbone.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in backbone.state_dict().items())


@each_family
def test_matrices_decay_and_nothing_else_and_rates_follow_depth(family):
    model = tiny_model(**FAMILIES[family])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    matrix = re.compile(r"(qkv|[qkv]_proj|proj|fc\d(_[gx])?|patch_embed\.proj|classifier)\.weight$")
    for group in group_parameters(model, lr=1.0, new_lr=5.0, layer_decay=0.5, weight_decay=0.1):
        for name in (names[id(parameter)] for parameter in group.parameters):
            assert group.weight_decay == (0.1 if matrix.search(name) else 0.0), name
            layer = re.match(r"backbone\.layers\.(\d)", name)
            rate = 0.5 ** (1 - int(layer[1])) if layer else 0.25 if name.startswith("backbone.") else 5.0
            assert group.peak_lr == rate, name


@each_family
def test_it_trains_under_autocast(family):
    model = tiny_model(**FAMILIES[family], model__voting__merge=True).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.randn(2, 3, 32, 32))
    output.logits.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert (output.votes.ballots.sum(2) == 3 * 4).all()


@each_family
def test_without_voting_it_is_timm_s_model_with_a_linear_classifier(family):
    """For a model without CLS token the patches are timm's; the summary token has no counterpart there."""
    model = tiny_model(**FAMILIES[family], model__voting__enabled=False)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15)
    images = torch.randn(2, 3, 32, 32)
    vit = timm_s_own(family, model)
    expected = vit.forward_features(images)
    expected = vit.fc_norm(expected) if isinstance(vit.norm, nn.Identity) else expected
    if vit.cls_token is None:
        tokens = model.backbone.embed(images)
        for layer in model.backbone.layers:
            tokens = layer(tokens, num_prefix=1).tokens
        torch.testing.assert_close(model.head.norm(tokens)[:, 1:], expected, rtol=1e-5, atol=1e-5)
    else:
        logits = model.head.classifier(expected[:, 0])
        torch.testing.assert_close(model(images).logits, logits, rtol=1e-5, atol=1e-5)


def timm_s_own(family, model):
    """Return the weights of a plain classifier in the model as timm builds it by itself."""
    name = tiny_config(**FAMILIES[family]).model.backbone
    vit = timm.create_model(timm_name(name), img_size=32, num_classes=0, **NARROW).eval()
    state = model.backbone.state_dict() | {f"norm.{k}": v for k, v in model.head.norm.state_dict().items()}
    vit_state = {timm_key(key, vit): value for key, value in state.items() if "frequencies" not in key}
    if getattr(vit, "rope_mixed", False):
        vit_state["rope.freqs"] = torch.stack([layer.rotation.frequencies for layer in model.backbone.layers], dim=1)
    missing, unexpected = vit.load_state_dict(vit_state, strict=False)
    assert not unexpected
    assert all(key.startswith("attn_pool.") for key in missing)
    return vit


def timm_name(name):
    return SHORT_NAMES.get(name, name)


def timm_key(key, vit):
    key = key.replace("embedding.", "").replace("layers.", "blocks.")
    if isinstance(vit.blocks[0], EvaBlock):
        key = key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")
    return key.replace("norm.", "fc_norm.") if key.startswith("norm.") and isinstance(vit.norm, nn.Identity) else key


@pytest.mark.parametrize("family", ROTARY)
@pytest.mark.parametrize("merge", [False, True], ids=["", "merged"])
def test_selected_tokens_keep_their_patch_s_rotation_through_both_stages(family, merge):
    """Image by image with timm's own block: rows of its embedding for the selected patches, none for merged tokens."""
    model = tiny_model(**FAMILIES[family], model__voting__merge=merge, data__image_size=[24, 48])
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    images = torch.randn(3, 3, 24, 48)
    seen = {name: watch(getattr(model.head, name)) for name in ("refine", "key")}
    votes = model(images).votes
    for image in range(3):
        selected = votes.selected[image]
        keys = selected[votes.key_positions[image]]
        for name, patches in (("refine", selected), ("key", keys)):
            stage = getattr(model.head, name)
            inputs, wanted, output = (some[image] for some in seen[name])
            block, rope = timm_block(family, stage.layer, grid=model.backbone.grid)
            num_placed, num_tokens = len(patches), len(inputs)
            order = [0, *range(1 + num_placed, num_tokens), *range(1, 1 + num_placed)]  # those of no patch first
            block.attn.num_prefix_tokens = num_tokens - num_placed
            expected = torch.empty_like(inputs)
            expected[order] = stage.norm(block(inputs[None, order], rope=rope[..., patches, :]))[0]
            torch.testing.assert_close(output, expected[[0, *(1 + wanted).tolist()]], rtol=1e-4, atol=1e-5)


def watch(stage):
    """Return a list that will hold the tokens that a stage reads, which of them it writes, and what it writes."""
    seen, read, write = [], stage.read, stage.write

    def watched_read(cls, tokens, **options):
        seen.append(torch.cat([cls, tokens], dim=1))
        return read(cls, tokens, **options)

    def watched_write(reading, *, wanted, noise):
        output = write(reading, wanted=wanted, noise=noise)
        seen.extend([torch.empty(len(output), 0, dtype=torch.int64) if wanted is None else wanted, output])
        return output

    stage.read, stage.write = watched_read, watched_write
    return seen


def timm_block(family, layer, *, grid):
    """Return timm's block with a layer's weights, and timm's rotation of each patch for it."""
    name, size = timm_name(tiny_config(**FAMILIES[family]).model.backbone), (grid[0] * 8, grid[1] * 8)
    vit = timm.create_model(name, img_size=size, num_classes=0, dynamic_img_size=False, **NARROW).eval()
    if vit.rope_mixed:
        with torch.no_grad():
            vit.rope.freqs[:, -1] = layer.rotation.frequencies
    block, rope = vit.blocks[-1], vit.rope.get_embed()
    state = {timm_key(key, vit): value for key, value in layer.state_dict().items() if "frequencies" not in key}
    block.load_state_dict(state, strict=True)
    return block, rope[-1] if vit.rope_mixed else rope


def test_gathered_tokens_carry_their_patch_and_merged_ones_none():
    model = tiny_model(model__voting__merge=True)
    forwarded, tokens = [], model.backbone.embed(torch.randn(2, 3, 32, 32))
    for index, layer in enumerate(model.backbone.layers):
        tokens, rows = layer(tokens, num_prefix=1)
        vote = model.head.vote(index, rows, grid=model.backbone.grid)
        forwarded.append(model.head.forward_layer(vote, tokens[:, 1:]))
    gathered = gather_forwarded(forwarded)
    assert gathered.tokens.shape == (2, 10 + 2, 24)
    assert torch.equal(gathered.patches[:, :10], torch.cat([layer.vote.selected for layer in forwarded], 1))
    assert (gathered.patches[:, 10:] == -1).all()
