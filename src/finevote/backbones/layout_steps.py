"""Pure steps from another project's shapes to timm's, on tensors that already have timm's names, or nearly.

`attn.q`, `attn.k` and `attn.v` stand for projections that are still apart, `refine` and `key` for the stages of a
voting head.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def count_blocks(keys: Iterable[str]) -> int:
    """Return how many blocks have a key among timm's names."""
    return len({match[1] for key in keys if (match := re.match(r"blocks\.(\d+)\.", key))})


def join_heads(tensors: Tensors) -> Tensors:
    """Stack `attn.q`, `attn.k` and `attn.v` of each block, or stage, as `attn.qkv`; a bias that is absent is zero."""
    joined = {key: tensor for key, tensor in tensors.items() if not re.search(r"\.attn\.[qkv]\.\w+$", key)}
    for key in tensors:
        if match := re.fullmatch(r"(.*\.attn\.)q\.(weight|bias)", key):
            parts = [tensors.get(f"{match[1]}{part}.{match[2]}") for part in "qkv"]
            joined[f"{match[1]}qkv.{match[2]}"] = torch.cat(
                [torch.zeros_like(tensors[key]) if part is None else part for part in parts]
            )
    return joined


def join_gates(tensors: Tensors) -> Tensors:
    """Stack `mlp.gate_proj` and `mlp.up_proj` of each block as `mlp.fc1`, the gate first."""
    joined = {key: tensor for key, tensor in tensors.items() if not re.search(r"\.mlp\.(gate|up)_proj\.", key)}
    for key, gate in tensors.items():
        if ".mlp.gate_proj." in key:
            up = tensors[key.replace(".gate_proj.", ".up_proj.")]
            joined[key.replace(".gate_proj.", ".fc1.")] = torch.cat([gate, up])
    return joined


def pair_gates(tensors: Tensors) -> Tensors:
    """Call `mlp.fc1` of a block that has a gate `mlp.fc1_x`, its partner."""
    return {
        key.replace(".mlp.fc1.", ".mlp.fc1_x.") if key.replace(".fc1.", ".fc1_g.") in tensors else key: tensor
        for key, tensor in tensors.items()
    }


def mask_biases(tensors: Tensors) -> Tensors:
    """Multiply each bias by the mask beside it, as DINOv3's own code does before it adds it."""
    return {
        key: tensor * tensors[f"{key}_mask"] if f"{key}_mask" in tensors else tensor
        for key, tensor in tensors.items()
        if not key.endswith(".bias_mask")
    }


def split_biases(tensors: Tensors) -> Tensors:
    """Give queries and values each a bias of its own; the keys' own is masked and never used."""
    split: Tensors = {}
    for key, tensor in tensors.items():
        if key.endswith("attn.qkv.bias"):
            query, _, value = tensor.chunk(3)
            split |= {key.replace("qkv.bias", "q_bias"): query, key.replace("qkv.bias", "v_bias"): value}
        else:
            split[key] = tensor
    return split


def fold_registers(tensors: Tensors) -> Tensors:
    """Where there are registers, add the position of CLS to CLS; patches alone keep positions, as timm has it."""
    if "reg_token" not in tensors or "pos_embed" not in tensors:
        return tensors
    positions = tensors["pos_embed"]  # (1, 1 + P, D)
    return tensors | {"cls_token": tensors["cls_token"] + positions[:, :1], "pos_embed": positions[:, 1:]}


def turn_kernels(tensors: Tensors) -> Tensors:
    """Turn flax's kernels, which count inputs first and keep heads apart, into torch's weights."""
    turned = {}
    for key, tensor in tensors.items():
        if key == "patch_embed.proj.weight":
            turned[key] = tensor.permute(3, 2, 0, 1).contiguous()  # (D, 3, rows, columns)
        elif re.search(r"\.attn\.[qkv]\.", key):
            turned[key] = (
                tensor.flatten() if tensor.ndim == 2 else tensor.flatten(1).T.contiguous()
            )  # (H, d); (D, H, d)
        elif re.search(r"\.(attn\.proj|mlp\.fc\d)\.weight$", key):
            turned[key] = tensor.flatten(0, -2).T.contiguous()  # from (H, d, D) or (inputs, outputs)
        else:
            turned[key] = tensor
    return turned


def add_batch_dimension(tensors: Tensors) -> Tensors:
    """Shape CLS, where there is one, and the positions as timm has them, (1, tokens, D)."""
    dim = tensors["pos_embed"].shape[-1]
    return tensors | {key: tensors[key].reshape(1, -1, dim) for key in ("cls_token", "pos_embed") if key in tensors}


def split_pooling(tensors: Tensors) -> Tensors:
    """Split the joint projection of a pooling head into timm's query, and key with value."""
    split = dict(tensors)
    for kind in ("weight", "bias"):
        joint = split.pop(f"attn_pool.in_proj_{kind}")
        query, *key_value = joint.chunk(3)
        split |= {f"attn_pool.q.{kind}": query, f"attn_pool.kv.{kind}": torch.cat(key_value)}
    return split


def take_last_block(tensors: Tensors) -> Tensors:
    """Take the last block and the norm from the refinement stage, or from the key stage where there is no other."""
    whole = {key: tensor for key, tensor in tensors.items() if not key.startswith(("refine.", "key."))}
    stage = "refine." if any(key.startswith("refine.") for key in tensors) else "key."
    last = f"blocks.{count_blocks(whole)}."
    for key, tensor in tensors.items():
        if key.startswith(stage):
            whole[re.sub(r"^layer\.", last, key.removeprefix(stage))] = tensor
    return whole


def read_bundle(tensors: Tensors) -> Tensors:
    """Read a bundle as a whole backbone: its last block, and rotations that are learnt, all blocks' in one tensor."""
    whole = take_last_block(tensors)
    learnt = [f"blocks.{block}.rotation.frequencies" for block in range(count_blocks(whole))]
    if not all(key in whole for key in learnt):
        return whole
    frequencies = torch.stack([whole.pop(key) for key in learnt], dim=1)  # (2, L, H, d / 2)
    return whole | {"rope.freqs": frequencies}


def complete_last_block(tensors: Tensors) -> Tensors:
    """Read a checkpoint of the earlier project as a whole backbone."""
    return take_last_block(complete_stages(tensors))


def complete_stages(tensors: Tensors) -> Tensors:
    """Bring the stages of the earlier project to what a block is here, without a change of what they compute.

    Its new blocks have no bias of the heads, which is a bias of zero, and no scales, which are scales of one. Where it
    made them out of the trunk's list of blocks they stand there a second time, and are left out.
    """
    whole = join_heads(tensors)
    for stage in ("key.layer.", "refine.layer."):
        last = f"blocks.{count_blocks(whole) - 1}."
        in_trunk = {key: key.replace(last, stage, 1) for key in whole if key.startswith(last)}
        if all(name in whole and torch.equal(whole[key], whole[name]) for key, name in in_trunk.items()):
            whole = {key: tensor for key, tensor in whole.items() if key not in in_trunk}
        if (norm := whole.get(stage + "norm1.weight")) is not None:
            absent = {"attn.qkv.bias": norm.new_zeros(3 * len(norm))}
            if "blocks.0.ls1.gamma" in whole:
                absent |= {"ls1.gamma": torch.ones_like(norm), "ls2.gamma": torch.ones_like(norm)}
            whole = {stage + name: tensor for name, tensor in absent.items()} | whole
    return whole
