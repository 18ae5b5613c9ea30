"""The server's sentences for readers who have a page and no terminal: files by their names, no settings, no commands."""

import re
from typing import Final

from doctogres.app.uploads import Pair
from doctogres.serving.client import OtherServerError, RefusedError, ServerError, SlowServerError

REMEDIES: Final = (  # of an operator, and a reader's
    (
        re.compile(r"raise the environment variable \w+( if the machine has the memory)?"),
        "ask the person who looks after the server to raise the limit",
    ),
    (re.compile(r"say which are lesions with annotations=.*"), "export only those that are lesions"),
    (re.compile(r", or choose others with annotations="), ""),
    (re.compile(r", for example: vips .*"), ""),
)
CARETAKER: Final = "the person who looks after it"
BUSY, TOO_SLOW, TOO_LARGE = (429, 502, 503), 504, 413  # HTTP statuses


def plain(sentence: str, pair: Pair) -> str:
    """A sentence of the model about a slide, which calls its files `NAME (image)` and `NAME (mask)`."""
    name = sent_name(pair)
    for of_operator, of_reader in REMEDIES:
        sentence = of_operator.sub(of_reader, sentence)
    sentence = sentence.removeprefix(f"{name}: ").replace(f"{name} (image)", pair.title)
    return sentence.replace(f"{name} (mask)", pair.mask.name if pair.mask else "the mask")


def sent_name(pair: Pair) -> str:
    """The slide's name as the server accepts it."""
    return "".join(letter if letter.isprintable() else "_" for letter in pair.slide_id)[:200]


def refused(error: RefusedError, pair: Pair) -> str:
    """Why the server did not classify this slide.

    Raises:
        RefusedError: the reason is not the slide, so that the others would be refused, too.
    """
    if error.status in (*BUSY, TOO_SLOW):
        raise error
    if error.status == TOO_LARGE:
        return "the files of this slide are larger than the server accepts; save them smaller, for example as JPEG"
    if error.status == 400:
        return plain(error.sentence, pair)
    return f"the server failed on this slide; tell {CARETAKER}"


def unavailable(error: ServerError, url: str) -> str:
    """Why the server classifies no slide at present."""
    if isinstance(error, SlowServerError) or (isinstance(error, RefusedError) and error.status == TOO_SLOW):
        return f"The server takes too long to answer. Press Classify again; if that does not help, tell {CARETAKER}."
    if isinstance(error, OtherServerError):
        return f"The program at {url} is not the model. Tell the person who looks after this page."
    if isinstance(error, RefusedError):
        return "The server is busy or restarting. Wait a minute, then press Classify again."
    return f"The server at {url} does not answer. Ask {CARETAKER} to start it, then press Classify again."
