"""The colours, dark and light, in which every text can be read wherever it stands.

That is a contrast of 4.5 to 1 at least (WCAG 2.2, success criterion 1.4.3).
"""

from __future__ import annotations

from typing import Final

from textual.theme import Theme

DARK: Final = Theme(
    name="wallet-dark",
    primary="#0067b8",
    accent="#ffa62b",
    warning="#ffa62b",
    error="#ba3c5b",
    success="#4ebf71",
    foreground="#e0e0e0",
    background="#121212",
    surface="#1e1e1e",
    panel="#242f38",
    variables={"quiet": "#b0b0b0", "text-primary": "#7cc0ff", "text-error": "#e6a3b3"},
)
LIGHT: Final = Theme(
    name="wallet-light",
    primary="#004f8a",
    accent="#b35c00",
    warning="#b35c00",
    error="#b3123f",
    success="#1d7a3c",
    foreground="#1c1c1c",
    background="#fbfbfb",
    surface="#f1f1f1",
    panel="#e4e8ec",
    dark=False,
    variables={"quiet": "#555555", "footer-key-foreground": "#004f8a"},
)
QUIET: Final = "$quiet"
"""What is read second. (A share of the foreground would not do: lines of the tree do not blend.)"""
