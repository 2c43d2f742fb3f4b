"""Text that a policy or a sandbox wrote, made safe to look at: nothing hidden, nothing that drives a terminal.

Not covered: HTML escaping. The report's template does that for every value; this is about what escaping leaves alone.
"""

import unicodedata

# Cc control, Cf invisible formatting (bidi overrides, zero-width), Cs lone surrogates (no UTF-8 for them),
# Co/Cn private and unassigned, Zl/Zp line separators that split a terminal line.
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _show(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


def visible(text: str, limit: int | None = None) -> str:
    """`text` with control characters shown as symbols (escape becomes U+241B), clipped after `limit` characters.

    Newlines and tabs stay. A clipped text ends in a note that says how much is missing.
    """
    if text.isascii() and text.isprintable() and (limit is None or len(text) <= limit):
        return text
    kept = text if limit is None else text[:limit]
    shown = "".join(
        _show(character) if character not in "\n\t" and unicodedata.category(character) in HIDDEN else character
        for character in kept
    )
    missing = len(text) - len(kept)
    return f"{shown}\n[clipped here: {missing:,} more characters]" if missing else shown


def visible_line(text: str, limit: int = 200) -> str:
    """One line for a terminal or a table cell: newlines and tabs become symbols as well."""
    return visible(text, limit).replace("\n", "\u240a").replace("\t", "\u2409")
