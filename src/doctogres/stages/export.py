"""export: a model's networks for other programs, as one file and its configuration."""

from pathlib import Path

from doctogres.errors import ParameterError
from doctogres.remote import send
from doctogres.serving.loading import classifier_json
from doctogres.slides.resolution import parsed_mpp
from doctogres.tracking.datasets import log_model_input
from doctogres.tracking.places import fetch
from doctogres.tracking.runs import StageResult, StageRun, run_stage
from doctogres.tracking.upstream import find_model, fixed_address, model_digest


def export(*, model: str, format: str, mpp: str = "", output: str = "", rerun: bool = False) -> StageResult:
    """Writes what QuPath's WSInfer extension or an ONNX runtime reads; `output` is a folder or address for copies.

    Raises:
        ParameterError: the model cannot be expressed so, or `mpp` is no such number, or missing for a model that was trained
            on slides of unknown resolution.
    """
    address = fixed_address(find_model(model))
    microns = _microns(mpp, classifier_json(address).get("mpp"))

    def body(run: StageRun) -> None:
        from doctogres.model.exported import CONFIG, FILES, check_expressible, export_network, write_configuration
        from doctogres.serving.loading import load_classifier

        classifier = load_classifier(address)
        check_expressible(classifier.card, model)
        log_model_input(address)
        network = run.attach(f"{format}/{FILES[format]}")
        print("export: converting the networks, and comparing them with the model", flush=True)
        worst = export_network(classifier, format, network.parent)
        write_configuration(classifier.card, network.parent, mpp=microns)
        run.attach(f"{format}/README.md").write_text(_readme(address, classifier.card.classes), encoding="utf-8")
        run.artifacts |= {
            "network": f"runs:/{run.run_id}/{format}/{FILES[format]}",
            "config": f"runs:/{run.run_id}/{format}/{CONFIG}",
        }
        run.log_metrics({"largest_difference": worst})
        run.name(format)
        run.note(
            f"{address} as {format}: the probabilities of patches differ from the model's by {worst:.0e} at most. Pooling to slides, "
            "calibration, novelty and abstention are not part of it."
        )

    result = run_stage(
        "export",
        body,
        settings={"format": format, "mpp": microns},
        inputs={"model": model_digest(address)},
        rerun=rerun,
    )
    if output:
        _copy(result, f"{output.rstrip('/')}/{format}")
    return result


def _microns(text: str, of_model: float | None) -> float:
    """The microns per pixel that are given, else those of the model."""
    value = parsed_mpp(text) if text else of_model
    if value is None:
        raise ParameterError(
            f"mpp={text}: give the microns per pixel of the slides that the model was trained on, for example mpp=0.5; "
            "programs that read the export cut patches at this resolution"
        )
    return value


def _readme(address: str, classes: tuple[str, ...]) -> str:
    return (
        f"# {address}\n\nExported by doctogres. Classes of a patch: {', '.join(classes)}.\n\n"
        "These are probabilities of single patches. The model's answers for slides, their calibration, its novelty check and the\n"
        "slides of which it is not sure need doctogres itself. Not a medical device.\n"
    )


def _copy(result: StageResult, folder: str) -> None:
    found = fetch(result.artifacts["network"].rpartition("/")[0])
    for path in filter(Path.is_file, found.rglob("*")):
        send(path, f"{folder}/{path.relative_to(found).as_posix()}")
    print(f"export: {folder}", flush=True)
