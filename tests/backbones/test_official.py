"""Weights over real HTTP from a local server, into a cache that torch.hub looks into too."""

import hashlib
import io

import pytest
import torch

from finevote.backbones import official
from finevote.backbones.catalogue import build_backbone
from finevote.backbones.origin import weights_origin
from finevote.backbones.published import PUBLISHED
from finevote.errors import WeightsError
from finevote.remote import download
from finevote.remote.download import RemoteFile
from tests.backbones import published
from tests.data.file_server import serve_files

TIMM_NAME = "vit_small_patch14_dinov2.lvd142m"
NAME = "dinov2_vits14_pretrain.pth"
ARGS = {"embed_dim": 48, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def content():
    """The bytes of an official file."""
    buffer = io.BytesIO()
    torch.save(published.official_dinov2(published.dinov2(dim=48, depth=2, heads=2, grid=4)), buffer)
    return buffer.getvalue()


@pytest.fixture
def server(content, monkeypatch):
    """A server of that file, which stands for Meta's."""
    monkeypatch.setattr(download, "_WAITS_S", (0.0,))
    with serve_files() as served:
        served.files[NAME] = content
        remote = RemoteFile(NAME, (served.url(NAME),), len(content), sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(official, "OFFICIAL", {TIMM_NAME: remote})
        yield served


def build(weights):
    return build_backbone("dinov2_vits14", image_size=(56, 56), weights=weights, timm_args=ARGS)


def cached(*folders):
    return official._cache().joinpath(*folders)


def test_the_official_file_is_fetched_once_into_the_cache_of_torch_hub(server, content):
    backbone = build("official")
    build("official")
    assert len(server.requests) == 1
    assert cached(NAME).read_bytes() == content
    state = torch.hub.load_state_dict_from_url(server.url(NAME), weights_only=True)  # torch's own finds it there
    assert len(server.requests) == 1
    assert torch.equal(backbone.norm.weight, state["norm.weight"])


def test_what_torch_hub_has_fetched_is_used(server):
    torch.hub.load_state_dict_from_url(server.url(NAME), weights_only=True, progress=False)
    build("official")
    assert len(server.requests) == 1


def test_a_connection_that_is_cut_is_taken_up_again(server, content):
    server.cut_after.append(len(content) // 2)
    build("official")
    assert server.ranges == [None, f"bytes={len(content) // 2}-"]
    assert cached(NAME).read_bytes() == content


def test_another_content_is_refused_and_not_kept(server, content):
    server.files[NAME] = content[:-1] + b"x"
    with pytest.raises(WeightsError, match=r"(?s)cannot download dinov2_vits14.*its sha256 is .*model\.weights=PATH"):
        build("official")
    assert not cached(NAME).exists()


@pytest.mark.usefixtures("server")
def test_a_file_in_the_cache_that_was_changed_is_refused(content):
    build("official")
    cached(NAME).write_bytes(content[:-1] + b"x")
    with pytest.raises(WeightsError, match="is not the published file: its sha256 is"):
        build("official")


def test_without_a_connection_it_says_which_file_to_put_where(monkeypatch):
    monkeypatch.setattr(download, "_WAITS_S", ())
    remote = RemoteFile(NAME, ("http://127.0.0.1:9/dinov2_vits14_pretrain.pth",))
    monkeypatch.setattr(official, "OFFICIAL", {TIMM_NAME: remote})
    with pytest.raises(WeightsError, match=r"(?s)Connection refused.*by hand as .*checkpoints/dinov2_vits"):
        build("official")


def test_an_address_is_fetched_once_and_its_hash_is_checked(server, content):
    address = f"{server.url(NAME)}?download=1"
    server.files[f"{NAME}?download=1"] = content
    right = f"{address}#sha256={hashlib.sha256(content).hexdigest()}"
    assert torch.equal(build(address).norm.bias, build(right).norm.bias)
    assert len(server.requests) == 1
    with pytest.raises(WeightsError, match="is not the published file: its sha256 is"):
        build(f"{address}#sha256={'0' * 64}")


def test_files_of_one_name_at_two_addresses_are_kept_apart(server, content):
    for folder in ("a", "b"):
        server.files[f"{folder}/model.pth"] = content
        build(server.url(f"{folder}/model.pth"))
    assert len(list(cached().glob("*/model.pth"))) == 2


def test_the_address_of_an_official_file_means_that_file(server):
    build(server.url(NAME))
    assert cached(NAME).exists()


def test_a_file_address_is_read(tmp_path, content):
    (tmp_path / "my weights.pth").write_bytes(content)
    build((tmp_path / "my weights.pth").as_uri())


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("https://example.org/a.pth#md5=0", "only #sha256=DIGITS is understood"),
        ("https://example.org/", "names no file"),
    ],
)
def test_an_address_that_says_too_little_or_too_much_is_refused(weights, reason):
    with pytest.raises(WeightsError, match=reason):
        build(weights)


def test_a_backbone_without_an_official_file_names_those_with_one():
    with pytest.raises(WeightsError, match=r"no official file is known for vit_tiny.*vit_small_patch14_dinov2\."):
        build_backbone("vit_tiny_patch16_224", image_size=(32, 32), weights="official")


def test_every_official_file_is_of_a_backbone_with_a_short_name():
    assert set(official.OFFICIAL) <= {info.timm_name for info in PUBLISHED.values()}


def test_the_origin_of_official_weights_is_their_address():
    origin = weights_origin("dinov2_vits14", "official")
    assert origin.source == f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/{NAME}"
    assert origin.licence == "apache-2.0"
    assert weights_origin("dinov2_vits14", "https://example.org/a.pth#sha256=00").source == "https://example.org/a.pth"
