"""What a process may do once it is locked: compute, and answer. Nothing that it runs later can undo it.

Landlock (Linux 5.13) closes the file system: only what is listed can be read, and nothing can be written. A seccomp
filter, an allow-list, closes everything else: no other process, no signal to one, no socket, no chmod or chown.
Limits bound memory, processor time and open files. None of the three needs to be root, and none is a namespace, which
many machines refuse.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every architecture
_ALLOW, _ERRNO, _EQUAL, _MASKED = 0x7FFF0000, 0x00050000, 4, 7  # of libseccomp
_CLONE_THREAD = 0x10000
MIB = 2**20
# What Python, numpy and torch need to compute. Everything else fails with "Operation not permitted", also what kernels
# to come will add. Absent on purpose: fork, execve, socket, kill, tgkill, chmod, chown, utime, truncate, unlink, mkdir,
# memfd_create and shmget (memory beside the limit), ptrace, prctl, io_uring, mount, ioctl.
_CALLS = """read write close fstat newfstatat stat lstat statx lseek mmap mprotect munmap brk mremap madvise
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack pread64 readv writev access faccessat faccessat2 dup getpid
    getppid gettid exit exit_group futex futex_wait futex_wake sched_yield sched_getaffinity getdents64 getcwd readlink
    readlinkat openat open clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getrandom sysinfo
    uname getuid geteuid getgid getegid set_robust_list rseq arch_prctl set_tid_address poll ppoll select pselect6
    statfs fstatfs fadvise64 membarrier getrusage times setitimer getitimer restart_syscall getcpu get_mempolicy
    mincore""".split()


class _Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("access", ctypes.c_uint64), ("fd", ctypes.c_int32)]


def readable() -> list[Path]:
    """Return what a locked process may read: Python, its libraries, the course, but not its reference answers."""
    from course_utils import paths
    from course_utils.exercises import lessons

    package = Path(__file__).resolve().parents[1]
    roots = {Path(sys.prefix), Path(sys.base_prefix), package, paths.DATA, Path("/usr"), Path("/lib"), Path("/lib64")}
    real = sorted({root.resolve() for root in roots if root.exists()})
    kept = [root for root in real if not any(other in root.parents for other in real)]
    hidden = Path(lessons.__file__).resolve().parent
    return [*(part for root in kept for part in _without(root, hidden)), Path("/dev/null"), Path("/dev/urandom")]


def _without(root: Path, hidden: Path) -> list[Path]:
    """Return the parts of a folder that lie beside another one in it; the folder itself if it does not hold that."""
    if root == hidden:
        return []
    if root not in hidden.parents:
        return [root]
    return [part for inner in sorted(root.iterdir()) for part in _without(inner, hidden)]


def lock(memory: int, seconds: float, protected: bool = True) -> str:
    """Lock this process, for good.

    Parameters
    ----------
    memory
        MiB that it may take on top of what it holds.
    seconds
        Of processor time.
    protected
        False: only the limits, where the system knows them.

    Returns
    -------
    str
        What is in force, in one line.

    Raises
    ------
    OSError
        If this machine does not have what it takes; it says what is missing.
    """
    if not protected:
        return f"none but the limits of time{_limits(memory, seconds)}: a submission can read and write what you can"
    if not sys.platform.startswith("linux"):
        raise OSError("only Linux has Landlock and seccomp")
    _die_with_the_grader()
    limits = _limits(memory, seconds)
    if len(os.listdir("/proc/self/task")) > 1:
        raise OSError("a library has started threads, which a lock would not hold")
    version = _close_files(readable())
    _close_calls()
    return (f"Landlock {version} (reads only Python and the course, without its answers; writes nothing) and seccomp "
            f"(no other process, no signal, no network), limits of time{limits}")


def _die_with_the_grader() -> None:
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL


def _limits(memory: int, seconds: float) -> str:
    try:
        import resource
    except ImportError:  # Windows
        return ""
    limits = {"RLIMIT_CPU": int(seconds) + 1, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0, "RLIMIT_NOFILE": 128}
    status = Path("/proc/self/statm")
    if status.exists():  # libraries map gigabytes that they never touch, so the limit counts from here
        now = int(status.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        limits["RLIMIT_AS"] = now + memory * MIB
    for name, most in limits.items():
        resource.setrlimit(getattr(resource, name), (most, most))
    return ", memory, files" if "RLIMIT_AS" in limits else ", files"


def _close_files(allowed: Iterable[Path]) -> int:
    """Forbid all that opens, makes or removes files, but for reading the allowed ones; return Landlock's version."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        raise OSError("this kernel has no Landlock (5.13 or newer, switched on)")
    bits = 13 + (version >= 2) + (version >= 3) + (version >= 5)
    rules = (ctypes.c_uint64 * 3)((1 << bits) - 1, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    ruleset = libc.syscall(_CREATE, rules, ctypes.c_size_t(8 * (1 + (version >= 4) + (version >= 6))), 0)
    for path in allowed:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = _Beneath(_READ_FILE | (_READ_DIR if path.is_dir() else 0), fd)
        if libc.syscall(_ADD, ruleset, 1, ctypes.byref(rule), 0):
            raise OSError(f"Landlock refuses a rule for {path}")
        os.close(fd)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if ruleset < 0 or libc.syscall(_RESTRICT, ruleset, 0):
        raise OSError(f"Landlock does not lock ({os.strerror(ctypes.get_errno())})")
    os.close(ruleset)
    return version


def _close_calls() -> None:
    """Forbid every system call but those of `_CALLS`."""
    try:
        lib = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise OSError("libseccomp.so.2 is missing (Debian: apt install libseccomp2)") from None
    lib.seccomp_init.restype = ctypes.c_void_p
    lib.seccomp_init.argtypes = [ctypes.c_uint32]
    lib.seccomp_load.argtypes = [ctypes.c_void_p]
    add = lib.seccomp_rule_add_array
    add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Compare)]
    rules = lib.seccomp_init(_ERRNO | errno.EPERM)

    def rule(action: int, name: str, *compare: _Compare) -> None:
        number = lib.seccomp_syscall_resolve_name(name.encode())
        # Negative: this architecture, or this libseccomp, does not know the name.
        if number >= 0 and add(rules, action, number, len(compare), (_Compare * len(compare))(*compare)):
            raise OSError(f"seccomp refuses a rule for {name}")

    for name in _CALLS:
        rule(_ALLOW, name)
    for command in (0, 1, 2, 3, 1030):  # copies and flags; F_SETOWN would send signals
        rule(_ALLOW, "fcntl", _Compare(1, _EQUAL, command))
    rule(_ALLOW, "prlimit64", _Compare(0, _EQUAL, 0))  # its own limits, which are hard
    rule(_ALLOW, "clone", _Compare(0, _MASKED, _CLONE_THREAD, _CLONE_THREAD))  # threads, which memory bounds
    rule(_ERRNO | errno.ENOSYS, "clone3")  # whose flags no filter can read; the C library then takes clone
    if lib.seccomp_load(rules):
        raise OSError("this kernel refuses a seccomp filter")
