import json

import pytest
import torch

from finevote.backbones.catalogue import build_backbone
from finevote.bundle.read import load_bundle
from finevote.errors import ArgumentError, ConfigError, WeightsError
from finevote.legacy import import_checkpoint
from tests import legacy_files

CLASSES = 7
WHOLE = {"dim": 128, "depth": 12}  # two heads
SMALL = {"dim": 64, "depth": 3}  # one head
FORMS = {"dinov2": legacy_files.dinov2_state, "vit": legacy_files.vit_state}
NUM_KEYS = {"dinov2": 372, "vit": 234}
PATCH_PX = {"dinov2": 14, "vit": 16}
NEW_EPS = {"dinov2": 1e-5, "vit": 1e-6}  # of the norms in the blocks that the project made anew
NAMES = tuple("abcdefg")


def settings(size=224, **parameters):
    return {
        "data": {"dataset": "flowers", "img_size": size, "resize": 600},
        "model": {"name": "DINOv2", "dropout": 0.1},
        "parameters": {"vote_perhead": 24, "total_num": 126, "cam": True, "fix": True, **parameters},
    }


def make_state(form, *, sizes=SMALL, size=224):
    grid = {"grid": size // 16} if form == "vit" else {}  # the other form keeps 14 x 14 positions at every size
    return FORMS[form](num_classes=CLASSES, **sizes, **grid)


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def state(form):
    return make_state(form)


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Return a function that saves a state as the earlier project does."""

    def save_state(state, **options):
        options = {"settings": settings()} | options
        return legacy_files.save(tmp_path / "checkpoint.bin", state, monkeypatch=monkeypatch, **options)

    return save_state


def test_a_file_has_as_many_keys_as_the_project_s_own(form):
    assert len(make_state(form, sizes=WHOLE)) == NUM_KEYS[form]


@pytest.mark.parametrize("size", [224, pytest.param(448, marks=pytest.mark.slow)])
def test_the_bundle_gives_the_logits_of_the_project_s_model(form, size, save, tmp_path):
    state = make_state(form, sizes=WHOLE, size=size)
    imported = import_checkpoint(save(state, settings=settings(size)), tmp_path / "bundle", class_names=NAMES)
    bundle = load_bundle(imported.folder)
    image = torch.randn(3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = bundle.model(image[None])
    expected = legacy_files.logits(
        image, state, heads=2, counts=bundle.model.budget, num_votes=24, new_eps=NEW_EPS[form]
    )
    assert expected.std() > 0.1
    assert (output.logits[0] - expected).abs().max() < 1e-5


def test_the_bundle_has_the_project_s_pixels_and_uniform_rates(form, state, save, tmp_path):
    imported = import_checkpoint(save(state), tmp_path / "bundle", class_names=NAMES)
    bundle = load_bundle(imported.folder)
    assert bundle.class_names == NAMES
    assert bundle.preprocessing.image_size == (224, 224)
    assert bundle.preprocessing.resize == (600, 600)
    assert bundle.preprocessing.mean == (0.485, 0.456, 0.406)
    assert bundle.model.budget == (63, 63)
    details = bundle.manifest.details
    assert details["imported_from"]["epoch"] == 41
    assert (details["weights"]["source"], details["weights"]["licence"]) == ("checkpoint.bin", "apache-2.0")
    assert f"({'DINOv2' if form == 'dinov2' else 'ViT'})" in imported.summary


def test_what_the_file_does_not_say_is_said(state, save, tmp_path):
    imported = import_checkpoint(save(state, settings={}), tmp_path / "bundle")
    told = "\n".join(imported.notes)
    for unknown in (
        "rates of dynamic selection",
        "its settings are not in the file",
        "class names are not in the file",
    ):
        assert unknown in told
    bundle = load_bundle(imported.folder)
    assert bundle.class_names[:2] == ("class 0", "class 1")
    assert json.loads((imported.folder / "bundle.json").read_text())["details"]["notes"] == list(imported.notes)


@pytest.mark.slow
def test_a_size_that_has_a_name_is_called_by_it(save, tmp_path):
    state = legacy_files.dinov2_state(dim=384, num_classes=2)
    imported = import_checkpoint(save(state), tmp_path / "bundle")
    assert "dinov2_vits14, 2 classes, 224 x 224 px" in imported.summary
    assert load_bundle(imported.folder).config.model.backbone_args == {}


def test_the_file_s_own_voting_settings_are_kept_and_overrides_win(state, save, tmp_path):
    path = save(state, settings=settings(vote_perhead=12, total_num=99, merge_inattentive=True))
    imported = import_checkpoint(path, tmp_path / "bundle", overrides=["model.voting.dilations=[1]"])
    voting = load_bundle(imported.folder).config.model.voting
    assert (voting.num_votes_per_head, voting.num_selected, voting.merge, voting.dilations) == (12, 99, True, (1,))


def test_an_override_that_is_not_valid_is_blamed(state, save, tmp_path):
    with pytest.raises(ConfigError, match=r"--set model\.voting\.dilation=1: unknown setting"):
        import_checkpoint(save(state), tmp_path / "bundle", overrides=["model.voting.dilation=1"])


def test_stages_that_stand_in_the_trunk_s_list_too_are_taken_once(save, tmp_path):
    state = make_state("vit")
    expected = import_checkpoint(save(state), tmp_path / "expected").folder
    for number, stage in ((2, "clr_layer"), (3, "key_layer")):
        prefix = f"encoder.{stage}."
        state |= {
            f"encoder.layer.{number}.{k.removeprefix(prefix)}": v for k, v in state.items() if k.startswith(prefix)
        }
    bundle = load_bundle(import_checkpoint(save(state), tmp_path / "bundle").folder)
    for name, tensor in load_bundle(expected).model.state_dict().items():
        assert torch.equal(bundle.model.state_dict()[name], tensor), name


def test_a_learnt_smoothing_which_has_no_place_here_is_refused(state, save, tmp_path):
    state["encoder.patch_select.convs.0.weight"] = torch.zeros(1, 1, 3, 3)
    with pytest.raises(WeightsError, match=r"do not fit a bundle, 1 in all: .*patch_select\.convs\.0\.weight"):
        import_checkpoint(save(state), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_missing_tensor_is_named(form, state, save, tmp_path):
    norm = "norm1" if form == "dinov2" else "attention_norm"
    del state[f"encoder.layer.1.{norm}.bias"]
    with pytest.raises(WeightsError, match=r"1 in all: backbone\.layers\.1\.norm1\.bias \(missing\)"):
        import_checkpoint(save(state), tmp_path / "bundle")


def test_too_few_class_names_are_refused(state, save, tmp_path):
    with pytest.raises(ArgumentError, match="2 class names were given, the checkpoint has 7 classes"):
        import_checkpoint(save(state), tmp_path / "bundle", class_names=["a", "b"])


def test_weights_of_a_backbone_are_no_checkpoint(tmp_path):
    torch.save({"blocks.0.norm1.weight": torch.zeros(3)}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="not a checkpoint of the earlier project, it is in timm's own layout"):
        import_checkpoint(tmp_path / "weights.pth", tmp_path / "bundle")


def test_a_checkpoint_gives_its_blocks_as_start_weights(form, state, save):
    name = {"dinov2": "dinov2_vitb14", "vit": "vit_b16_in21k"}[form]
    args = {"embed_dim": 64, "depth": 3, "num_heads": 1}
    backbone = build_backbone(name, image_size=(224, 224), weights=str(save(state)), timm_args=args)
    last = backbone.layers[2]
    block = "encoder.clr_layer."
    if form == "dinov2":
        assert torch.equal(last.attn.qkv.weight, state[block + "attn.qkv.weight"])
        assert not last.attn.qkv.bias.any()
        assert torch.equal(last.ls1.gamma, torch.ones(64))
    else:
        parts = [state[f"{block}attn.{part}.weight"] for part in ("query", "key", "value")]
        assert torch.equal(last.attn.qkv.weight, torch.cat(parts))
    assert torch.equal(backbone.norm.weight, state["encoder.clr_encoder.clr_norm.weight"])
