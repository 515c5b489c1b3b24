"""Tells failures of a photograph from those of the machine (disk, memory, GPU), which may be over at the next try."""

import errno
from collections.abc import Iterator

import torch

# Of the disk, of permissions and of what a process may have. EINVAL is not among them: decoders get it from the wrong
# offsets of a damaged file.
OF_THE_MACHINE = {
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "EACCES", "EPERM", "EBUSY", "ENOENT", "EISDIR", "ENOTDIR"),
        *("EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "ESTALE", "ETIMEDOUT", "ENOTCONN", "EREMOTEIO"),
    )
    if hasattr(errno, name)
}
# What PyTorch raises on the CPU, where `torch.OutOfMemoryError` is of GPUs alone (c10/core/impl/alloc_cpu.cpp).
LOST = ("cuda error", "hip error", "cudnn_status", "cublas_status", "cudnn error")  # a GPU, and all that comes after
NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "cannot allocate memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the GPU or the computer ran out of memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in NO_MEMORY)


def of_the_machine(error: BaseException) -> bool:
    """Whether an error, or one that caused it, comes from the machine: no space, permission, memory or GPU.

    Such a failure may be over at the next try; a damaged file stays damaged.
    """
    return any(
        out_of_memory(one)
        or isinstance(one, OSError)
        and one.errno in OF_THE_MACHINE
        or isinstance(one, RuntimeError)
        and any(words in str(one).lower() for words in LOST)
        for one in causes(error)
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and then the errors that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def in_one_line(error: BaseException) -> str:
    """The message of an error in one line, with the name of its class where the message would not explain itself."""
    told = " ".join(str(error).split())
    if isinstance(error, (ValueError, OSError, RuntimeError)) and told:
        return told
    return f"{type(error).__name__}: {told}" if told else type(error).__name__
