"""What the run of a training says of it."""

from collections.abc import Sequence

from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.oof import Assessment
from doctogres.report.report import selection_sentence
from doctogres.settings import Preset
from doctogres.training.assessment import START
from doctogres.training.folds import Member
from doctogres.training.probe import single_heads
from doctogres.training.sources import Source


def training_note(
    members: Sequence[Member], sources: Sequence[Source], assessment: Assessment, recipe: Preset, *, second: bool
) -> str:
    """What was trained, its out-of-fold score and how the settings were chosen, in sentences.

    Args:
        members: of every left-out fold and source.
        sources: what the model is made of.
        assessment: the out-of-fold scores and the calibration.
        recipe: the settings of the training.
        second: whether a second model was trained on the hold-out, too.
    """
    macro_f1 = Estimate.from_dict(assessment.evidence["metrics"]["macro_f1"])
    calibration = assessment.calibration
    abstention = (
        f"{calibration.coverage:.0%} of the slides reach the confidence threshold of {calibration.threshold:.2f}, "
        f"and {calibration.precision:.0%} of those predictions are correct"
        if calibration.precision is not None and calibration.coverage is not None
        else f"no threshold reaches a precision of {calibration.target_precision:.0%}, so the model abstains on every slide"
    )
    how = _probed(sources, recipe) if recipe.train.recipe == "probe" else _fine_tuned(members, recipe, assessment)
    selected = f" {text}" if (text := selection_sentence(assessment.evidence["study"])) else ""
    final = " A second model was trained on the hold-out, too, and cannot be evaluated on it." if second else ""
    return (
        f"{how} Out-of-fold macro-F1 on {assessment.evidence['slides']} slides: {macro_f1} (the hold-out was not "
        f"used).{selected} Temperature {calibration.temperature:.2f}; {abstention}. {_of_groups(assessment)}{final}"
    )


def gain_over_probe(less: Estimate) -> str:
    """What fine-tuning changed, in a sentence.

    Args:
        less: macro-F1 of the probe that the network started from minus that of the network, on the same slides.
    """
    more = Estimate(-less.value, -less.high, -less.low)
    if more.low > 0:
        change = f"raised macro-F1 by {more}"
    elif less.low > 0:
        change = f"lowered macro-F1 by {less}"
    else:
        change = f"made no difference in macro-F1 that these slides show: {more}"
    return f"Compared with the probe it started from, fine-tuning {change}."


def _of_groups(assessment: Assessment) -> str:
    chosen = assessment.evidence["group_answer"]
    return f"One answer for all slides of a group: {chosen['method']} ({chosen['reason']})."


def _probed(sources: Sequence[Source], recipe: Preset) -> str:
    names = {"logistic": "logistic regression", "lda": "linear discriminant analysis"}
    head = " and ".join(names[single.head] for single in single_heads(recipe.train))
    named = ", ".join(map(str, sources))
    return f"Fitted {head} to the frozen features of {named}, with every fold left out in turn and then to all of them."


def _fine_tuned(members: Sequence[Member], recipe: Preset, assessment: Assessment) -> str:
    trained = [(member.split, member.trained) for member in members if member.trained]
    one_class = [split.name for split, network in trained if network.single_class]
    warning = (
        f" Warning: the network for {', '.join(one_class)} predicts the same class for every slide; "
        "check the class balance and the learning rate."
        if one_class
        else ""
    )
    epochs = ", ".join(f"{network.best.epoch} ({split.name})" for split, network in trained)
    count = len(trained)
    kept = "all networks as one model" if recipe.train.ensemble else "the first network"
    start = next((row for row in assessment.evidence["aggregations"] if row["name"] == START), None)
    less = start["difference"] if start else None
    gain = f" {gain_over_probe(Estimate.from_dict(less))}" if less else ""
    return (
        f"Trained {recipe.train.backbone} with {count} {'network' if count == 1 else 'networks'}, one per left-out fold, and kept "
        f"{kept}; the best epochs were {epochs} (chosen on the left-out folds).{gain}{warning}"
    )
