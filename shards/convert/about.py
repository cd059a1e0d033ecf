"""What a card says of a published dataset: its terms of use, whom to cite, its home page."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """Facts of a published dataset, for the card and the report; empty for a user's own."""

    licence: str = ""
    """Terms of use, as its owners name them."""
    citation: str = ""
    """BibTeX entry of the paper to cite."""
    home: str = ""
    """Web address of the owners' page."""


OWN = About()
"""That of an unpublished dataset."""
