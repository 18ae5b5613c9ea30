"""Folds of which each is a site (or scanner, ...): the scores out of fold are then those at sites that nobody trained on."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from doctogres.errors import CohortError, listed


def site_folds(
    labels: Sequence[str], groups: Sequence[str], sites: Sequence[str], *, column: str
) -> tuple[NDArray[np.str_], dict[str, str]]:
    """The fold of every slide, (slides,), and the site of every fold, in the order of their names.

    Sites that share a group (a patient, or near-copies of a slide) become one fold, called `north + south`: a patient on both
    sides would make the site that is left out look easier than a new one.

    Args:
        labels: class of each slide.
        groups: group of each slide.
        sites: site of each slide; empty if unknown.
        column: its name, for messages.

    Raises:
        CohortError: a slide has no site, there is only one fold, or a class is at one of them only.
    """
    if blank := sum(not site for site in sites):
        raise CohortError(
            f"folds_by={column}: {blank} of {len(sites)} slides have no {column}; enter it, or leave them out with decisions="
        )
    name = merged_sites(groups, sites)
    of_slide = [name[site] for site in sites]
    found = sorted(set(of_slide))
    if len(found) < 2:
        shared = listed([f"{group} at {' and '.join(at)}" for group, at in shared_groups(groups, sites).items()])
        why = f", because patients or near-copies of a slide link them (group {shared})" if shared else ""
        remedy = "correct these groups, or drop such slides with decisions=" if shared else "leave folds_by empty"
        raise CohortError(
            f"folds_by={column}: two folds are needed, but the slides outside the hold-out make one, {found[0]}{why}; {remedy}"
        )
    for label in sorted(set(labels)):
        at = {site for site, own in zip(of_slide, labels, strict=True) if own == label}
        if len(at) == 1:
            raise CohortError(
                f"folds_by={column}: all slides of the class {label} outside the hold-out are of {at.pop()}, so no network could learn "
                "it while these are left out; add slides of another one, or leave folds_by empty"
            )
    fold_of = {site: f"fold{number}" for number, site in enumerate(found)}
    return np.array([fold_of[site] for site in of_slide], dtype=np.str_), {fold: site for site, fold in fold_of.items()}


def merged_sites(groups: Sequence[str], sites: Sequence[str]) -> dict[str, str]:
    """The name of every site together with all that share a group with it, `north + south`."""
    from scipy.cluster.hierarchy import DisjointSet  # half a second to import, which a reused run does not need

    merged, first = DisjointSet(sorted(set(sites))), dict[str, str]()
    for group, site in zip(groups, sites, strict=True):
        merged.merge(first.setdefault(group, site), site)
    return {site: " + ".join(sorted(together)) for together in merged.subsets() for site in together}


def shared_groups(groups: Sequence[str], sites: Sequence[str]) -> dict[str, list[str]]:
    """The groups that have slides at several sites, with these."""
    of_group: dict[str, set[str]] = {}
    for group, site in zip(groups, sites, strict=True):
        of_group.setdefault(group, set()).add(site)
    return {group: sorted(at) for group, at in sorted(of_group.items()) if len(at) > 1}


def described(fold_names: Mapping[str, str], column: str) -> str:
    """Which fold is which site, in words: `fold0 is site north, fold1 is site south + west`."""
    return listed([f"{fold} is {column} {site}" for fold, site in fold_names.items()])
