"""A lock on an open file, which the system ends with its process; not every system and file system has it."""

import errno

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(file: int, *, wait: bool = False) -> None:
    """Locks a file for this process until it is closed.

    Args:
        file: its descriptor.
        wait: for another process to end its own lock.

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
        OSError: there are no such locks here.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "this system has no locks that end with their process")
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
