"""The colours that a photograph means: by the profile embedded in it, as sRGB."""

import io

from PIL import Image

_WIDEST_PROFILE = 2**22  # bytes; those of cameras and printers take a few hundred to a few hundred thousand
_MODES = frozenset({"RGB", "CMYK", "L"})


def in_srgb(image: Image.Image) -> Image.Image:
    """Return an image in sRGB where it has a colour profile of another space; else the image itself.

    Phones write Display P3, cameras Adobe RGB, printers CMYK: taken for sRGB their colours would be pale or wrong. A
    profile that is broken, or does not fit the pixels, is passed over, as viewers do.
    """
    profile = image.info.get("icc_profile")
    if not profile or len(profile) > _WIDEST_PROFILE or image.mode not in _MODES:
        return image
    from PIL import ImageCms  # here, since hardly any photograph of a data set needs it

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if ImageCms.getProfileDescription(source).strip().lower().startswith("srgb"):
            return image
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(
            image, source, srgb, renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if converted is None else converted
