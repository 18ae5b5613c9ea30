"""The model card in Markdown: what to know before using a version."""

from collections.abc import Iterable, Mapping, Sequence
from textwrap import indent
from typing import Any, Final

import pandas as pd

from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.metrics import PER_CLASS
from doctogres.evaluation.null_models import NULL_MODELS
from doctogres.pages import markdown
from doctogres.registry.gate import GateDecision
from doctogres.registry.lineage import CardFacts
from doctogres.report.report import METRICS
from doctogres.slides.reasons import Reason
from doctogres.slides.splits import HOLDOUT

FEW_SLIDES: Final = 10
UNKNOWN: Final = "unknown"


def model_card(facts: CardFacts, decision: GateDecision) -> str:
    """The card in Markdown, most important first: a list of versions shows its beginning, unformatted, and cuts its end."""
    parts = [
        _headline(facts, decision),
        "For research use; not a medical device.",
        _section("Known limits", _limits(facts)),
        _section("Scores", _scores(facts)),
        _section("By class", _classes(facts)),
        _section("Calibration", _calibration(facts)),
        _section("Data", _data(facts)),
        _section("How to reproduce it", _again(facts)),
        _section("Recipe", _recipe(facts)),
    ]
    return "\n\n".join(parts) + "\n"


def _headline(facts: CardFacts, decision: GateDecision) -> str:
    scores = facts.scores
    rivals = ", ".join(f"{NULL_MODELS[name]} {null.value:.3f}" for name, null in scores.null.items())
    forced = f"Promoted by force. A user made it champion: {markdown(decision.reason)}.\n\n"
    decided = f"Gate: {decision.place}: {markdown(decision.reason)}."
    return (
        (forced if decision.forced else "")
        + f"Macro-F1 {scores.metrics['macro_f1']} on {scores.slides} slides of the split "
        + f"`{scores.split}`; null models: {rivals}."
        + ("" if decision.forced else f"\n\n{decided}")
    )


def _limits(facts: CardFacts) -> str:
    macro_f1 = facts.scores.metrics["macro_f1"]
    labels = facts.slides["label"].value_counts()
    few = {name: int(labels.get(name, 0)) for name in facts.scores.classes if labels.get(name, 0) < FEW_SLIDES}
    groups = facts.slides["group"].nunique()
    lines = [
        f"{facts.scores.slides} slides from {groups} groups: the interval of the macro-F1 is "
        f"{macro_f1.high - macro_f1.low:.2f} wide.",
        f"Classes with fewer than {FEW_SLIDES} of these slides: {_counted(few)}; their scores are unreliable."
        if few
        else f"Every class has at least {FEW_SLIDES} of these slides.",
        "The intervals cover other slides of this kind, not another laboratory, scanner or stain. Beating the null "
        "models only shows that something was learned.",
        "The model relies on the lesion mask; the scores do not cover masks drawn differently from the training masks.",
    ]
    lines.append(_novelty(facts.classifier.get("novelty")))
    if facts.classifier.get("calibration"):
        lines.append("Temperature and threshold were fitted on out-of-fold predictions of single networks, "
                     "not of the whole model.")  # fmt: skip
    return _items(lines)


def _novelty(limit: Mapping[str, Any] | None) -> str:
    if not limit:
        return "The model cannot recognise slides that are unlike its training slides."
    few = "; too few groups for that share, so the limit is the highest distance" if limit["highest"] else ""
    return (
        f"The model abstains on slides that are unlike its training slides. The limit is set so that {limit['level']:.0%} of "
        f"slides like these count as familiar; it was estimated from {limit['distances']} distances of slides of {limit['groups']} "
        f"groups, each measured by a training without the slide's group{few}."
    )


def _scores(facts: CardFacts) -> str:
    scores = facts.scores.metrics | facts.scores.null
    rows = [(title, scores[name]) for name, (title, _) in METRICS.items() if name in scores]
    return _table(("metric", "value [95 % interval]"), rows)


def _classes(facts: CardFacts) -> str:
    trained = pd.Series(dtype=int)
    if facts.cohort is not None:
        slides = facts.cohort.usable
        trained = slides.loc[slides["fold"] != HOLDOUT, "label"].value_counts()
    scored = facts.slides["label"].value_counts()
    rows = []
    for name in facts.scores.classes:
        scores = [facts.scores.metrics[f"{kind}/{name}"] for kind in PER_CLASS]
        rows.append((name, trained.get(name, UNKNOWN), scored.get(name, 0), *scores))
    return _table(("class", "training slides", "evaluated slides", "F1", "recall", "precision"), rows)


def _calibration(facts: CardFacts) -> str:
    calibration = facts.classifier.get("calibration")
    if not calibration:
        return "Not calibrated: the probabilities come straight from the networks, and the model never abstains."
    values = {name: UNKNOWN if value is None else f"{value:.3f}" for name, value in calibration.items()}
    values["slides"] = str(calibration["slides"])
    values["temperature"] = f"{calibration['temperature']:.2f}"
    return (
        f"Temperature {values['temperature']} and threshold {values['threshold']}, fitted on {values['slides']} out-of-fold slides "
        f"for a target precision of {values['target_precision']}: coverage {values['coverage']}, precision "
        f"{values['precision']}. Calibration error (ECE) {values['ece_before']} before, {values['ece_after']} after temperature "
        f"scaling; log loss {values['log_loss_before']} before, {values['log_loss_after']} after."
    )


def _data(facts: CardFacts) -> str:
    lines = [f"Data digest: {facts.data_digest or UNKNOWN}."]
    if facts.cohort is None:
        return _items([*lines, "The cohort table could not be found, so its counts are unknown."])
    table = facts.cohort.rows
    outcomes = {name: int(count) for name, count in table["outcome"].value_counts().items()}
    lines.append(f"{len(table)} slides found: {_counted(outcomes)}.")
    reasons = table.loc[table["reason"].fillna("") != "", ["outcome", "reason"]]
    for outcome, rows in reasons.groupby("outcome"):
        codes = rows["reason"].map(Reason.of).value_counts()
        lines.append(f"{markdown(outcome)}: {_counted({code: int(count) for code, count in codes.items()})}.")
    slides = facts.cohort.usable
    held = int((slides["fold"] == HOLDOUT).sum())
    lines.append(f"{len(slides) - held} slides for training, {held} held out, in {slides['group'].nunique()} groups.")
    return _items(lines)


def _recipe(facts: CardFacts) -> str:
    settings = {**facts.recipe, "answer": facts.classifier.get("answer", {})}
    lines = [
        f"{stage}: " + ", ".join(f"`{name}` {markdown(value)}" for name, value in sorted(values.items()))
        for stage, values in settings.items()
        if values
    ]
    return _items(lines) if lines else "The runs that produced this model are not in this tracking store."


def _again(facts: CardFacts) -> str:
    made = ", ".join(f"{name} {markdown(value or UNKNOWN)}" for name, value in facts.origin.items())
    steps = indent("\n".join(facts.commands), "    ")
    return f"Each command uses the newest result of the previous one:\n\n{steps}\n\n{made}." if steps else f"{made}."


def _counted(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{markdown(name)} {count}" for name, count in counts.items())


def _section(heading: str, body: str) -> str:
    return f"### {heading}\n\n{body}"


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: object) -> str:
    return str(cell) if isinstance(cell, Estimate) else markdown(cell)
