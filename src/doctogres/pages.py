"""HTML from templates in the folder of the package that fills them; values are escaped, and missing ones are errors."""

from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@cache
def _templates(package: str) -> Environment:
    return Environment(
        loader=PackageLoader(package),  # its folder `templates`
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def page(package: str, template: str, **values: Any) -> str:
    """Renders a template of one of our packages; text in `values` is escaped unless it is already `Markup`."""
    return _templates(package).get_template(template).render(values)


def part(package: str, template: str, macro: str) -> Callable[..., Markup]:
    """A template's macro as a function of its arguments; its result is `Markup`, so that it is not escaped again."""

    def filled(**values: Any) -> Markup:
        return Markup(getattr(_templates(package).get_template(template).module, macro)(**values))

    return filled
