"""`mlflow run . -e register`: registers an evaluated model as a new version."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("register")
def command(*, dry_run: bool, rerun: bool, **parameters: Any) -> "StageResult | None":
    from doctogres.stages.candidate import candidate_of
    from doctogres.stages.register import foretell, register

    candidate = candidate_of(**parameters, dry_run=dry_run)
    if not dry_run:
        return register(candidate, rerun=rerun)
    print(f"register: dry run: {foretell(candidate)}", flush=True)
    return None


if __name__ == "__main__":
    command()
