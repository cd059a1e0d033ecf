"""Sensitivity, specificity and predictive values at a threshold, each with the influence of every test patient.

Predictive values depend on how common the finding is. At a stated prevalence q they follow from sensitivity Se and
specificity Sp by Bayes' theorem:

    PPV = Se q / (Se q + (1 - Sp) (1 - q))        NPV = Sp (1 - q) / (Sp (1 - q) + (1 - Se) q)

and their influences from those of the two by the derivatives (delta method, as in Mercaldo, Lau and Zhou 2007, for
patients instead of images).

Letters: N images, P patients.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from results.stats import influence
from results.stats.influence import Influence

RATES = ("recall", "specificity", "precision", "npv")
"""Sensitivity, specificity, positive and negative predictive value."""


def rates(
    truth: np.ndarray,
    score: np.ndarray,
    patients: np.ndarray,
    threshold: float,
    *,
    prevalence: float | None = None,
    n_patients: int | None = None,
) -> dict[str, Influence | None]:
    """The four rates of one label of one run, by name.

    Args:
        truth: bool (N,).
        score: (N,) probabilities.
        patients: codes (N,) below P.
        threshold: score from which an image is called positive.
        prevalence: share of positives, in (0, 1), that the predictive values are for; None is that of the test set.
        n_patients: P; None takes the highest code.

    Returns:
        None for a rate that is not defined: all where a class is missing, PPV where nothing is called positive, NPV
        where nothing is called negative.
    """
    given = {"threshold": threshold, "n_patients": n_patients}
    found = {name: influence.influence(name, truth, score, patients, **given) for name in ("recall", "specificity")}
    if prevalence is None:
        found["precision"] = influence.influence("precision", truth, score, patients, **given)
        # The negatives among those called negative: the precision of the reversed question.
        reversed_called = (score < threshold).astype(float)
        found["npv"] = influence.influence("precision", ~truth, reversed_called, patients, 0.5, n_patients)
        return found
    recall, specificity = found["recall"], found["specificity"]
    if recall is None or specificity is None:
        return found | {"precision": None, "npv": None}
    found["precision"] = _predictive(recall, specificity, prevalence)
    found["npv"] = _predictive(specificity, recall, 1 - prevalence)
    return found


def _predictive(found: Influence, others: Influence, share: float) -> Influence | None:
    """The predictive value of a call.

    Args:
        found: rate of the call among those for whom it is right.
        others: rate of the opposite call among the others.
        share: of those for whom it is right, in (0, 1).
    """
    right, wrong = found.value * share, (1 - others.value) * (1 - share)
    total = right + wrong
    if total <= 0:
        return None
    slopes = (share * wrong / total**2, right * (1 - share) / total**2)
    parts = [(slope, part) for slope, part in zip(slopes, (found, others), strict=True)]
    out = Influence(
        value=right / total,
        patients=sum((slope * part.patients for slope, part in parts), np.zeros(len(found.patients))),
        extra=sum(slope**2 * part.extra for slope, part in parts),
        boundary=_boundary(found, others, share),
    )
    pieces = [(slope**2 * part.variance, part.freedom) for slope, part in parts]
    return dataclasses.replace(out, freedom=influence.satterthwaite(out.variance, pieces))


def _boundary(found: Influence, others: Influence, share: float) -> float:
    """Patients that a predictive value of exactly 0 or 1 rests on.

    At 1 no wrong call was seen among n patients, and as many might be wrong as n allow: the odds of a wrong call are
    then (1 - q) / (Se q) times a share of which n patients say that it is small. At 0 it is the same the other way
    round.
    """
    if others.value >= 1:
        return max((others.boundary or 1.0) * found.value * share / (1 - share), 1e-9)
    return max((found.boundary or 1.0) * (1 - others.value) * (1 - share) / share, 1e-9)
