"""An estimate as a field of a JSON file, where undefined numbers are null."""

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from doctogres.evaluation.bootstrap import Estimate


def _defined(value: Any) -> Any:
    """An estimate from JSON, where undefined numbers are null."""
    return (
        {name: math.nan if number is None else number for name, number in value.items()}
        if isinstance(value, dict)
        else value
    )


StoredEstimate = Annotated[Estimate, BeforeValidator(_defined), PlainSerializer(Estimate.to_dict)]
