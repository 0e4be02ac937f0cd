"""Write src/kinema/video/assets/chinese.ttf.xz: the Chinese glyphs of the titles of contact sheets.

    apt-get download fonts-droid-fallback && dpkg-deb -x fonts-droid-fallback_*.deb droid
    pip install fonttools
    python tools/make_title_font.py droid/usr/share/fonts-droid-fallback/truetype/DroidSansFallback.ttf

The glyphs are the 3755 most frequent characters (GB 2312, level 1), the others of the package's own words,
and punctuation.
"""

import io
import lzma
import sys
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

SOURCE = Path(__file__).parents[1] / "src" / "kinema"
PUNCTUATION = "，。、；：？！“”‘’（）《》…—·"


def frequent_characters() -> set[str]:
    """Level 1 of GB 2312: rows 16 to 55 of 94 characters, the last of which has 89."""
    codes = [bytes([0xA0 + row, 0xA0 + column]) for row in range(16, 56) for column in range(1, 95)]
    return set(b"".join(codes[: 39 * 94 + 89]).decode("gb2312"))


def own_characters() -> set[str]:
    """The Chinese characters in the package's tables and worlds."""
    files = [*SOURCE.rglob("*.tsv"), *SOURCE.rglob("*.json"), *(SOURCE / "worlds").rglob("*.py")]
    return {c for file in files for c in file.read_text(encoding="utf-8") if "\u4e00" <= c <= "\u9fff"}


def main() -> None:
    """Write the font from the file of the first argument."""
    options = Options()
    options.hinting, options.notdef_outline, options.layout_features = False, True, []
    options.name_IDs = [0, 1, 2, 13]  # copyright, family, style, licence
    options.drop_tables += ["GSUB", "GPOS", "GDEF", "vhea", "vmtx"]

    font = TTFont(sys.argv[1])
    subsetter = Subsetter(options)
    subsetter.populate(text="".join(frequent_characters() | own_characters()) + PUNCTUATION)
    subsetter.subset(font)

    content = io.BytesIO()
    font.save(content)
    target = SOURCE / "video" / "assets" / "chinese.ttf.xz"
    target.write_bytes(lzma.compress(content.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{target}: {len(font.getGlyphOrder())} glyphs, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
