"""Files in the published layouts, with random weights taken from transformers' models: the way round that finevote
reads them is not used here."""

import numpy as np
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

EAGER = {"attn_implementation": "eager"}  # the attention written out, so that its map can be compared


def randomise(model, *, seed=0):
    """Give every tensor values that matter: norms and scales around one, the rest of the size that training leaves."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if "lambda1" in name or ("norm" in name and name.endswith("weight")):
                tensor.copy_(1 + 0.2 * noise)
            elif tensor.ndim > 1 and "embeddings" not in name:
                tensor.copy_(noise * tensor.shape[-1] ** -0.5)
            else:
                tensor.copy_(0.5 * noise)
    return model.eval()


def dinov2(*, dim, depth, heads, registers=0, gated=False, grid=37):
    shared = {
        "hidden_size": dim,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "patch_size": 14,
        "image_size": grid * 14,
        "use_swiglu_ffn": gated,
        **EAGER,
    }
    if registers:
        config = Dinov2WithRegistersConfig(num_register_tokens=registers, **shared)
        return randomise(Dinov2WithRegistersModel(config))
    return randomise(Dinov2Model(Dinov2Config(**shared)))


def dinov3(*, dim, depth, heads, width, gated=False, biased=False):
    """As published the biases of queries and values are zero; `biased` makes them matter."""
    config = DINOv3ViTConfig(
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=width,
        num_register_tokens=4,
        use_gated_mlp=gated,
        hidden_act="silu" if gated else "gelu",
        **EAGER,
    )
    model = randomise(DINOv3ViTModel(config))
    for name, tensor in model.named_parameters():
        if name.endswith(("q_proj.bias", "v_proj.bias")) and not biased:
            torch.nn.init.zeros_(tensor)
    return model


def vit(*, dim, depth, heads, grid=14):
    config = ViTConfig(
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * dim,
        image_size=grid * 16,
        layer_norm_eps=1e-6,
        **EAGER,
    )
    return randomise(ViTModel(config, add_pooling_layer=False))


def clip(*, dim, depth, heads, size=224, patch=16):
    config = CLIPVisionConfig(
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * dim,
        image_size=size,
        patch_size=patch,
        **EAGER,
    )
    return randomise(CLIPVisionModel(config))


def siglip(*, dim, depth, heads, size=224, act="gelu"):
    config = SiglipVisionConfig(
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * dim,
        image_size=size,
        hidden_act=act,
        **EAGER,
    )
    return randomise(SiglipVisionModel(config))


def _stacked(state, prefix, kind):
    return torch.cat([state[f"{prefix}.{part}_proj.{kind}"] for part in "qkv"])


def official_dinov2(model):
    """Write the model as dl.fbaipublicfiles.com has it."""
    state = model.state_dict()
    official = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
        "mask_token": state["embeddings.mask_token"],
        "patch_embed.proj.weight": state["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": state["layernorm.weight"],
        "norm.bias": state["layernorm.bias"],
    }
    if "embeddings.register_tokens" in state:
        official["register_tokens"] = state["embeddings.register_tokens"]
    for i in range(model.config.num_hidden_layers):
        theirs, ours = f"encoder.layer.{i}", f"blocks.{i}"
        for kind in ("weight", "bias"):
            official[f"{ours}.norm1.{kind}"] = state[f"{theirs}.norm1.{kind}"]
            official[f"{ours}.attn.qkv.{kind}"] = _stacked(state, f"{theirs}.attention", kind)
            official[f"{ours}.attn.proj.{kind}"] = state[f"{theirs}.attention.o_proj.{kind}"]
            official[f"{ours}.norm2.{kind}"] = state[f"{theirs}.norm2.{kind}"]
            if model.config.use_swiglu_ffn:
                gate, up = (state[f"{theirs}.mlp.{part}_proj.{kind}"] for part in ("gate", "up"))
                official[f"{ours}.mlp.w12.{kind}"] = torch.cat([gate, up])
                official[f"{ours}.mlp.w3.{kind}"] = state[f"{theirs}.mlp.down_proj.{kind}"]
            else:
                official |= {f"{ours}.mlp.{fc}.{kind}": state[f"{theirs}.mlp.{fc}.{kind}"] for fc in ("fc1", "fc2")}
        for number in (1, 2):
            official[f"{ours}.ls{number}.gamma"] = state[f"{theirs}.layer_scale{number}.lambda1"]
    return {key: tensor.contiguous() for key, tensor in official.items()}


def official_dinov3(model):
    """Write the model as Meta's gated download has it: biases masked for the keys, the periods of the rotation."""
    state, dim = model.state_dict(), model.config.hidden_size
    official = {
        "cls_token": state["embeddings.cls_token"],
        "storage_tokens": state["embeddings.register_tokens"],
        "mask_token": state["embeddings.mask_token"][0],
        "rope_embed.periods": torch.rand(model.config.hidden_size // model.config.num_attention_heads // 4),
        "patch_embed.proj.weight": state["embeddings.patch_embeddings.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embeddings.bias"],
        "norm.weight": state["norm.weight"],
        "norm.bias": state["norm.bias"],
    }
    for i in range(model.config.num_hidden_layers):
        theirs, ours = f"model.layer.{i}", f"blocks.{i}"
        official[f"{ours}.attn.qkv.weight"] = _stacked(state, f"{theirs}.attention", "weight")
        queries, values = (state[f"{theirs}.attention.{part}_proj.bias"] for part in "qv")
        official[f"{ours}.attn.qkv.bias"] = torch.cat([queries, torch.ones(dim), values])
        official[f"{ours}.attn.qkv.bias_mask"] = torch.cat([torch.ones(dim), torch.zeros(dim), torch.ones(dim)])
        for kind in ("weight", "bias"):
            official[f"{ours}.norm1.{kind}"] = state[f"{theirs}.norm1.{kind}"]
            official[f"{ours}.attn.proj.{kind}"] = state[f"{theirs}.attention.o_proj.{kind}"]
            official[f"{ours}.norm2.{kind}"] = state[f"{theirs}.norm2.{kind}"]
            if model.config.use_gated_mlp:
                names = {"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"}
            else:
                names = {"up_proj": "fc1", "down_proj": "fc2"}
            official |= {f"{ours}.mlp.{o}.{kind}": state[f"{theirs}.mlp.{t}.{kind}"] for t, o in names.items()}
        for number in (1, 2):
            official[f"{ours}.ls{number}.gamma"] = state[f"{theirs}.layer_scale{number}.lambda1"]
    return {key: tensor.contiguous() for key, tensor in official.items()}


def google_vit(model):
    """Write the model as storage.googleapis.com/vit_models has it, a classifier of 21,843 classes left small."""
    state, config = model.state_dict(), model.config
    dim, heads = config.hidden_size, config.num_attention_heads

    def array(name):
        return state[name].numpy()

    arrays = {
        "cls": array("embeddings.cls_token"),
        "embedding/kernel": array("embeddings.patch_embeddings.projection.weight").transpose(2, 3, 1, 0),
        "embedding/bias": array("embeddings.patch_embeddings.projection.bias"),
        "Transformer/posembed_input/pos_embedding": array("embeddings.position_embeddings"),
        "Transformer/encoder_norm/scale": array("layernorm.weight"),
        "Transformer/encoder_norm/bias": array("layernorm.bias"),
        "head/kernel": np.zeros((dim, 3), np.float32),
        "head/bias": np.zeros(3, np.float32),
    }
    for i in range(config.num_hidden_layers):
        theirs, ours = f"layers.{i}", f"Transformer/encoderblock_{i}"
        for norm, name in (("layernorm_before", "LayerNorm_0"), ("layernorm_after", "LayerNorm_2")):
            arrays[f"{ours}/{name}/scale"] = array(f"{theirs}.{norm}.weight")
            arrays[f"{ours}/{name}/bias"] = array(f"{theirs}.{norm}.bias")
        for number in (0, 1):
            arrays[f"{ours}/MlpBlock_3/Dense_{number}/kernel"] = array(f"{theirs}.mlp.fc{number + 1}.weight").T
            arrays[f"{ours}/MlpBlock_3/Dense_{number}/bias"] = array(f"{theirs}.mlp.fc{number + 1}.bias")
        attention = f"{ours}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            weight, bias = (array(f"{theirs}.attention.{part[0]}_proj.{kind}") for kind in ("weight", "bias"))
            arrays[f"{attention}/{part}/kernel"] = weight.T.reshape(dim, heads, -1)
            arrays[f"{attention}/{part}/bias"] = bias.reshape(heads, -1)
        arrays[f"{attention}/out/kernel"] = array(f"{theirs}.attention.o_proj.weight").T.reshape(heads, -1, dim)
        arrays[f"{attention}/out/bias"] = array(f"{theirs}.attention.o_proj.bias")
    return {key: np.ascontiguousarray(value) for key, value in arrays.items()}
