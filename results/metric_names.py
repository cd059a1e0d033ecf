"""The metrics by name, as the column `metric` holds them."""

from __future__ import annotations

RANK_METRICS = ("auroc", "auprc")
"""Metrics of the order of the scores."""


THRESHOLD_METRICS = ("accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1")
"""Metrics at a threshold; recall is sensitivity."""


PROBABILITY_METRICS = ("brier", "ece")
"""Metrics of the scores as probabilities; lower is better."""


COUNTS = ("tp", "fp", "tn", "fn")
"""Images at a threshold."""


METRICS = RANK_METRICS + THRESHOLD_METRICS + PROBABILITY_METRICS
"""Every metric; each has its values in [0, 1]."""
