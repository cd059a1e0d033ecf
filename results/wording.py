"""Plain English for sentences that count and list."""

from __future__ import annotations


def count(number: int, word: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {word}" + ("" if number == 1 else "s")


def listing(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" and {words[-1]}"
