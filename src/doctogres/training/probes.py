"""The probes of a training run: a head for every left-out fold, and the last one fitted on all folds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from doctogres.evaluation.metrics import macro_f1
from doctogres.files import workspace
from doctogres.model.attention import GatedAttention
from doctogres.model.ensemble import Ensemble
from doctogres.model.fusion import JOINED
from doctogres.model.novelty import FeatureGaussian
from doctogres.progress import counted, place
from doctogres.settings import ATTENTION, Preset, TrainSettings
from doctogres.training.folds import FEATURES, LeftOutFold, Member, Parts, reporting
from doctogres.training.gaussian import fit_gaussian
from doctogres.training.left_out import NOTHING, LeftOutPredictions, fit_attention, rows_by_slide, slides_in_order
from doctogres.training.part import Rows
from doctogres.training.probe import HeadRows, LinearHead, fit_head, single_heads
from doctogres.training.probe_features import ProbeFeatures
from doctogres.training.sources import Source


@dataclass(frozen=True)
class ProbeSources:
    """The features of every source for the same slides, and what the heads are fitted to."""

    recipe: Preset
    seed: int
    classes: int
    parts: Parts
    features: dict[Source, ProbeFeatures]

    @classmethod
    def load(
        cls,
        recipe: Preset,
        parts: Parts,
        sources: Sequence[Source],
        seed: int,
        *,
        holdout: bool = False,
        known: dict[Source, ProbeFeatures] | None = None,
    ) -> "ProbeSources":
        """Computes the features of all slides, or reads them from the cache.

        Args:
            recipe: the settings of the training.
            parts: the patches of every view.
            sources: what the model is made of.
            seed: of random weights and of the attention heads.
            holdout: with the hold-out.
            known: features that were loaded before, which is filled.
        """
        known = {} if known is None else known
        classes = len(next(iter(parts.values())).classes)

        def features(source: Source) -> ProbeFeatures:
            part = parts[source.view]
            return ProbeFeatures(
                source,
                part.samples,
                part.row_sets(holdout=holdout),
                classes=classes,
                settings=recipe.train,
                seed=seed,
                folder=workspace() / FEATURES,
                progress=reporting,
            )

        for source in sources:
            if source not in known:
                known[source] = features(source)
        return cls(recipe, seed, classes, parts, {source: known[source] for source in sources})

    def compute(self) -> None:
        """Computes the features that are not cached yet; several processes, all of which must call it, share the patches."""
        for number, (source, features) in enumerate(self.features.items(), 1):
            with place(f"source {number} of {len(self.features)} ({source})" if len(self.features) > 1 else ""):
                features.turned  # noqa: B018  # a cached property

    def heads(self, rows: dict[Source, Rows]) -> dict[Source, LinearHead]:
        """The head of every source, fitted to the slides of these rows; with `fusion=features`, the parts of one head.

        Discriminant analysis sees a slide as the mean of its patches' features, regression sees the patches; joined features
        are always those of slides. Every slide counts the same, and patches count by their area if `aggregation` weights them.
        """
        if self.recipe.answer.fusion == JOINED:
            return self._joined(rows)
        singles = single_heads(self.recipe.train)
        return {
            source: LinearHead.mean(
                [fit_head(self._rows(single, source, of_source), self.classes, single) for single in singles]
            )
            for source, of_source in rows.items()
        }

    def _joined(self, rows: dict[Source, Rows]) -> dict[Source, LinearHead]:
        slides = [self._slides(source, of_source) for source, of_source in rows.items()]
        features = np.concatenate([of_source.features for of_source in slides], axis=1)
        head = fit_head(replace(slides[0], features=features), self.classes, self.recipe.train)
        return dict(zip(rows, head.split([of_source.features.shape[1] for of_source in slides]), strict=True))

    def _rows(self, settings: TrainSettings, source: Source, rows: Rows) -> HeadRows:
        return self._slides(source, rows) if settings.head == "lda" else self._patches(source, rows)

    def _patches(self, source: Source, rows: Rows) -> HeadRows:
        """The patches of these rows; the weights of a slide's patches have the same sum for every slide."""
        features, part = self.features[source], self.parts[source.view]
        _, slides = np.unique(part.samples.slide_ids[rows], return_inverse=True)
        areas = part.samples.areas[rows] if self.recipe.answer.aggregation == "area_mean" else np.ones(len(rows))
        weights = areas / np.bincount(slides, areas)[slides]
        return HeadRows(
            features.turned[features.positions(rows)].astype(np.float64),
            part.samples.targets[rows],
            part.patches.table["group"].to_numpy(str)[rows],
            weights / weights.mean(),
        )

    def _slides(self, source: Source, rows: Rows) -> HeadRows:
        """The slides of these rows, in order, with the mean features of their patches."""
        patches, slide_ids = self._patches(source, rows), self.parts[source.view].samples.slide_ids[rows]
        _, first, slides = np.unique(slide_ids, return_index=True, return_inverse=True)
        sums = np.zeros((len(first), patches.features.shape[1]))
        np.add.at(sums, slides, patches.features * patches.weights[:, None])
        means = sums / np.bincount(slides, patches.weights)[:, None]
        return HeadRows.equal(means, patches.targets[first], patches.groups[first])

    def attention(self, source: Source, rows: Rows) -> GatedAttention:
        """An attention head of this source, trained on these rows."""
        features, samples = self.features[source], self.parts[source.view].samples
        of_rows = torch.from_numpy(features.turned[features.positions(rows)])
        return fit_attention(of_rows, samples, rows, classes=self.classes, seed=self.seed)

    def gaussian(self, source: Source, rows: Rows) -> FeatureGaussian:
        """That of these rows' features."""
        features = self.features[source]
        return fit_gaussian(features.plain[features.positions(rows)])

    def predictions(
        self, fold: LeftOutFold, head: LinearHead, *, attention: bool, distances: bool
    ) -> LeftOutPredictions:
        """Of the probe with this head for the left-out fold.

        Args:
            fold: what it was trained on, and what is left out.
            head: fitted to the fold's training rows.
            attention: also train an attention head on them.
            distances: also measure how far the left-out patches are from them.
        """
        source, features = fold.source, self.features[fold.source]
        samples, positions = self.parts[source.view].samples, features.positions(fold.left_out)
        slide_ids = samples.slide_ids[fold.left_out]
        gaussian = self.gaussian(source, fold.train) if distances else None
        attended, gate = [NOTHING, NOTHING], None
        if attention:
            gate = self.attention(source, fold.train)
            rows = rows_by_slide(slide_ids, slides_in_order(slide_ids))
            by_turn = [_attended(gate, turn[positions], rows) for turn in features.turns]
            attended = [by_turn[0], np.mean(by_turn, axis=0)]
        return LeftOutPredictions(
            slide_ids=slide_ids,
            areas=samples.areas[fold.left_out],
            plain=head.logits(features.plain[positions].astype(np.float64)),
            turned=head.logits(features.turned[positions].astype(np.float64)),
            start=NOTHING,
            attended=attended[0],
            attended_turned=attended[1],
            head=gate,
            log_distances=gaussian.log_distances(features.plain[positions]) if gaussian else NOTHING,
            gaussian=gaussian,
            seconds=features.seconds if attention else (0.0, 0.0),
        )

    def members(
        self, folds: Sequence[dict[Source, LeftOutFold]], *, attention: bool = True, distances: bool = True
    ) -> list[Member]:
        """The probes of these splits, fitted without the left-out fold."""
        members = []
        for split in counted(folds, "heads", "folds", len(folds)) if len(folds) > 1 else folds:
            heads = self.heads({source: fold.train for source, fold in split.items()})
            members += [
                Member(fold, self.predictions(fold, heads[source], attention=attention, distances=distances))
                for source, fold in split.items()
            ]
        return members

    def kept(self, *, holdout: bool = False) -> list[tuple[Source, Ensemble]]:
        """The networks of the model: every source with a head fitted to all slides.

        Args:
            holdout: fit it to the hold-out, too.
        """
        rows = {source: self.parts[source.view].all_rows(holdout=holdout) for source in self.features}
        heads = self.heads(rows)
        kept = []
        for source, head in heads.items():
            network = self.features[source].new_network().eval()
            head.put_into(network, source.backbone)
            gates = [self.attention(source, rows[source])] if self.recipe.answer.aggregation == ATTENTION else []
            kept.append((source, Ensemble([network], gates, [self.gaussian(source, rows[source])])))
        return kept


def _attended(
    gate: GatedAttention, features: npt.NDArray[np.float32], rows: Sequence[npt.NDArray[np.int64]]
) -> npt.NDArray[np.float64]:
    values = torch.from_numpy(features)
    return np.stack([gate.of_slide(values[of_slide]).numpy() for of_slide in rows])


def fits(members: Sequence[Member], parts: Parts) -> pd.DataFrame:
    """A row per fit that left a fold out: source, repeat, left_out, training_patches, left_out_patches, patch_macro_f1."""
    rows = []
    for member in members:
        part, fold = parts[member.split.source.view], member.split
        predicted = member.predictions.turned.argmax(axis=1)
        score = macro_f1(part.samples.targets[fold.left_out], predicted, len(part.classes))
        rows.append({
            "source": str(fold.source), "repeat": fold.repeat, "left_out": fold.fold,
            "training_patches": len(fold.train), "left_out_patches": len(fold.left_out), "patch_macro_f1": score,
        })  # fmt: skip
    return pd.DataFrame(rows)
