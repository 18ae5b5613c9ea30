"""Tells a machine that is too small, and the failure of a server, a database or a bucket, from a bug. Imports nothing heavy."""

from typing import Final

from doctogres.errors import causes

BUCKET: Final = ("botocore", "boto3", "s3transfer")
DATABASE: Final = ("sqlalchemy", "psycopg")
CONNECTION: Final = (
    "OperationalError",
    "InterfaceError",
)  # as databases' libraries call what is no fault of a statement
AGAIN: Final = "once it answers again, run the same command: it continues from what is kept"
SHORT_OF_MEMORY: Final = (
    "the memory is too small for this step: close other programs, choose a smaller batch_size or patch_size, or use a machine "
    "with more memory"
)
ALLOCATION: Final = ("can't allocate memory", "Insufficient memory", "out of memory")  # of PyTorch, OpenCV and CUDA


def outage(error: BaseException) -> str:
    """What failed, in a sentence; empty where the error is another one."""
    for cause in causes(error):
        library = type(cause).__module__.partition(".")[0]
        reason = " ".join(str(getattr(cause, "orig", None) or cause).split())
        if isinstance(cause, MemoryError) or any(words in reason for words in ALLOCATION):
            return SHORT_OF_MEMORY
        if library == "mlflow" and "API request to" in reason:
            return f"the tracking server failed or refused the request: {reason}; ask its administrator"
        if library in BUCKET:
            return f"the bucket of the tracking store's artifacts failed or refused the request ({reason}); {AGAIN}"
        if library in DATABASE and type(cause).__name__ in CONNECTION:
            return f"the database failed or cannot be reached ({reason}); {AGAIN}"
    return ""
