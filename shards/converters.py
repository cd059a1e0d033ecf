"""From a configuration to the plan of its data set."""

from __future__ import annotations

from shards.config import ChexpertConfig, ConvertConfig, CsvConfig, KermanyConfig, MedmnistConfig, NihConfig
from shards.plan import Plan


def plan(config: ConvertConfig) -> Plan:
    """Return what a conversion is going to do; the configuration's class says which data set it is.

    Raises:
        InputError: the source cannot be used.
    """
    match config:
        case NihConfig():
            from shards.nih import plan_nih

            return plan_nih(config)
        case ChexpertConfig():
            from shards.chexpert import plan_chexpert

            return plan_chexpert(config)
        case KermanyConfig():
            from shards.kermany import plan_kermany

            return plan_kermany(config)
        case MedmnistConfig():
            from shards.medmnist import plan_medmnist

            return plan_medmnist(config)
        case CsvConfig():
            from shards.table import plan_csv

            return plan_csv(config)
    raise TypeError(f"no converter for {type(config).__name__}")
