"""Copies the files of an answer log to an object store, which cannot append: files that are complete, every five minutes.

Rows are first appended to a folder of this machine, so that none is lost with a killed server or a store that cannot be
reached. A file is complete when no process holds its lock, and removed when the store has it; files of dead workers too.
"""

import logging
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from doctogres.addresses import check_address
from doctogres.files import digest, workspace
from doctogres.locks import lock
from doctogres.remote import opened
from doctogres.serving.answer_log import FOLDER_VARIABLE, AnswerLog

EVERY: Final = 300.0  # seconds
logger: Final = logging.getLogger(__name__)


def copied_log(address: str) -> AnswerLog:
    """An answer log in a folder of the workspace, whose files go to an address of fsspec such as `s3://BUCKET/FOLDER`.

    Raises:
        ParameterError: the address holds a password.
    """
    check_address(FOLDER_VARIABLE, address)
    folder = workspace() / "answers" / digest(address)
    with suppress(OSError):  # of which the log will say that it cannot write there
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = AnswerLog(folder)
    threading.Thread(target=keep_copying, args=(log, address), name="answer copies", daemon=True).start()
    return log


def keep_copying(log: AnswerLog, address: str) -> None:
    """Copies whatever is complete, for as long as the process lives."""
    failing = False
    while True:
        time.sleep(EVERY)
        log.finish_file()
        try:
            copy_complete(log.folder, address)
        except Exception:  # every store has its own errors
            if not failing:
                message = (
                    "%s=%s: answers are kept in %s, but cannot be copied; is the address right, its library installed?"
                )
                logger.exception(message, FOLDER_VARIABLE, address, log.folder)
            failing = True
        else:
            if failing:
                logger.warning("%s: answers are copied again", address)
            failing = False


def copy_complete(folder: Path, address: str) -> None:
    """Moves the complete files of a folder to an address; whatever the store's library raises ends that."""
    store, place = opened(address)
    for path in sorted(folder.glob("answers-*.jsonl")):
        with ExitStack() as held:
            try:
                file = held.enter_context(path.open("rb"))
                lock(file.fileno())
                status = path.stat()
            except (FileNotFoundError, BlockingIOError):  # not complete, or another worker was faster
                continue
            if status.st_size:
                store.put_file(str(path), f"{place}/{path.name}")
            elif time.time() - status.st_mtime < EVERY:
                continue  # its process may be about to lock it
            path.unlink()
