"""Slides with a byte-identical file, and which of them is real tissue."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from doctogres.cleaning.evidence import Evidence
from doctogres.slides.reasons import Reason


@dataclass(frozen=True)
class TwinFinding:
    """The result for one slide of a group of twins: `drop`, or review if false."""

    drop: bool
    reason: str
    twin_of: str


def twin_groups(hashes: Iterable[tuple[str, str | None]]) -> list[tuple[str, ...]]:
    """The groups of two or more slides with the same hash, from (slide_id, hash) pairs; slides sorted."""
    by_hash: dict[str, list[str]] = defaultdict(list)
    for slide_id, digest in hashes:
        if digest is not None:
            by_hash[digest].append(slide_id)
    return sorted(tuple(sorted(group)) for group in by_hash.values() if len(group) > 1)


def judge_twins(
    group: tuple[str, ...], evidence: Mapping[str, Evidence], labels: Mapping[str, str]
) -> dict[str, TwinFinding]:
    """The findings for a group with byte-identical masks; a member without a finding is kept.

    Cartoons are dropped if all other members are tissue. Of byte-identical pictures with the same label the first is
    kept. If any member is doubtful, all are for review and none is dropped.
    """
    kinds = {member: _kind(evidence[member]) for member in group}
    tissue = [member for member in group if kinds[member] == "tissue"]
    cartoons = [member for member in group if kinds[member] == "cartoon"]
    if not tissue or len(tissue) + len(cartoons) < len(group):
        return {member: _unsure(member, group, evidence) for member in group}
    judged = {member: _cartoon(member, tissue[0], evidence) for member in cartoons}
    judged |= judge_copies(tuple(tissue), evidence, labels, reason=Reason.SAME_MASK)
    return judged


def judge_copies(
    group: tuple[str, ...], evidence: Mapping[str, Evidence], labels: Mapping[str, str], *, reason: Reason
) -> dict[str, TwinFinding]:
    """The findings for tissue slides with a file in common: of exact duplicates only the first is kept, others are for review.

    `reason` is SAME_MASK or SAME_PICTURE.
    """
    first = group[0]
    files = {(evidence[member].image_md5, evidence[member].mask_md5, labels.get(member, "")) for member in group}
    if len(files) == 1:
        text = Reason.DUPLICATE.because(first=first)
        return {member: TwinFinding(True, text, first) for member in group[1:]}
    judged = {}
    for member in group:
        others = [other for other in group if other != member]
        judged[member] = TwinFinding(False, reason.because(others=", ".join(others)), others[0])
    return judged


def _kind(evidence: Evidence) -> str:
    return evidence.colour.kind if evidence.colour else "unsure"


def _cartoon(member: str, genuine: str, evidence: Mapping[str, Evidence]) -> TwinFinding:
    colours = {"colour": evidence[member].colour, "genuine_colour": evidence[genuine].colour}
    reason = Reason.CARTOON_TWIN.because(genuine=genuine, **colours)
    return TwinFinding(True, reason, genuine)


def _unsure(member: str, group: tuple[str, ...], evidence: Mapping[str, Evidence]) -> TwinFinding:
    others = [other for other in group if other != member]
    reason = Reason.TWIN_UNSURE.because(others=", ".join(others), colour=evidence[member].colour)
    return TwinFinding(False, reason, others[0])
