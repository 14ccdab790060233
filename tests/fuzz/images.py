"""Images of six kinds, damaged: each is a picture in 8-bit RGB or an UnreadableImage."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from simsiam.data.images import UnreadableImage, read_image
from tests.fuzz.harness import Outcome, Target, refused_memory

_FORMS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")


class Files(Target):
    """Damage anywhere in a file."""

    mebibytes = 1024  # Pillow takes up to 179 million pixels before it calls an image a bomb

    @functools.cached_property
    def samples(self) -> Sequence[bytes]:
        """Grey, coloured, transparent, of a palette, of 16 bits, turned, and with several frames."""
        colours = Image.radial_gradient("L").resize((40, 30)).convert("RGB")
        made = [_saved(colours, form) for form in _FORMS]
        made += [_saved(colours.convert("RGBA"), form) for form in ("PNG", "WEBP", "TIFF")]
        made += [_saved(colours.convert("P"), form) for form in ("PNG", "BMP", "TIFF")]
        made += [_saved(colours.convert("L"), form) for form in ("JPEG", "BMP")]
        made += [_saved(colours.convert("L").convert("I;16"), form) for form in ("PNG", "TIFF")]
        made += [_saved(colours, "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")]
        made += [_saved(colours.convert("CMYK"), "JPEG"), _saved(colours, "JPEG", progressive=True)]
        made += [_saved(colours, form, save_all=True, append_images=[colours.rotate(9)]) for form in ("GIF", "WEBP")]
        turned = Image.Exif()
        turned[0x0112] = 6
        return [*made, _saved(colours, "JPEG", exif=turned), _saved(colours, "PNG", exif=turned)]

    def check(self, content: bytes, folder: Path) -> Outcome:
        """As every loader does."""
        try:
            picture = read_image(content, name="picture")
        except UnreadableImage as error:
            refusal = error
        else:
            return self._whole(picture)
        assert not refused_memory(refusal), "memory ran out"
        return "refused"

    def _whole(self, picture: Image.Image) -> Outcome:
        assert picture.mode == "RGB"
        last = picture.crop((0, picture.height - 1, picture.width, picture.height))  # the whole again would double it
        assert len(last.tobytes()) == 3 * picture.width
        return "read"


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    made = io.BytesIO()
    image.save(made, form, **options)  # type: ignore[arg-type]
    return made.getvalue()
