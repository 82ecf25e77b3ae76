"""No tensor grows with the square of the number of tokens: memory is linear in it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from finevote.build import build_model
from finevote.noise import Noise
from finevote.training.micro_batch import saved_bytes
from tests.models import FAMILIES, tiny_config
from tests.test_model import VARIANTS

SIZE = 152  # px: 19 x 19 patches of 8 px, more than any width of the tiny models
NUM_PATCHES = 361


class SquareTensors(TorchDispatchMode):
    """Collects the shape of every tensor made within it that has two sides of `side` or more."""

    def __init__(self, side):
        super().__init__()
        self.side = side
        self.found = []
        self.num_seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.num_seen += len(tensors)
        self.found += [(func, leaf.shape) for leaf in tensors if sum(n >= self.side for n in leaf.shape) > 1]
        return result


def build(**changes):
    changes = {"data__image_size": SIZE, "data__resize": SIZE} | changes
    return build_model(tiny_config(**changes), num_classes=5)


def run_step(model, dtype):
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32), SquareTensors(NUM_PATCHES) as squares:
        output = model(images, Noise(1, 0, 2))
        if model.training:
            output.logits.float().logsumexp(-1).sum().backward()
    assert squares.num_seen > 100
    return squares.found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("mode", ["evaluation", "training"])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if "rectangle" not in name])
def test_no_square_of_the_tokens_is_ever_made(variant, mode, dtype):
    model = build(**VARIANTS[variant]).train(mode == "training")
    assert run_step(model, dtype) == []


def test_a_block_keeps_18_numbers_a_token_and_channel_for_backward_and_the_last_of_the_trunk_4():
    """docs/performance.md; beside them each head keeps a number a token, each norm two."""
    backbone = build(**FAMILIES["dinov2 with registers"]).train().backbone
    tokens = torch.randn(1, backbone.num_prefix + backbone.num_patches, backbone.dim, requires_grad=True)
    unit = 4 * tokens.numel()  # bytes of float32

    def write_last():
        reading = backbone.layers[-1].read(tokens, num_prefix=backbone.num_prefix, every_query=False)
        return backbone.layers[-1].write(reading, wanted=torch.tensor([[0]]), noise=Noise(0, 0, 1))

    whole = saved_bytes(backbone, lambda: backbone.layers[0](tokens, num_prefix=backbone.num_prefix))
    assert 18 <= whole / unit < 18 + (backbone.num_heads + 5) / backbone.dim
    assert 4 <= saved_bytes(backbone, write_last) / unit < 4.3


def test_the_search_finds_an_attention_map():
    model = build(**FAMILIES["dinov3"])
    layer = model.backbone.layers[0]

    def attend(reading, *, wanted=None, noise=None):
        del wanted, noise
        heads = reading.spend()
        return reading.tokens + (heads.queries @ heads.keys.mT).mean()

    layer.write = attend
    found = run_step(model.eval(), torch.float32)
    assert {shape[-2:] for _, shape in found} == {(NUM_PATCHES + 5, NUM_PATCHES + 5)}
