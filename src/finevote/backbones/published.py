"""The backbones that have a short name: how large they are, whose their weights are, and under which licence.

A table of facts that is read without torch and timm. Sizes and licences are those that timm states for each name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_FILES = ("model.safetensors", "pytorch_model.bin")  # in the order in which timm asks the hub for them
_OBLIGATIONS: Mapping[str, str] = {
    "dinov3-license": "the DINOv3 licence also binds weights derived from these, as a fine-tuned classifier is: read "
    "https://ai.meta.com/resources/models-and-libraries/dinov3-license/ before you use it or pass it on",
    "cc-by-nc-4.0": "CC BY-NC 4.0: name the authors, no commercial use",
    "fair-noncommercial-research-license": "the FAIR licence allows noncommercial research only",
    "sapiens2-license": "the Sapiens2 licence restricts use and binds what is passed on: read "
    "https://github.com/facebookresearch/sapiens2/blob/main/LICENSE.md",
}


@dataclass(frozen=True)
class BackboneInfo:
    """One backbone and its published weights.

    Attributes:
        name: the short name.
        timm_name: model and weights, as timm calls them.
        family: how the weights came about, for people.
        size: of the architecture, likewise.
        num_parameters: of the embedding, the blocks and the final norm.
        patch_px: side of a patch.
        native_px: side of the images that the weights were trained with.
        licence: of the weights, as timm states it; "" where it states none.
        hub_id: the weights on the hub; "" where none are published.
    """

    name: str
    timm_name: str
    family: str
    size: str
    num_parameters: int
    patch_px: int
    native_px: int
    licence: str
    hub_id: str

    @property
    def obligations(self) -> str:
        """What the licence asks of those who use the weights, in a sentence; "" where it is a permissive one."""
        return obligations_of(self.licence)


def obligations_of(licence: str) -> str:
    """Return what a licence, as timm calls it, asks beyond a copy of its text; "" for one that is not known to."""
    return _OBLIGATIONS.get(licence, "")


def weights_at_hand(info: BackboneInfo) -> Path | None:
    """Return the file of the weights in the hub's cache, without asking the hub; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(info.hub_id, name) for name in _FILES) if info.hub_id else ()
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _family(
    family: str, licence: str, rows: Iterable[tuple[str, str, str, int, int, int]]
) -> Iterable[tuple[str, BackboneInfo]]:
    for name, timm_name, size, num_parameters, patch_px, native_px in rows:
        hub_id = f"timm/{timm_name.replace('_quickgelu', '')}"  # one file, whichever activation it is run with
        info = BackboneInfo(name, timm_name, family, size, num_parameters, patch_px, native_px, licence, hub_id)
        yield name, info


@dataclass(frozen=True)
class WeightsOrigin:
    """Where the weights of a backbone came from, and on what terms: kept with everything that is made from them.

    Attributes:
        backbone: as timm calls it.
        source: "random", a name on the hub, or a file.
        licence: as timm calls it; "" where none is known.
        obligations: what it asks, in a sentence; "" where it is a permissive one.
    """

    backbone: str
    source: str
    licence: str
    obligations: str


PUBLISHED: Mapping[str, BackboneInfo] = dict(
    [
        *_family(
            "DINOv2",
            "apache-2.0",
            [
                ("dinov2_vits14", "vit_small_patch14_dinov2.lvd142m", "ViT-S/14", 22_056_192, 14, 518),
                ("dinov2_vitb14", "vit_base_patch14_dinov2.lvd142m", "ViT-B/14", 86_579_712, 14, 518),
                ("dinov2_vitl14", "vit_large_patch14_dinov2.lvd142m", "ViT-L/14", 304_367_616, 14, 518),
                ("dinov2_vitg14", "vit_giant_patch14_dinov2.lvd142m", "ViT-g/14", 1_136_479_232, 14, 518),
            ],
        ),
        *_family(
            "DINOv2 with 4 registers",
            "apache-2.0",
            [
                ("dinov2_vits14_reg4", "vit_small_patch14_reg4_dinov2.lvd142m", "ViT-S/14", 22_057_344, 14, 518),
                ("dinov2_vitb14_reg4", "vit_base_patch14_reg4_dinov2.lvd142m", "ViT-B/14", 86_582_016, 14, 518),
                ("dinov2_vitl14_reg4", "vit_large_patch14_reg4_dinov2.lvd142m", "ViT-L/14", 304_370_688, 14, 518),
                ("dinov2_vitg14_reg4", "vit_giant_patch14_reg4_dinov2.lvd142m", "ViT-g/14", 1_136_483_840, 14, 518),
            ],
        ),
        *_family(
            "DINOv3",
            "dinov3-license",
            [
                ("dinov3_vits16", "vit_small_patch16_dinov3.lvd1689m", "ViT-S/16", 21_586_944, 16, 256),
                ("dinov3_vits16plus", "vit_small_plus_patch16_dinov3.lvd1689m", "ViT-S+/16", 28_683_264, 16, 256),
                ("dinov3_vitb16", "vit_base_patch16_dinov3.lvd1689m", "ViT-B/16", 85_641_216, 16, 256),
                ("dinov3_vitl16", "vit_large_patch16_dinov3.lvd1689m", "ViT-L/16", 303_079_424, 16, 256),
                ("dinov3_vith16plus", "vit_huge_plus_patch16_dinov3.lvd1689m", "ViT-H+/16", 840_509_440, 16, 256),
            ],
        ),
        *_family(
            "ImageNet-21k",
            "apache-2.0",
            [("vit_b16_in21k", "vit_base_patch16_224.orig_in21k", "ViT-B/16", 85_798_656, 16, 224)],
        ),
        *_family(
            "ImageNet-21k, AugReg",
            "apache-2.0",
            [
                ("vit_s16_augreg_in21k", "vit_small_patch16_224.augreg_in21k", "ViT-S/16", 21_665_664, 16, 224),
                ("vit_b16_augreg_in21k", "vit_base_patch16_224.augreg_in21k", "ViT-B/16", 85_798_656, 16, 224),
                ("vit_l16_augreg_in21k", "vit_large_patch16_224.augreg_in21k", "ViT-L/16", 303_301_632, 16, 224),
            ],
        ),
        *_family(
            "CLIP",
            "apache-2.0",
            [
                ("clip_vitb32", "vit_base_patch32_clip_quickgelu_224.openai", "ViT-B/32", 87_456_000, 32, 224),
                ("clip_vitb16", "vit_base_patch16_clip_quickgelu_224.openai", "ViT-B/16", 85_799_424, 16, 224),
                ("clip_vitl14", "vit_large_patch14_clip_quickgelu_224.openai", "ViT-L/14", 303_179_776, 14, 224),
                ("clip_vitl14_336", "vit_large_patch14_clip_quickgelu_336.openai", "ViT-L/14", 303_507_456, 14, 336),
            ],
        ),
        *_family(
            "SigLIP 2",
            "apache-2.0",
            [
                ("siglip2_vitb16_224", "vit_base_patch16_siglip_224.v2_webli", "ViT-B/16", 85_797_120, 16, 224),
                ("siglip2_vitb16_384", "vit_base_patch16_siglip_384.v2_webli", "ViT-B/16", 86_088_960, 16, 384),
                ("siglip2_vitb16_512", "vit_base_patch16_siglip_512.v2_webli", "ViT-B/16", 86_433_024, 16, 512),
                ("siglip2_vitl16_256", "vit_large_patch16_siglip_256.v2_webli", "ViT-L/16", 303_361_024, 16, 256),
                ("siglip2_vitl16_384", "vit_large_patch16_siglip_384.v2_webli", "ViT-L/16", 303_688_704, 16, 384),
                ("siglip2_vitl16_512", "vit_large_patch16_siglip_512.v2_webli", "ViT-L/16", 304_147_456, 16, 512),
                ("siglip2_so400m14_224", "vit_so400m_patch14_siglip_224.v2_webli", "So400m/14", 412_442_352, 14, 224),
                ("siglip2_so400m14_378", "vit_so400m_patch14_siglip_378.v2_webli", "So400m/14", 412_987_248, 14, 378),
                ("siglip2_so400m16_384", "vit_so400m_patch16_siglip_384.v2_webli", "So400m/16", 413_018_352, 16, 384),
                ("siglip2_so400m16_512", "vit_so400m_patch16_siglip_512.v2_webli", "So400m/16", 413_534_448, 16, 512),
            ],
        ),
        *_family(
            "EVA-02",
            "mit",
            [
                ("eva02_vits14", "eva02_small_patch14_224.mim_in22k", "ViT-S/14", 21_621_120, 14, 224),
                ("eva02_vitb14", "eva02_base_patch14_224.mim_in22k", "ViT-B/14", 85_758_720, 14, 224),
                ("eva02_vitl14", "eva02_large_patch14_224.mim_m38m", "ViT-L/14", 303_268_800, 14, 224),
            ],
        ),
    ]
)
