r"""A stranger's text as LaTeX that shows it as it is, with T1 fonts and textcomp."""

from __future__ import annotations

import re
import unicodedata

from fusionbench.errors import one_line

GREEK = (
    "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon varphi chi "
    "psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
)
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # at the start of a row they would be arguments of the \\ before
    "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$", "≠": r"$\ne$", "≈": r"$\approx$",
    "∞": r"$\infty$", "●": r"$\bullet$", "–": "--", "—": "---", "“": "``", "”": "''", "…": r"\dots{}", "\0": "{}",
    **{letter: rf"$\{name}$" for letter, name in zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ", GREEK.split(), strict=True)},
    **{chr(0x2080 + digit): f"$_{{{digit}}}$" for digit in range(10)},
}  # fmt: skip
"""Character -> LaTeX; the null stands between two characters that the fonts would join."""
JOINED = re.compile(r"([-',])(?=\1)")
"""What T1 fonts draw as one: dashes, quotation marks."""
IN_FONTS = re.compile("[ -~¡-·¹-ÿĀ-ĥĨ-ķĹ-ľŁ-ňŊ-ťŨ-žȘ-ț‘’‚„†‡‰‹›€™←-↓]")
"""What T1 and textcomp have, but for what is in SPECIAL."""


def escaped(text: str) -> str:
    r"""A stranger's text as LaTeX; of a character without a letter in the fonts its code point is shown.

    >>> print(escaped(r"50 % of t1_ce \input{x}"), escaped("β−1 的"))
    50 \% of t1\_ce \textbackslash{}input\{x\} $\beta$$-$1 {[}U+7684{]}
    """
    return "".join(SPECIAL.get(c) or (c if IN_FONTS.fullmatch(c) else f"{{[}}{_code(c)}{{]}}") for c in _plain(text))


def not_in_fonts(text: str) -> dict[str, str]:
    """The characters of which only the code point is shown -> that.

    >>> not_in_fonts("βé的")
    {'的': 'U+7684'}
    """
    return {c: _code(c) for c in _plain(text) if c not in SPECIAL and not IN_FONTS.fullmatch(c)}


def _plain(text: str) -> str:
    """One line, accents joined with their letters, a null where fonts must not join."""
    return JOINED.sub("\\1\0", one_line(unicodedata.normalize("NFC", text)))


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"
