"""HTML from templates, which lie beside the code that fills them: what is put in is escaped, and has to be there."""

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
    """A template of a package of ours, filled in; text in `values` is escaped unless it is `Markup` already."""
    return _templates(package).get_template(template).render(values)


def part(package: str, template: str, macro: str) -> Callable[..., Markup]:
    """The macro of a template as a function of its arguments: a part of a page, which is not escaped again."""

    def filled(**values: Any) -> Markup:
        return Markup(getattr(_templates(package).get_template(template).module, macro)(**values))

    return filled
