"""The data sets that `cxrdist shard` converts: the only place that lists them.

A converter is one file: a frozen dataclass of its options, a function from it to a `shards.plan.Plan`, and its line
here. Files are named, not imported, so that listing the sets costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shards.config import ConvertConfig
    from shards.plan import Plan


@dataclass(frozen=True)
class Converter:
    """Where the converter of a data set is."""

    summary: str
    """One line for `cxrdist shard --help`."""
    config: str
    """The dataclass of its options, "module:Name"."""
    plan: str
    """The function that plans a conversion, "module:name"."""


CONVERTERS: dict[str, Converter] = {
    "nih": Converter("NIH ChestX-ray14", "shards.config:NihConfig", "shards.nih:plan_nih"),
    "chexpert": Converter("CheXpert, CheXlocalize", "shards.config:ChexpertConfig", "shards.chexpert:plan_chexpert"),
    "chexpert_plus": Converter("CheXpert Plus", "shards.chexpert_plus:Config", "shards.chexpert_plus:plan"),
    "mimic": Converter("MIMIC-CXR-JPG", "shards.mimic:Config", "shards.mimic:plan"),
    "padchest": Converter("PadChest", "shards.padchest:Config", "shards.padchest:plan"),
    "vindr": Converter("VinDr-CXR and VinBigData", "shards.vindr:Config", "shards.vindr:plan"),
    "rsna": Converter("RSNA Pneumonia Detection Challenge", "shards.rsna:Config", "shards.rsna:plan"),
    "brax": Converter("BRAX", "shards.brax:Config", "shards.brax:plan"),
    "siim": Converter("SIIM-ACR Pneumothorax", "shards.siim:Config", "shards.siim:plan"),
    "kermany": Converter("Kermany pneumonia", "shards.config:KermanyConfig", "shards.kermany:plan_kermany"),
    "medmnist": Converter(
        "PneumoniaMNIST and ChestMNIST", "shards.config:MedmnistConfig", "shards.medmnist:plan_medmnist"
    ),
    "csv": Converter("your own table of images", "shards.config:CsvConfig", "shards.table:plan_csv"),
    "dicom": Converter("a folder of DICOM files", "shards.dicom_folder:Config", "shards.dicom_folder:plan"),
}


def _load(name: str) -> object:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Configs(Mapping[str, type]):
    """Name of a data set -> dataclass of its options, loaded when it is asked for."""

    def __getitem__(self, name: str) -> type:
        found = _load(CONVERTERS[name].config)
        assert isinstance(found, type)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(CONVERTERS)

    def __len__(self) -> int:
        return len(CONVERTERS)


def plan(config: ConvertConfig) -> Plan:
    """Return what a conversion is going to do; the configuration's class says which data set it is.

    Raises:
        InputError: the source cannot be used.
    """
    kind = f"{type(config).__module__}:{type(config).__name__}"
    for converter in CONVERTERS.values():
        if converter.config == kind:
            make: Any = _load(converter.plan)
            return make(config)
    raise TypeError(f"no converter for {kind}")
