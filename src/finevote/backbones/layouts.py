"""The ways in which weight files name a vision transformer's tensors: each told by its keys, and put into timm's names.

A layout is data: an anchor key whose place gives what stands before the model's keys, marks that tell it from the
others, substitutions, and what to leave out. To add one, add it to `LAYOUTS`. Nothing here looks at a file's name or at
the backbone that is wanted; whether they fit each other is for `weights.py` to say.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from finevote.backbones import layout_steps as steps

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How one project names the tensors.

    Args:
        title: for people, as in "laid out as ...".
        anchor: the end of a key that such a file always has; what stands before it is the prefix of the model.
        marks: patterns, each of which matches a whole key of such a file, below the prefix.
        renames: pattern and replacement, each applied in turn to every key below the prefix.
        left_out: patterns of whole keys that are no part of the backbone, read below the prefix and with it.
        finish: puts the renamed tensors into timm's shapes.
    """

    title: str
    anchor: str
    marks: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()
    finish: Callable[[Tensors], Tensors] = dict

    def prefix_in(self, keys: Iterable[str]) -> str | None:
        """Return what stands before the model's keys in a file of this layout; None for a file of another."""
        keys = list(keys)
        for anchor in sorted((key for key in keys if key.endswith(self.anchor)), key=len):
            prefix = anchor.removesuffix(self.anchor)
            below = [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
            if (not prefix or prefix[-1] in "./") and all(_any_matches(mark, below) for mark in self.marks):
                return prefix
        return None

    def to_timm(self, tensors: Mapping[str, Tensor], *, prefix: str = "") -> Tensors:
        """Return the tensors under timm's names and in timm's shapes; a key that is not known keeps its name."""
        return self.finish(self.rename(tensors, prefix=prefix))

    def rename(self, tensors: Mapping[str, Tensor], *, prefix: str = "") -> Tensors:
        """Return the tensors in their own shapes, under the names that `finish` starts from."""
        renamed = {}
        for key, tensor in tensors.items():
            name = key.removeprefix(prefix)
            if not any(_any_matches(pattern, (name, key)) for pattern in self.left_out):
                renamed[self._rename(name) if key.startswith(prefix) else key] = tensor
        return renamed

    def _rename(self, name: str) -> str:
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


def recognise(keys: Iterable[str]) -> tuple[Layout, str] | None:
    """Return the layout of a file with these keys, and the prefix of the model in it; None if it is not known."""
    keys = list(keys)
    for layout in LAYOUTS:
        if (prefix := layout.prefix_in(keys)) is not None:
            return layout, prefix
    return None


def _any_matches(pattern: str, names: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, name) for name in names)


# transformers 4 and the files on the hub say attention.attention.query, transformers 5 says attention.q_proj
_TRANSFORMERS = (
    (r"^(?:encoder\.layer|encoder\.layers|model\.layer|layers|layer)\.(?=\d)", "blocks."),
    (r"\.attention\.attention\.(q|k|v)(?:uery|ey|alue)\.", r".attn.\1."),
    (r"\.(?:attention|self_attn)\.(q|k|v)_proj\.", r".attn.\1."),
    (r"\.(?:attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.", ".attn.proj."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"^embeddings\.(cls_token|mask_token)$", r"\1"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.position_embeddings?(?:\.weight)?$", "pos_embed"),
    (r"^embeddings\.patch_embeddings?\.(?:projection\.)?", "patch_embed.proj."),
    (r"^(?:layernorm|post_layernorm)\.", "norm."),
    (r"^pre_layrnorm\.", "norm_pre."),  # as it is spelt there
)
_FLAX = (
    (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"^Transformer/posembed_input/pos_embedding$", "pos_embed"),
    (r"^Transformer/encoder_norm/", "norm."),
    (r"^embedding/", "patch_embed.proj."),
    (r"^cls$", "cls_token"),
    (r"\.LayerNorm_0/", ".norm1."),
    (r"\.LayerNorm_2/", ".norm2."),
    (r"\.MlpBlock_3/Dense_0/", ".mlp.fc1."),
    (r"\.MlpBlock_3/Dense_1/", ".mlp.fc2."),
    (r"\.MultiHeadDotProductAttention_1/(q|k|v)(?:uery|ey|alue)/", r".attn.\1."),
    (r"\.MultiHeadDotProductAttention_1/out/", ".attn.proj."),
    (r"\.(?:kernel|scale)$", ".weight"),
)
_EARLIER = (
    (r"^encoder\.layer\.", "blocks."),
    (r"^encoder\.clr_layer\.", "refine.layer."),
    (r"^encoder\.clr_encoder\.clr_norm\.", "refine.norm."),
    (r"^encoder\.key_layer\.", "key.layer."),
    (r"^encoder\.key_norm\.", "key.norm."),
)
_EARLIER_LEFT_OUT = (r"encoder\.backbone\..*", r"encoder\.clr_encoder\.clr_layer\..*")  # duplicates

BUNDLE = Layout(
    title="a finevote bundle",
    anchor="head.classifier.weight",
    marks=(r"backbone\.embedding\..*", r"backbone\.layers\.0\..*"),
    renames=((r"^backbone\.embedding\.", ""), (r"^backbone\.layers\.", "blocks."), (r"^(?:backbone|head)\.", "")),
    left_out=(r"head\.(?:classifier|budget|smoothing)\..*",),
    finish=steps.read_bundle,
)
EARLIER_DINOV2 = Layout(
    title="a checkpoint of the earlier project (DINOv2)",
    anchor="embeddings.proj.weight",
    marks=(r"encoder\.layer\.0\.attn\.qkv\.weight", r"encoder\.clr_layer\.attn\.qkv\.weight"),
    renames=((r"^embeddings\.", "patch_embed."), *_EARLIER),
    left_out=(*_EARLIER_LEFT_OUT, r"head\..*"),
    finish=steps.complete_last_block,
)
EARLIER_VIT = Layout(
    title="a checkpoint of the earlier project (ViT)",
    anchor="embeddings.patch_embeddings.weight",
    marks=(r"encoder\.layer\.0\.attn\.query\.weight", r"encoder\.clr_layer\.attn\.query\.weight"),
    renames=(
        (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"\.attention_norm\.", ".norm1."),
        (r"\.ffn_norm\.", ".norm2."),
        (r"\.ffn\.", ".mlp."),
        (r"\.attn\.(q|k|v)(?:uery|ey|alue)\.", r".attn.\1."),
        (r"\.attn\.out\.", ".attn.proj."),
        *_EARLIER,
    ),
    left_out=(*_EARLIER_LEFT_OUT, r"head\..*"),
    finish=steps.complete_last_block,
)
LAYOUTS = (
    BUNDLE,
    EARLIER_DINOV2,
    EARLIER_VIT,
    Layout(
        title="the official DINOv3 layout",
        anchor="storage_tokens",
        marks=(r"patch_embed\.proj\.weight", r"blocks\.0\.ls1\.gamma"),
        renames=(
            (r"^storage_tokens$", "reg_token"),
            (r"\.ls(\d)\.gamma$", r".gamma_\1"),
            (r"\.mlp\.w1\.", ".mlp.fc1_g."),
            (r"\.mlp\.w2\.", ".mlp.fc1_x."),
            (r"\.mlp\.w3\.", ".mlp.fc2."),
        ),
        left_out=(r"mask_token", r"rope_embed\.periods", r"local_cls_norm\..*"),
        finish=lambda tensors: steps.split_biases(steps.mask_biases(tensors)),
    ),
    Layout(
        title="the official DINOv2 layout",
        anchor="mask_token",
        marks=(r"pos_embed", r"patch_embed\.proj\.weight", r"blocks\.0\.ls1\.gamma"),
        renames=((r"^register_tokens$", "reg_token"), (r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2.")),
        left_out=(r"mask_token",),
        finish=steps.fold_registers,
    ),
    Layout(
        title="transformers' DINOv2 layout",
        anchor="embeddings.position_embeddings",
        marks=(r"layernorm\.weight", r"encoder\.layer\.0\.layer_scale1\.lambda1"),
        renames=(
            *_TRANSFORMERS,
            (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
            (r"\.mlp\.weights_in\.", ".mlp.fc1."),
            (r"\.mlp\.(?:weights_out|down_proj)\.", ".mlp.fc2."),
        ),
        left_out=(r"embeddings\.mask_token", r"classifier\..*"),
        finish=lambda tensors: steps.fold_registers(steps.join_gates(steps.join_heads(tensors))),
    ),
    Layout(
        title="transformers' DINOv3 layout",
        anchor="embeddings.register_tokens",
        marks=(r"norm\.weight", r"(?:model\.)?layer\.0\.layer_scale1\.lambda1"),
        renames=(
            *_TRANSFORMERS,
            (r"\.layer_scale(\d)\.lambda1$", r".gamma_\1"),
            (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
            (r"\.mlp\.up_proj\.", ".mlp.fc1."),
            (r"\.mlp\.down_proj\.", ".mlp.fc2."),
        ),
        left_out=(r"embeddings\.mask_token", r"classifier\..*"),
        finish=lambda tensors: steps.split_biases(steps.pair_gates(steps.join_heads(tensors))),
    ),
    Layout(
        title="transformers' ViT layout",
        anchor="embeddings.position_embeddings",
        marks=(r"layernorm\.weight", r"(?:encoder\.layer|layers)\.0\.layernorm_before\.weight"),
        renames=(
            *_TRANSFORMERS,
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
        ),
        left_out=(r"embeddings\.mask_token", r"classifier\..*", r"pooler\..*"),
        finish=steps.join_heads,
    ),
    Layout(
        title="transformers' CLIP layout",
        anchor="embeddings.class_embedding",
        marks=(r"pre_layrnorm\.weight", r"encoder\.layers\.0\.self_attn\.q_proj\.weight"),
        renames=_TRANSFORMERS,
        left_out=(
            r"embeddings\.position_ids",
            r"(?:text_model|classifier)\..*",
            r"(?:visual|text)_projection\.weight",
            r"logit_scale",
        ),
        finish=lambda tensors: steps.add_batch_dimension(steps.join_heads(tensors)),
    ),
    Layout(
        title="transformers' SigLIP layout",
        anchor="embeddings.patch_embedding.bias",
        marks=(r"head\.probe", r"encoder\.layers\.0\.self_attn\.q_proj\.weight"),
        renames=(
            *_TRANSFORMERS,
            (r"^head\.probe$", "attn_pool.latent"),
            (r"^head\.layernorm\.", "attn_pool.norm."),
            (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
            (r"^head\.(?:attention\.)?", "attn_pool."),
        ),
        left_out=(r"embeddings\.position_ids", r"(?:text_model|classifier)\..*", r"logit_(?:scale|bias)"),
        finish=lambda tensors: steps.split_pooling(steps.add_batch_dimension(steps.join_heads(tensors))),
    ),
    Layout(
        title="Google's layout of ViT",
        anchor="Transformer/posembed_input/pos_embedding",
        marks=(r"cls", r"embedding/kernel"),
        renames=_FLAX,
        left_out=(r"(?:head|pre_logits)/.*",),
        finish=lambda tensors: steps.join_heads(steps.turn_kernels(tensors)),
    ),
    Layout(title="OpenCLIP's layout", anchor="visual.class_embedding"),
    Layout(title="OpenCLIP's layout of a timm model", anchor="visual.trunk.patch_embed.proj.weight"),
    Layout(title="timm's own layout", anchor="blocks.0.norm1.weight"),
)  # the last three are left to timm's own reading
