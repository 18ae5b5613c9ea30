"""The whole-slide classifier: regions -> crops -> networks -> aggregation -> calibration, as safetensors and JSON.

Evaluation, prediction and the served model all use `SlideClassifier`, so their predictions are the same.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from doctogres.errors import DoctogresError, UpstreamError, WeightsError
from doctogres.files import file_digest
from doctogres.model.answer import CutSlide, SlideAnswer
from doctogres.model.answering import slide_answers
from doctogres.model.architecture import Architecture
from doctogres.model.card import ClassifierCard, SourceCard, TrainingRecord
from doctogres.model.conformal import LabelSets, NoveltyLimit
from doctogres.model.cutting import cut_slide
from doctogres.model.fusion import ViewOutputs
from doctogres.model.graphs import read_graphs
from doctogres.model.group_answer import GroupRule
from doctogres.model.scheduling import Job, Scheduler
from doctogres.model.temperature import Calibration
from doctogres.settings import ATTENTION, AnswerSettings, PatchSettings
from doctogres.slides.plausibility import MaskRange
from doctogres.slides.source import Picture
from doctogres.slides.tissue import ReducedPicture
from doctogres.slides.turns import TURNS

if TYPE_CHECKING:  # torch, which a server with stored graphs does not need
    from doctogres.model.ensemble import Ensemble

WEIGHTS_FILE: Final = "weights.safetensors"
CARD_FILE: Final = "classifier.json"
EVIDENCE_FILE: Final = "evidence.json"
PATCHES_AT_ONCE: Final = 256  # patches of several slides that are classified together


@dataclass(frozen=True)
class SlideClassifier:
    """The networks and their card, ready to classify slides."""

    card: ClassifierCard
    networks: "tuple[Ensemble, ...]"  # one per source of the card
    evidence: Mapping[str, Any] = field(default_factory=dict)  # of `evaluation.oof`, for reports
    warnings: tuple[str, ...] = ()  # added to every prediction

    def save(self, folder: Path) -> None:
        """Writes `weights.safetensors`, its graphs, `classifier.json` with the weights' SHA-256, and `evidence.json`."""
        from doctogres.model.storage import save_networks

        folder.mkdir(parents=True, exist_ok=True)
        save_networks(self.networks, folder / WEIGHTS_FILE, size=self.card.patch.patch_size)
        card = self.card.model_copy(update={"weights_sha256": file_digest(folder / WEIGHTS_FILE, length=None)})
        (folder / CARD_FILE).write_text(card.model_dump_json(indent=1), encoding="utf-8")
        (folder / EVIDENCE_FILE).write_text(json.dumps(self.evidence, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto", graphs: bool = False) -> "SlideClassifier":
        """Reads what `save` wrote.

        Args:
            folder: contains the files.
            device: `auto` uses a CUDA device if there is one.
            graphs: on a machine without CUDA, answer with the stored graphs if there are any, without PyTorch; all else that
                can be done with networks needs PyTorch's.

        Raises:
            WeightsError: the weights are not those that were saved.
            UpstreamError: the card was written by another version of doctogres.
        """
        try:
            card = ClassifierCard.model_validate(json.loads((folder / CARD_FILE).read_text(encoding="utf-8")))
        except ValidationError as error:
            field = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise UpstreamError(
                f"{CARD_FILE}: written by another version of doctogres ({field}: {error.errors()[0]['msg']}); "
                "serve the model with its own code (`mlflow models serve`), or train it again"
            ) from error
        if (actual := file_digest(folder / WEIGHTS_FILE, length=None)) != card.weights_sha256:
            raise WeightsError(
                f"{WEIGHTS_FILE}: not the weights that {CARD_FILE} was saved with (SHA-256 {actual[:16]}..., not "
                f"{card.weights_sha256[:16]}...): the file was damaged or changed; download the model again"
            )
        networks: Any = read_graphs(folder / WEIGHTS_FILE, card) if graphs else None
        if networks is None:
            from doctogres.model.storage import load_networks

            networks = load_networks(folder / WEIGHTS_FILE, card, device=device)
        return cls(card, networks, json.loads((folder / EVIDENCE_FILE).read_text(encoding="utf-8")))

    def adjusted(self, *, tta: bool | None = None, min_area: int | None = None) -> Self:
        """The classifier with other settings (None: the model's own); every prediction then carries a warning."""
        card = self.card
        defaults = {"tta": card.answer.tta, "min_area": card.patch.min_area}
        given = {"tta": tta, "min_area": min_area}
        changed = {name: value for name, value in given.items() if value is not None and value != defaults[name]}
        if not changed:
            return self
        changes = ", ".join(f"{name}={value} (the model's own: {defaults[name]})" for name, value in changed.items())
        answer = card.answer.model_copy(update={"tta": changed.get("tta", card.answer.tta)})
        patch = card.patch.model_copy(update={"min_area": changed.get("min_area", card.patch.min_area)})
        return replace(
            self,
            card=card.model_copy(update={"answer": answer, "patch": patch}),
            warnings=(f"{changes}: the model's score, temperature and threshold were measured with its own settings",),
        )

    def classify(self, picture: Picture, mask: npt.NDArray[np.bool_] | None) -> SlideAnswer:
        """The prediction for a slide.

        Args:
            picture: the slide.
            mask: (height, width), true in the lesions; None classifies tiles of the tissue instead.

        Raises:
            NoLesionError: the mask is empty, or there is no tissue.
            DoctogresError: picture and mask differ in size, or the mask has too many regions.
        """
        (answer,) = self.answers([self.cut(picture, mask)])
        assert isinstance(answer, SlideAnswer)  # only errors in the input are returned as errors
        return answer

    def cut(
        self,
        picture: Picture,
        mask: npt.NDArray[np.bool_] | None,
        note: str = "",
        reduced: ReducedPicture | None = None,
    ) -> CutSlide:
        """The patches of a slide; arguments and errors as for `cutting.cut_slide`. Several threads may call it at once."""
        return cut_slide(picture, mask, self.card, note=note, warnings=self.warnings, reduced=reduced)

    def answers(
        self, slides: Iterable[CutSlide | DoctogresError], job: Job | None = None
    ) -> Iterator[SlideAnswer | DoctogresError]:
        """Yields the prediction for each slide in order and passes errors through; holds a few hundred patches at a time.

        Args:
            slides: cut, or what is wrong with them.
            job: the request at a scheduler that it shares with others.

        Raises:
            OverdueError: the job's time is over.
        """
        job = job or Job(Scheduler())
        waiting: list[CutSlide | DoctogresError] = []
        patches = 0
        try:
            for slide in slides:
                waiting.append(slide)
                if isinstance(slide, CutSlide):
                    patches += slide.size
                    job.hold(slide.nbytes)
                if patches >= PATCHES_AT_ONCE:
                    yield from self._answered(waiting, job)
                    waiting, patches = [], 0
            yield from self._answered(waiting, job)
        finally:
            job.hold(-job.held)  # if it ended before the last slides were classified

    def _answered(
        self, slides: Sequence[CutSlide | DoctogresError], job: Job
    ) -> Iterator[SlideAnswer | DoctogresError]:
        cut = [slide for slide in slides if isinstance(slide, CutSlide)]
        answers = self._classified(cut, job) if cut else iter(())
        for slide in slides:
            yield slide if isinstance(slide, DoctogresError) else next(answers)

    def _classified(self, slides: Sequence[CutSlide], job: Job) -> Iterator[SlideAnswer]:
        passed = sum(len(slide.pixels[source.view]) for slide in slides for source in self.card.sources)
        with job.classifying(passed * (len(TURNS) if self.card.answer.tta else 1)):
            outputs = [self._view_outputs(slides, view, job) for view in self.card.views]
        yield from slide_answers(self.card, slides, outputs, adjusted=bool(self.warnings))

    def _view_outputs(self, slides: Sequence[CutSlide], view: str, job: Job) -> ViewOutputs:
        card, regions = self.card, [slide.boxes[view] for slide in slides]
        ends = np.cumsum([len(of_slide) for of_slide in regions])
        rows = np.split(np.arange(ends[-1]), ends[:-1])
        attention = card.answer.aggregation == ATTENTION
        logits, attended, distances = [], [], []
        for source, network in zip(card.sources, self.networks, strict=True):
            if source.view != view:
                continue
            pixels = [slide.pixels[view] for slide in slides]
            together = np.concatenate(pixels) if len(pixels) > 1 else pixels[0]
            outputs = network.outputs(
                together,
                mean=source.architecture.mean,
                std=source.architecture.std,
                tta=card.answer.tta,
                before_pass=job.next_pass,
            )
            logits.append(outputs.logits)
            attended += [outputs.attended(network, rows)] if attention else []
            distances += [outputs.log_distances(network)] if card.novelty else []
        return ViewOutputs(view, logits, rows, np.concatenate(regions)[:, 4], attended, distances)


def make_classifier(
    sources: "Sequence[tuple[Architecture, str, Ensemble]]",
    *,
    recipe: str,
    classes: Iterable[str],
    class_shares: Mapping[str, float],
    patch: PatchSettings,
    answer: AnswerSettings,
    calibration: Calibration,
    region_side: int,
    masks: MaskRange | None = None,
    mpp: float | None = None,
    labels: LabelSets | None = None,
    novelty: NoveltyLimit | None = None,
    group: GroupRule | None = None,
    seen: TrainingRecord,
    evidence: Mapping[str, Any],
) -> SlideClassifier:
    """Builds a classifier from trained networks; the normalisation is each architecture's own.

    Args:
        sources: architecture, view and networks of each source.
        recipe: how they were trained.
        classes: in the order of the networks' outputs.
        class_shares: of the training slides.
        patch: how the patches were cut.
        answer: how their outputs are pooled.
        calibration: temperature and threshold.
        region_side: see `ClassifierCard`.
        masks: the range of the training slides' masks.
        mpp: see `ClassifierCard`.
        labels: which labels an answer holds.
        novelty: the limit, if every source has its Gaussians.
        group: how groups are answered, if they are.
        seen: what the networks were trained on.
        evidence: of `evaluation.oof`.
    """
    names = tuple(classes)
    card = ClassifierCard(
        recipe=recipe,
        sources=tuple(_source_card(*source) for source in sources),
        classes=names,
        class_shares=tuple(class_shares.get(name, 0.0) for name in names),
        patch=patch,
        answer=answer,
        region_side=region_side,
        masks=masks,
        mpp=mpp,
        calibration=calibration,
        labels=labels,
        novelty=novelty,
        group=group,
        seen=seen,
    )
    return SlideClassifier(card, tuple(network for _, _, network in sources), evidence)


def _source_card(architecture: Architecture, view: str, network: "Ensemble") -> SourceCard:
    features = 0
    if network.attention:
        features = int(network.attention[0].norm.normalized_shape[0])  # type: ignore
    elif network.gaussians:
        features = len(network.gaussians[0].mean)  # type: ignore
    return SourceCard(architecture=architecture, view=view, members=len(network.members), features=features)
