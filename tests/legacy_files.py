"""Checkpoints as the earlier project saved them, with random weights in its exact keys, and its model written out.

The model is plain loops over images, heads and layers, in the order of the published method, with each token taken
where its patch is.
"""

import math
import sys
import types
from collections import OrderedDict

import torch
from torch.nn import functional as F

from tests.voting import naive

DILATIONS = (1, 2, 4)


class Generator:
    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def linear(self, rows, columns):
        return torch.randn(rows, columns, generator=self.generator) * columns**-0.5

    def vector(self, length, *, around=0.0):
        return around + 0.2 * torch.randn(length, generator=self.generator)

    def tokens(self, *shape):
        return 0.5 * torch.randn(shape, generator=self.generator)


def dinov2_block(make, dim, *, new=False):
    """The 14 tensors of a DINOv2 block, or the 11 of the project's new ones: no bias of the heads, no scales."""
    block = {
        "norm1.weight": make.vector(dim, around=1.0),
        "norm1.bias": make.vector(dim),
        "attn.qkv.weight": make.linear(3 * dim, dim),
        "attn.qkv.bias": make.vector(3 * dim),
        "attn.proj.weight": make.linear(dim, dim),
        "attn.proj.bias": make.vector(dim),
        "ls1.gamma": make.vector(dim, around=1.0),
        "norm2.weight": make.vector(dim, around=1.0),
        "norm2.bias": make.vector(dim),
        "mlp.fc1.weight": make.linear(4 * dim, dim),
        "mlp.fc1.bias": make.vector(4 * dim),
        "mlp.fc2.weight": make.linear(dim, 4 * dim),
        "mlp.fc2.bias": make.vector(dim),
        "ls2.gamma": make.vector(dim, around=1.0),
    }
    return {key: tensor for key, tensor in block.items() if not (new and ("ls" in key or key == "attn.qkv.bias"))}


def vit_block(make, dim):
    """The 16 tensors of a block of the project's own ViT."""
    block = {}
    for norm in ("attention_norm", "ffn_norm"):
        block |= {f"{norm}.weight": make.vector(dim, around=1.0), f"{norm}.bias": make.vector(dim)}
    block |= {"ffn.fc1.weight": make.linear(4 * dim, dim), "ffn.fc1.bias": make.vector(4 * dim)}
    block |= {"ffn.fc2.weight": make.linear(dim, 4 * dim), "ffn.fc2.bias": make.vector(dim)}
    for part in ("query", "key", "value", "out"):
        block |= {f"attn.{part}.weight": make.linear(dim, dim), f"attn.{part}.bias": make.vector(dim)}
    return block


def stages(make, dim, num_classes, new_block):
    state = {}
    clr, key = new_block(), new_block()
    for prefix, block in (("clr_layer", clr), ("clr_encoder.clr_layer", clr), ("key_layer", key)):
        state |= {f"encoder.{prefix}.{name}": tensor for name, tensor in block.items()}
    for prefix in ("encoder.clr_encoder.clr_norm", "encoder.key_norm"):
        state |= {f"{prefix}.weight": make.vector(dim, around=1.0), f"{prefix}.bias": make.vector(dim)}
    return state | {"head.weight": 0.3 * make.linear(num_classes, dim), "head.bias": make.vector(num_classes)}


def dinov2_state(*, dim, num_classes, depth=12, seed=0):
    make = Generator(seed)
    blocks = [dinov2_block(make, dim) for _ in range(depth)]
    patches = {"proj.weight": make.linear(dim, 3 * 14 * 14).reshape(dim, 3, 14, 14), "proj.bias": make.vector(dim)}
    state = {"cls_token": make.tokens(1, 1, dim), "pos_embed": make.tokens(1, 197, dim)}
    state |= {f"embeddings.{name}": tensor for name, tensor in patches.items()}
    for i, block in enumerate(blocks[:-1]):
        state |= {f"encoder.layer.{i}.{name}": tensor for name, tensor in block.items()}
    backbone = {
        "cls_token": make.tokens(1, 1, dim),
        "pos_embed": make.tokens(1, 257, dim),
        "mask_token": make.tokens(1, dim),
        "norm.weight": make.vector(dim),
        "norm.bias": make.vector(dim),
    }
    backbone |= {f"patch_embed.{name}": tensor for name, tensor in patches.items()}
    for i, block in enumerate(blocks):
        backbone |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    state |= {f"encoder.backbone.{name}": tensor for name, tensor in backbone.items()}
    return OrderedDict(state | stages(make, dim, num_classes, lambda: dinov2_block(make, dim, new=True)))


def vit_state(*, dim, num_classes, depth=12, grid=28, seed=0):
    make = Generator(seed)
    state = {
        "embeddings.position_embeddings": make.tokens(1, 1 + grid**2, dim),
        "embeddings.cls_token": make.tokens(1, 1, dim),
        "embeddings.patch_embeddings.weight": make.linear(dim, 3 * 16 * 16).reshape(dim, 3, 16, 16),
        "embeddings.patch_embeddings.bias": make.vector(dim),
    }
    for i in range(depth - 1):
        state |= {f"encoder.layer.{i}.{name}": tensor for name, tensor in vit_block(make, dim).items()}
    return OrderedDict(state | stages(make, dim, num_classes, lambda: vit_block(make, dim)))


def save(path, state, *, settings, monkeypatch):
    """Save as that project does, settings of yacs and all; yacs is there only while the file is written."""
    kind = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    module = types.ModuleType("yacs.config")
    module.CfgNode = kind

    def as_settings(values):
        node = kind({k: as_settings(v) if isinstance(v, dict) else v for k, v in values.items()})
        node.__dict__.update(__immutable__=True, __deprecated_keys__=set(), __renamed_keys__={}, __new_allowed__=False)
        return node

    content = {
        "model": state,
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 1e-5, "params": [0]}]},
        "lr_scheduler": {"base_values": [1e-5], "t_initial": 50},
        "max_accuracy": 0.99528,
        "scaler": {"scale": 65536.0, "_growth_tracker": 7},
        "epoch": 41,
        "config": as_settings(settings),
    }
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
        patch.setitem(sys.modules, "yacs.config", module)
        torch.save(content, path)
    return path


def norm(tokens, state, name, eps):
    return F.layer_norm(tokens, tokens.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def linear(tokens, state, name):
    return F.linear(tokens, state[f"{name}.weight"], state.get(f"{name}.bias"))


def run_block(tokens, state, prefix, *, heads, eps):
    """Return a block's tokens (N, D) and its attention (H, N, N)."""
    new = {"norm1": "attention_norm", "norm2": "ffn_norm", "mlp": "ffn"} if f"{prefix}.ffn.fc1.weight" in state else {}

    def named(part):
        return f"{prefix}.{new.get(part, part)}"

    normed, dim = norm(tokens, state, named("norm1"), eps), tokens.shape[-1]
    if new:
        parts = [linear(normed, state, f"{prefix}.attn.{part}") for part in ("query", "key", "value")]
    else:
        parts = linear(normed, state, f"{prefix}.attn.qkv").split(dim, dim=-1)
    queries, keys, values = (part.reshape(len(tokens), heads, -1).transpose(0, 1) for part in parts)  # (H, N, d)
    attention = (queries @ keys.transpose(1, 2) / math.sqrt(dim // heads)).softmax(-1)
    mixed = (attention @ values).transpose(0, 1).reshape(len(tokens), dim)
    mixed = linear(mixed, state, f"{prefix}.attn.{'out' if new else 'proj'}")
    tokens = tokens + state.get(f"{prefix}.ls1.gamma", 1.0) * mixed
    hidden = F.gelu(linear(norm(tokens, state, named("norm2"), eps), state, f"{named('mlp')}.fc1"))
    return tokens + state.get(f"{prefix}.ls2.gamma", 1.0) * linear(hidden, state, f"{named('mlp')}.fc2"), attention


def embed_dinov2(image, state):
    """As DINOv2's own code does: the position grid by bicubic interpolation, a tenth of a patch added to its size."""
    patches = F.conv2d(image[None], state["embeddings.proj.weight"], state["embeddings.proj.bias"], stride=14)
    rows, columns = patches.shape[-2:]
    grid = state["pos_embed"][:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, scale_factor=((rows + 0.1) / 14, (columns + 0.1) / 14), mode="bicubic")
    cls = state["cls_token"][0] + state["pos_embed"][0, :1]
    return torch.cat([cls, (patches + grid)[0].flatten(1).T]), (rows, columns)


def embed_vit(image, state):
    weight, bias = (state[f"embeddings.patch_embeddings.{kind}"] for kind in ("weight", "bias"))
    patches = F.conv2d(image[None], weight, bias, stride=16)
    tokens = torch.cat([state["embeddings.cls_token"][0], patches[0].flatten(1).T])
    return tokens + state["embeddings.position_embeddings"][0], tuple(patches.shape[-2:])


def votes_of(attention, num_votes):
    """Return the ballot and the mean attention of the CLS row (H, N), its first token left out."""
    rows = attention[:, 0, 1:]
    return naive.ballot(rows.tolist(), num_votes), rows.mean(0).tolist()


@torch.no_grad()
def logits(image, state, *, heads, counts, num_votes, new_eps):
    """Classify one image (3, rows, columns); `counts` are the tokens that each layer forwards."""
    embed = embed_dinov2 if "embeddings.proj.weight" in state else embed_vit
    tokens, grid = embed(image, state)
    selected = []
    for layer, count in enumerate(counts):
        tokens, attention = run_block(tokens, state, f"encoder.layer.{layer}", heads=heads, eps=1e-6)
        ballot, mass = votes_of(attention, num_votes)
        scores = naive.smooth(ballot, grid, DILATIONS)
        selected += [tokens[1 + patch] for patch in naive.select(scores, mass, count)]
    cls = tokens[:1]
    refined, attention = run_block(
        torch.cat([cls, torch.stack(selected)]), state, "encoder.clr_layer", heads=heads, eps=new_eps
    )
    refined = norm(refined, state, "encoder.clr_encoder.clr_norm", 1e-6)
    ballot, mass = votes_of(attention, num_votes)
    keys = torch.stack([refined[1 + place] for place in naive.select(ballot, mass, 24)])
    final, _ = run_block(torch.cat([cls, keys]), state, "encoder.key_layer", heads=heads, eps=new_eps)
    final = norm(final, state, "encoder.key_norm", 1e-6)[0]
    complement = linear(refined[0], state, "head")
    return linear(final, state, "head") + complement.softmax(-1) * state["head.weight"].sum(1)
