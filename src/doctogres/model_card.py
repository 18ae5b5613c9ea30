"""The model card: what a person should know before a version answers for slides, in Markdown."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from doctogres.cohort import reason_code, usable
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.metrics import classes_of
from doctogres.evaluation.report import METRICS, NULL_MODELS, PER_CLASS
from doctogres.registry import Verdict
from doctogres.settings import PRESETS, load_preset, sections_of
from doctogres.splits import HOLDOUT

FEW_SLIDES: Final = 10
UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class CardFacts:
    """What the runs behind a model recorded; what they did not is empty."""

    metrics: Mapping[str, Any]  # metrics.json
    predictions: pd.DataFrame  # predictions.csv
    cohort: pd.DataFrame | None  # the cohort table
    classifier: Mapping[str, Any]  # classifier.json
    recipe: Mapping[str, Mapping[str, str]]  # stage -> its logged parameters
    commands: Sequence[str]
    data_digest: str
    origin: Mapping[str, str]  # model, evaluation, commit, version of doctogres


def escaped(text: object) -> str:
    """The text with what Markdown would take for markup made harmless; on one line."""
    return re.sub(r"([\\`*_\[\]<>|~#&!$])", r"\\\1", " ".join(str(text).split()))


def model_card(facts: CardFacts, verdict: Verdict) -> str:
    """The card in Markdown, the most important first, because a description is cut at its end."""
    parts = [
        _headline(facts, verdict),
        "For research use; not a medical device.",
        _section("Known limits", _limits(facts)),
        _section("Scores", _scores(facts)),
        _section("By class", _classes(facts)),
        _section("Calibration", _calibration(facts)),
        _section("Data", _data(facts)),
        _section("Recipe", _recipe(facts)),
        _section("How to make it again", _again(facts)),
    ]
    return "\n\n".join(parts) + "\n"


def _headline(facts: CardFacts, verdict: Verdict) -> str:
    own, null = facts.metrics["metrics"]["macro_f1"], facts.metrics["null"]
    rivals = ", ".join(
        f"{NULL_MODELS[name]} {Estimate.from_dict(null[name]).value:.3f}" for name in null if name in NULL_MODELS
    )
    forced = f"**Promoted by force.** A person made it champion: {escaped(verdict.reason)}.\n\n"
    decided = f"Gate: **{verdict.place}**: {escaped(verdict.reason)}."
    return (
        (forced if verdict.forced else "")
        + f"**Macro-F1 {Estimate.from_dict(own)}** on the {facts.metrics['slides']} slides of the split "
        + f"`{facts.metrics['split']}`; null models: {rivals}."
        + ("" if verdict.forced else f"\n\n{decided}")
    )


def _limits(facts: CardFacts) -> str:
    own = Estimate.from_dict(facts.metrics["metrics"]["macro_f1"])
    labels = facts.predictions["label"].value_counts()
    few = {
        name: int(labels.get(name, 0))
        for name in classes_of(facts.metrics["metrics"])
        if labels.get(name, 0) < FEW_SLIDES
    }
    groups = facts.predictions["group"].nunique()
    lines = [
        f"{facts.metrics['slides']} slides from {groups} groups: the interval of the macro-F1 is "
        f"{own.high - own.low:.2f} wide.",
        f"Fewer than {FEW_SLIDES} of these slides: {_counted(few)}; a class's own scores say little there."
        if few
        else f"Every class has at least {FEW_SLIDES} of these slides.",
        "The intervals say what other slides like these would give. They do not cover another laboratory, scanner or "
        "stain, and the null models show only that something was learned.",
        "It answers by the lesion mask it is given; masks drawn otherwise than the training slides' are not covered.",
    ]
    if facts.classifier.get("calibration"):
        lines.append("Temperature and threshold were chosen on out-of-fold slides, each answered by a network that had "
                     "not seen it, not by the model as a whole.")  # fmt: skip
    return _items(lines)


def _scores(facts: CardFacts) -> str:
    scores = {**facts.metrics["metrics"], **facts.metrics["null"]}
    rows = [(title, Estimate.from_dict(scores[name])) for name, (title, _) in METRICS.items() if name in scores]
    return _table(("metric", "value [95 % interval]"), rows)


def _classes(facts: CardFacts) -> str:
    trained = pd.Series(dtype=int)
    if facts.cohort is not None:
        slides = usable(facts.cohort)
        trained = slides.loc[slides["fold"] != HOLDOUT, "label"].value_counts()
    scored = facts.predictions["label"].value_counts()
    rows = []
    for name in classes_of(facts.metrics["metrics"]):
        scores = [Estimate.from_dict(facts.metrics["metrics"][f"{kind}/{name}"]) for kind in PER_CLASS]
        rows.append((name, trained.get(name, UNKNOWN), scored.get(name, 0), *scores))
    return _table(("class", "training slides", "scored slides", "F1", "recall", "precision"), rows)


def _calibration(facts: CardFacts) -> str:
    found = facts.classifier.get("calibration")
    if not found:
        return "Not calibrated: the probabilities are the network's own, and no slide is answered with `abstained`."
    said = {name: UNKNOWN if value is None else f"{value:.3g}" for name, value in found.items()}
    said["slides"] = str(found["slides"])
    return (
        f"Temperature {said['temperature']} and threshold {said['threshold']}, from {said['slides']} out-of-fold slides "
        f"for a precision of {said['target_precision']}: {said['coverage']} of them get an answer, {said['precision']} of "
        f"these answers are right. Calibration error {said['ece_before']} before, {said['ece_after']} after; log loss "
        f"{said['log_loss_before']} before, {said['log_loss_after']} after."
    )


def _data(facts: CardFacts) -> str:
    lines = [f"Data digest: {facts.data_digest or UNKNOWN}."]
    if facts.cohort is None:
        return _items([*lines, "The cohort table could not be found; its counts are unknown."])
    table = facts.cohort
    outcomes = {name: int(count) for name, count in table["outcome"].value_counts().items()}
    lines.append(f"{len(table)} slides found: {_counted(outcomes)}.")
    reasons = table.loc[table["reason"].fillna("") != "", ["outcome", "reason"]]
    for outcome, rows in reasons.groupby("outcome"):
        codes = rows["reason"].map(reason_code).value_counts()
        lines.append(f"{escaped(outcome)}: {_counted({code: int(count) for code, count in codes.items()})}.")
    slides = usable(table)
    held = int((slides["fold"] == HOLDOUT).sum())
    lines.append(f"{len(slides) - held} slides to train with, {held} held out, in {slides['group'].nunique()} groups.")
    return _items(lines)


def _recipe(facts: CardFacts) -> str:
    settings = {**facts.recipe, "answer": facts.classifier.get("answer", {})}
    lines = [
        f"{stage}: " + ", ".join(f"`{name}` {escaped(value)}" for name, value in sorted(values.items()))
        for stage, values in settings.items()
        if values
    ]
    return _items(lines) if lines else "The runs that made it are not in this store."


def _again(facts: CardFacts) -> str:
    made = ", ".join(f"{name} {escaped(value or UNKNOWN)}" for name, value in facts.origin.items())
    steps = "\n".join(f"    {command}" for command in facts.commands)
    return f"Each command takes the newest result of the one before:\n\n{steps}\n\n{made}." if steps else f"{made}."


def commands(recipe: Mapping[str, Mapping[str, str]], given: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The commands that repeat these stages: `mlflow run . -e STAGE` with every setting that differs from a preset's.

    Args:
        recipe: stage -> its logged parameters, in the order of the stages.
        given: stage -> parameters that are no settings (`data`, `params`), put first.
    """
    presets = {name: load_preset(name) for name in PRESETS}
    differing = {
        name: {stage: _differing(values, preset) for stage, values in recipe.items()}
        for name, preset in presets.items()
    }
    nearest = min(differing, key=lambda name: sum(map(len, differing[name].values())))
    lines = []
    for stage in recipe:
        named = {**given.get(stage, {}), "preset": nearest, **differing[nearest][stage]}
        words = [word for name, value in named.items() for word in ("-P", f"{name}={value}")]
        lines.append(shlex.join(["mlflow", "run", ".", "-e", stage, "--env-manager", "local", *words]))
    return lines


def _differing(values: Mapping[str, str], preset: Any) -> dict[str, str]:
    found = {name: values[name] for name in ("seed", "split") if name in values}
    for name, value in values.items():
        for section in sections_of(name):
            if str(getattr(getattr(preset, section), name)) != value:
                found[name] = value
    return found


def _counted(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{escaped(name)} {count}" for name, count in counts.items())


def _section(heading: str, body: str) -> str:
    return f"### {heading}\n\n{body}"


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: object) -> str:
    return str(cell) if isinstance(cell, Estimate) else escaped(cell)
