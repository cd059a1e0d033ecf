"""The datasets that `cxrdist shard` converts: the only place that lists them.

A converter is one file: a frozen dataclass of its options, a function from it to a `shards.convert.plan.Plan`, and its
line here. Files are named, not imported, so that listing the sets costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shards.convert.config import ConvertConfig
    from shards.convert.plan import Plan


@dataclass(frozen=True)
class Converter:
    """Where the converter of a dataset is."""

    summary: str
    """One line for `cxrdist shard --help`."""
    config: str
    """The dataclass of its options, "module:Name"."""
    plan: str
    """The function that plans a conversion, "module:name"."""


CONVERTERS: dict[str, Converter] = {
    "nih": Converter("NIH ChestX-ray14", "shards.convert.config:NihConfig", "shards.convert.nih:plan_nih"),
    "chexpert": Converter(
        "CheXpert, CheXlocalize", "shards.convert.config:ChexpertConfig", "shards.convert.chexpert:plan_chexpert"
    ),
    "chexpert_plus": Converter(
        "CheXpert Plus", "shards.convert.chexpert_plus:Config", "shards.convert.chexpert_plus:plan"
    ),
    "mimic": Converter("MIMIC-CXR-JPG", "shards.convert.mimic:Config", "shards.convert.mimic:plan"),
    "padchest": Converter("PadChest", "shards.convert.padchest:Config", "shards.convert.padchest:plan"),
    "vindr": Converter("VinDr-CXR and VinBigData", "shards.convert.vindr:Config", "shards.convert.vindr:plan"),
    "rsna": Converter("RSNA Pneumonia Detection Challenge", "shards.convert.rsna:Config", "shards.convert.rsna:plan"),
    "brax": Converter("BRAX", "shards.convert.brax:Config", "shards.convert.brax:plan"),
    "siim": Converter("SIIM-ACR Pneumothorax", "shards.convert.siim:Config", "shards.convert.siim:plan"),
    "kermany": Converter(
        "Kermany pneumonia", "shards.convert.config:KermanyConfig", "shards.convert.kermany:plan_kermany"
    ),
    "medmnist": Converter(
        "PneumoniaMNIST and ChestMNIST", "shards.convert.config:MedmnistConfig", "shards.convert.medmnist:plan_medmnist"
    ),
    "csv": Converter(
        "your own table of images", "shards.convert.config:CsvConfig", "shards.convert.own_table:plan_csv"
    ),
    "dicom": Converter(
        "a folder of DICOM files", "shards.convert.dicom_folder:Config", "shards.convert.dicom_folder:plan"
    ),
}


def _load(name: str) -> object:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Configs(Mapping[str, type]):
    """Name of a dataset -> dataclass of its options, loaded when it is asked for."""

    def __getitem__(self, name: str) -> type:
        found = _load(CONVERTERS[name].config)
        assert isinstance(found, type)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(CONVERTERS)

    def __len__(self) -> int:
        return len(CONVERTERS)


def plan(config: ConvertConfig) -> Plan:
    """Return what a conversion is going to do; the configuration's class says which dataset it is.

    Raises:
        InputError: the source cannot be used.
    """
    from shards.convert import lists
    from shards.convert.drawn import STYLES, as_drawn, layout_of

    kind = f"{type(config).__module__}:{type(config).__name__}"
    for converter in CONVERTERS.values():
        if converter.config == kind:
            make: Any = _load(converter.plan)
            made = lists.apply(make(config), config)
            found = layout_of(config.src) if made.name in STYLES else None
            return made if found is None else as_drawn(made, *found)
    raise TypeError(f"no converter for {kind}")
