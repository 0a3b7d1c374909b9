"""The words of figures: cut and wrapped by the width they take, and drawn in fonts that have their characters."""

import unicodedata
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.text import Text

OWN_FONT = "DejaVu Sans"  # comes with matplotlib
# Marks that turn the direction of a text, or have no width, and that a name can do without; joiners are kept.
INVISIBLE = dict.fromkeys([0xAD, 0x61C, 0xFEFF, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])


def plain(text):
    """A text whose only control characters are newlines, and that can be encoded."""
    return "".join(map(_plain_character, str(text).translate(INVISIBLE)))


def _plain_character(character):
    kind = unicodedata.category(character)
    if kind == "Cs":  # a byte of a file's name that is no text
        return "\N{REPLACEMENT CHARACTER}"
    return " " if kind in ("Cc", "Zl", "Zp") and character != "\n" else character


def display_width(text):
    """The width of a text in Latin characters: those of East Asia are twice as wide, marks above others have none."""
    narrow = sum(unicodedata.category(character) not in ("Mn", "Me", "Cf") for character in text)
    return narrow + sum(unicodedata.east_asian_width(character) in "WF" for character in text)


def _fitting(text, width):
    """How many of a text's characters fit in a width; at least one."""
    count = 1
    while count < len(text) and display_width(text[: count + 1]) <= width:
        count += 1
    return count


def signed(value):
    """A score with its sign, to three digits."""
    return f"{value:+.3f}".replace("-", "−")


def shorten(text, width):
    """A text in one line that is cut to a width, at a word if one ends there."""
    text = " ".join(plain(text).split())
    if display_width(text) <= width:
        return text
    count = _fitting(text, width - 2)
    kept = text[:count]
    at_word = kept if text[count] == " " else kept.rpartition(" ")[0]
    return f"{(at_word if 2 * len(at_word) > count else kept).rstrip()} …"


def wrapped(text, width, most=None):
    """The lines of a text, `most` at most; words that are longer than a line are cut."""
    lines = [""]
    for word in plain(text).split():
        if lines[-1] and display_width(f"{lines[-1]} {word}") > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
        while display_width(lines[-1]) > width:
            count = _fitting(lines[-1], width)
            lines[-1:] = [lines[-1][:count], lines[-1][count:]]
    if most and len(lines) > most:
        lines[most - 1 :] = [shorten(" ".join(lines[most - 1 :]), width)]
    return lines


def use_fonts(figure):
    """Draw what the usual font lacks in other installed fonts, and say which characters none of them has."""
    texts = figure.findobj(Text)
    for text in texts:
        text.set_text(plain(text.get_text()))
    needed = {character for text in texts for character in text.get_text() if not character.isspace()}
    lacking = _lacking(needed)
    if not lacking:
        return
    families, unknown = _fonts_with(lacking)
    for text in texts:
        if lacking & set(text.get_text()):
            text.set_fontfamily([OWN_FONT, *families])
    if unknown:
        warnings.warn(
            f"no installed font has the characters {' '.join(sorted(unknown)[:40])}, which figures show as boxes. "
            "Install fonts of their scripts, for instance Noto Sans, and draw them again.",
            stacklevel=2,
        )


def _lacking(characters):
    """Those that the usual font lacks. Joiners and the like are no glyphs."""
    codes = _codes(font_manager.findfont(OWN_FONT))
    return {character for character in characters if ord(character) not in codes and display_width(character)}


def _fonts_with(characters):
    """(names of installed fonts that together have as many of the characters as can be, characters that none has)."""
    covered = {name: {one for one in characters if ord(one) in _codes(path)} for name, path in _fonts()}
    families, unknown = [], set(characters)
    while unknown:
        best = max(covered, key=lambda name: (len(covered[name] & unknown), name.startswith("Noto Sans"), name))
        if not covered[best] & unknown:
            break
        families.append(best)
        unknown -= covered[best]
    return families, unknown


def _fonts():
    """(name, file) of all fonts of this machine, for each name the upright one of regular weight if there is one.

    matplotlib remembers the fonts of its first run, so those installed since are added. Fonts of last resort, which
    have one sign for a whole script, are left out.
    """
    manager = font_manager.fontManager
    for path in sorted(set(font_manager.findSystemFonts()) - {font.fname for font in manager.ttflist}):
        with suppress(OSError, RuntimeError, NotImplementedError):  # without outlines, as those of colour emoji
            manager.addfont(path)
    fonts = sorted(manager.ttflist, key=lambda font: (font.style == "normal", font.weight in (400, "normal")))
    files = {font.name: font.fname for font in fonts if Path(font.fname).exists()}  # the last one stays
    return [(name, path) for name, path in files.items() if "lastresort" not in name.replace(" ", "").lower()]


@cache
def _codes(path):
    """The characters that a font file has, as numbers."""
    return frozenset(font_manager.get_font(path).get_charmap())
