"""HTML from templates in the folder of the package that fills them, and texts for Markdown.

Values are escaped, and missing ones are errors.
"""

import re
from collections.abc import Callable, Iterator
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
    return "".join(pieces(package, template, **values))


def pieces(package: str, template: str, **values: Any) -> Iterator[str]:
    """As `page`, piece by piece: a page of many pictures need not be in memory, nor its `values`, which may be iterators."""
    return _templates(package).get_template(template).generate(values)


def part(package: str, template: str, macro: str) -> Callable[..., Markup]:
    """A template's macro as a function of its arguments; its result is `Markup`, so that it is not escaped again."""

    def filled(**values: Any) -> Markup:
        return Markup(getattr(_templates(package).get_template(template).module, macro)(**values))

    return filled


def markdown_code(text: object) -> str:
    """The text as code on one line, also in a table."""
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "\\|") + "`"


def markdown(text: object) -> str:
    """The text on one line for Markdown, with its special characters escaped."""
    return re.sub(r"([\\`*_\[\]<>|~#&!$])", r"\\\1", " ".join(str(text).split()))
