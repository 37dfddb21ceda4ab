"""What the system refuses (a full disk, a folder that has gone, a disk that may only be read) in one line for people."""

from __future__ import annotations

import errno

REMEDIES = {
    errno.ENOSPC: "free some space (`adapterprobe cache prune --unfinished` may help) and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EFBIG: "the file system or a limit of this account allows no larger file; choose another folder and run it again",
    errno.ENOENT: "it was removed or renamed meanwhile; run the same command again",
    errno.ENOTDIR: "a file stands where a folder is expected; choose another path",
    errno.EISDIR: "a folder stands where a file is expected; choose another path",
    errno.EROFS: "this disk can only be read; choose another --out, or set ADAPTERPROBE_CACHE",
    errno.EACCES: "this account may not do that; choose another --out, or set ADAPTERPROBE_CACHE",
    errno.EPERM: "this account may not do that; choose another --out, or set ADAPTERPROBE_CACHE",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTEMPTY: "something else writes there too; choose another --out, or run the same command again",
    errno.EIO: "check the disk, then run the same command again",
}


def is_storage_error(error: BaseException) -> bool:
    """Whether files or folders are what failed: errors of the system, and those of libraries that wrap them."""
    return isinstance(error, OSError) or type(error).__name__ == "SafetensorError"


def told(error: BaseException) -> str:
    """The error as one line: what could not be done, with which file, and what to do; what was finished is kept."""
    if not isinstance(error, OSError):
        text = str(error)
        number = next((code for code in REMEDIES if f"code: {code}," in text), None)
        remedy = REMEDIES.get(number or 0, "check the file and the space on the disk, then run the same command again")
        return f"cannot read or write a file of tensors ({text[:160]}); what was finished is kept; {remedy}"
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    where = " and ".join(names) or "a file"
    remedy = REMEDIES.get(error.errno or 0, "check the path and the space on the disk, then run the same command again")
    return f"cannot read or write {where} ({error.strerror or error}); what was finished is kept; {remedy}"
