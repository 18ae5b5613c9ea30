"""Combines the measurements of all slides into an outcome and a reason for each."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from doctogres.cleaning.duplicates import PictureHash, near_duplicates
from doctogres.cleaning.evidence import Evidence
from doctogres.cleaning.twins import TwinFinding, judge_copies, judge_twins, twin_groups
from doctogres.settings import CleanSettings
from doctogres.slides.plausibility import doubt_about
from doctogres.slides.reasons import Reason
from doctogres.slides.table import DROPPED, KEPT, REPAIRED, REVIEW

MAX_CARTOON_SHARE: Final = 0.3  # of the readable slides; a higher share means a stain other than H&E


@dataclass(frozen=True)
class Outcome:
    """The outcome of a slide (a value of the cohort table), its reason, and the twin it was compared with, if any."""

    outcome: str = KEPT
    reason: str = ""
    twin_of: str | None = None


def decide(
    evidence: Mapping[str, Evidence],
    hashes: Mapping[str, PictureHash],
    labels: Mapping[str, str],
    settings: CleanSettings,
    wanted: Collection[str] = (),
) -> tuple[dict[str, Outcome], dict[str, list[tuple[str, ...]]]]:
    """The outcome of every slide in `evidence`, and the groups of slides that must stay on one side of a split.

    `hashes` are those of the slides' pictures. The groups are the slides with byte-identical `mask` or `picture`, and the
    `near-copy` clusters of slides that are not dropped or that a manual decision keeps (`wanted`).
    """
    outcomes = {slide: _alone(measured) for slide, measured in evidence.items()}
    readable = [slide for slide, outcome in outcomes.items() if outcome.outcome != DROPPED]
    twins = twin_groups((slide, evidence[slide].mask_md5) for slide in readable)
    for group in twins:
        _apply(outcomes, judge_twins(group, evidence, labels))
    alone = set(readable) - {slide for group in twins for slide in group}
    outcomes |= _lone_cartoons(sorted(alone), evidence, len(readable))
    pictures = twin_groups((slide, evidence[slide].image_md5) for slide in readable)
    for group in pictures:
        kept = tuple(slide for slide in group if outcomes[slide].outcome == KEPT)
        if len(kept) > 1:
            _apply(outcomes, judge_copies(kept, evidence, labels, reason=Reason.SAME_PICTURE))
    compared = [slide for slide in readable if outcomes[slide].outcome != DROPPED or slide in wanted]
    hashed = [slide for slide in compared if slide in hashes]
    clusters = near_duplicates(_Chosen(hashes, hashed))
    copies = [tuple(hashed[index] for index in cluster) for cluster in clusters]
    for slide in compared:
        if evidence[slide].splat_share and outcomes[slide].outcome != DROPPED:
            outcomes[slide] = _slimed(evidence[slide], outcomes[slide], copies, evidence, settings)
    return outcomes, {"mask": twins, "picture": pictures, "near-copy": copies}


class _Chosen(Sequence[PictureHash]):
    """The hashes of some slides, each asked for when it is needed."""

    def __init__(self, hashes: Mapping[str, PictureHash], slides: Sequence[str]):
        self.hashes, self.slides = hashes, slides

    def __getitem__(self, place: Any) -> Any:
        return self.hashes[self.slides[place]]

    def __len__(self) -> int:
        return len(self.slides)


def can_be_used(measured: Evidence) -> bool:
    """Whether the slide's files are usable at all, whatever their content."""
    return _alone(measured).outcome != DROPPED


def merged_groups(slides: Sequence[str], given: Mapping[str, str], joined: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """The split group of every slide: its given group, or itself, merged with the groups of its twins and near-copies.

    A merged group takes the alphabetically first of its names.
    """
    from scipy.cluster.hierarchy import DisjointSet  # half a second to import, which a reused run does not need

    name = {slide: given.get(slide, slide) for slide in slides}
    merged = DisjointSet(name.values())
    for together in joined:
        for left, right in pairwise(together):
            merged.merge(name[left], name[right])
    first = {group: min(groups) for groups in merged.subsets() for group in groups}
    return {slide: first[name[slide]] for slide in slides}


def rare_classes(labels: Mapping[str, str], groups: Mapping[str, str]) -> dict[str, str]:
    """The reason for each class with too few groups to train and test on, from the usable slides' labels and groups."""
    slides = Counter(labels.values())
    parts: dict[str, set[str]] = defaultdict(set)
    for slide, label in labels.items():
        parts[label].add(groups[slide])
    return {
        label: Reason.RARE_CLASS.because(label=label, slides=slides[label], groups=len(parts[label]))
        for label in slides
        if len(parts[label]) < 2
    }


def _alone(slide: Evidence) -> Outcome:
    """The outcome of a slide by its own files, apart from its colours."""
    if slide.reason:
        return Outcome(DROPPED, slide.reason)
    if slide.lesion_pixels == 0:
        return Outcome(DROPPED, Reason.EMPTY_MASK.because(slide=slide.slide_id))
    doubt = doubt_about(slide.fit, slide=slide.slide_id) or slide.note
    return Outcome(REVIEW, doubt) if doubt else Outcome()


def _apply(outcomes: dict[str, Outcome], findings: Mapping[str, TwinFinding]) -> None:
    for slide, finding in findings.items():
        outcomes[slide] = Outcome(DROPPED if finding.drop else REVIEW, finding.reason, finding.twin_of)


def _lone_cartoons(slides: Sequence[str], evidence: Mapping[str, Evidence], readable: int) -> dict[str, Outcome]:
    """Slides without a twin whose colours are not those of tissue; if there are many, the stain differs."""
    colours = {slide: colour for slide in slides if (colour := evidence[slide].colour) is not None}
    cartoons = [slide for slide, colour in colours.items() if colour.kind == "cartoon"]
    if len(cartoons) > max(1, MAX_CARTOON_SHARE * readable):
        return {
            slide: Outcome(
                REVIEW, Reason.STAIN.because(colour=colours[slide], cartoons=len(cartoons), readable=readable)
            )
            for slide in cartoons
        }
    judged = {slide: Outcome(DROPPED, Reason.CARTOON.because(colour=colours[slide])) for slide in cartoons}
    for slide, colour in colours.items():
        if colour.is_doubtful:
            judged[slide] = Outcome(REVIEW, Reason.COLOUR.because(colour=colour))
    return judged


def _slimed(
    slide: Evidence,
    before: Outcome,
    copies: Sequence[tuple[str, ...]],
    evidence: Mapping[str, Evidence],
    settings: CleanSettings,
) -> Outcome:
    """The outcome of a slide with a splat under the policy `slime`."""
    clean = [
        copy for cluster in copies if slide.slide_id in cluster for copy in cluster if not evidence[copy].splat_share
    ]
    twin = clean[0] if clean else before.twin_of
    same = f"; {clean[0]} is the same slide without it" if clean else ""

    def reason(detail: str = "") -> str:
        return Reason.SLIME.because(share=slide.splat_share, in_mask=slide.splat_in_mask, more=same + detail)

    if settings.slime == "drop":
        return Outcome(DROPPED, reason(), twin)
    if settings.slime == "keep":
        return replace(before, reason=before.reason or reason("; kept because of slime=keep"), twin_of=twin)
    left = f"{slide.lesion_left} lesion pixels remain (min_lesion is {settings.min_lesion})"
    if slide.lesion_left < settings.min_lesion:
        return Outcome(DROPPED, reason(f"; without it {left}"), twin)
    return Outcome(REPAIRED, reason(f"; removed from the mask, {left}"), twin)
