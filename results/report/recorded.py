"""What a methods paragraph takes from the files of a study: settings as the runs recorded them, and what is cited."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from results import configs
from results.cells import config_keys
from results.report import references
from results.schema import Row
from results.wording import listing

STYLES = {"markdown": "[@{}]", "latex": "\\cite{{{}}}"}
"""How a citation is written."""


class Citations:
    """Collects what is cited."""

    def __init__(self, style: str) -> None:
        """Cite in one of `STYLES`."""
        self._form, self._entries = STYLES[style], {}

    def of(self, *names: str | None) -> str:
        """Cite entries of `references` by name; a blank before, empty for none."""
        return self.entries(*(references.ENTRIES[name] for name in names if name is not None))

    def entries(self, *texts: str) -> str:
        """Cite BibTeX entries; what is no entry is not cited."""
        keys = []
        for text in texts:
            if (key := references.key_of(text)) is not None:
                self._entries[key] = text.strip()
                keys.append(key)
        return "".join(f" {self._form.format(key)}" for key in keys)

    def bibtex(self) -> str:
        """The entries that were cited, by key."""
        return "".join(f"{text}\n\n" for _, text in sorted(self._entries.items()))


class Settings:
    """The settings of several runs."""

    def __init__(self, rows: Sequence[Row]) -> None:
        """Of the runs of some rows, as far as their configurations are known."""
        self.held = [config for row in rows if (config := configs.config_of(row)) is not None]

    def values(self, *keys: str) -> list[Any]:
        """Values of the first key that any run has, as written in its configuration; empty where not recorded."""
        for key in keys:
            found = {json.dumps(config[key]): config[key] for config in self.held if config.get(key) is not None}
            if found:
                return sorted(found.values(), key=lambda value: (isinstance(value, str), value))
        return []

    def say(self, form: str, *keys: str) -> str:
        """`form` with the values in place of {}; empty where not recorded."""
        values = self.values(*keys)
        return form.format(listing([config_keys.spell(value) for value in values])) if values else ""
