"""seccomp: system calls that no worker needs, and those by which one would get out of its box.

A filter in the kernel's own small language (classic BPF) refuses them with EPERM. What Landlock
governs (files, programs, TCP ports) is left to it. Nothing can take the filter back, and what the
worker starts inherits it. Calls without conditions cost nothing: the kernel remembers the answer.
"""

import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable
from ctypes import Structure, byref, c_char_p, c_ushort

from . import native
from .confinement import Confinement

__all__ = ["is_supported", "program", "restrict"]

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_PR_SET_PDEATHSIG = 1
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE = 0, 4  # where the kernel's record has them
_X32 = 0x40000000
_CLONE_THREAD, _NEW_NAMESPACES = 0x00010000, 0x7E020080
_AF_INET, _AF_INET6 = 2, 10
_STREAM, _DATAGRAM, _RAW, _TYPE_MASK = 1, 2, 3, 0xF
_TCP, _UDP = 6, 17
_FAST_OPEN = 0x20000000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_REQUESTS = (
    _TIOCSTI, _TIOCLINUX,  # type into the terminal that the host runs in
    0x8901, 0x8902,  # FIOSETOWN, SIOCSPGRP: signals to another process
    0x40086602, 0x401C5820, 0x40087602, 0x40806685,  # attributes, version, verity of a file
)  # fmt: skip
_CONTROLS = (
    8, 10, 15,  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to another process
    1024,  # F_SETLEASE: a process that opens the file to write waits up to 45 s
    1026,  # F_NOTIFY: signals of what others do in a folder
)  # fmt: skip
_LAST = 469
"""The newest system call that was looked at (Linux 6.18); what is newer does not exist here."""


def _numbers(text: str) -> dict[str, int]:
    return {name: int(number) for name, _, number in (word.partition("=") for word in text.split())}


_BOTH = _numbers("""
pidfd_send_signal=424 io_uring_setup=425 io_uring_enter=426 io_uring_register=427 open_tree=428
move_mount=429 fsopen=430 fsconfig=431 fsmount=432 fspick=433 pidfd_open=434 clone3=435
pidfd_getfd=438 process_madvise=440 mount_setattr=442 quotactl_fd=443 memfd_secret=447
process_mrelease=448 set_mempolicy_home_node=450 statmount=457 listmount=458
lsm_set_self_attr=460 open_tree_attr=467 fchmodat2=452 setxattrat=463 removexattrat=466
file_setattr=469
""")
_X86_64 = _BOTH | _numbers("""
ptrace=101 process_vm_readv=310 process_vm_writev=311 kcmp=312 mount=165 umount2=166 pivot_root=155
chroot=161 swapon=167 swapoff=168 reboot=169 kexec_load=246 kexec_file_load=320 init_module=175
finit_module=313 delete_module=176 bpf=321 perf_event_open=298 add_key=248 request_key=249
keyctl=250 userfaultfd=323 unshare=272 setns=308 personality=135 acct=163 quotactl=179
settimeofday=164 clock_settime=227 clock_adjtime=305 adjtimex=159 sethostname=170
setdomainname=171 iopl=172 ioperm=173 modify_ldt=154 name_to_handle_at=303 open_by_handle_at=304
vhangup=153 syslog=103 uselib=134 ustat=136 sysfs=139 fanotify_init=300 lookup_dcookie=212
move_pages=279 migrate_pages=256 shmget=29 shmat=30 shmctl=31 semget=64 semop=65 semctl=66
semtimedop=220 msgget=68 msgsnd=69 msgrcv=70 msgctl=71 mq_open=240 mq_unlink=241
sched_setscheduler=144 sched_setparam=142 sched_setattr=314 setpriority=141 ioprio_set=251
tkill=200 fork=57 vfork=58 clone=56 execve=59 execveat=322 socket=41 sendto=44 sendmsg=46
sendmmsg=307 ioctl=16 prctl=157 prlimit64=302 sched_setaffinity=203 kill=62 tgkill=234
rt_sigqueueinfo=129 rt_tgsigqueueinfo=297
chmod=90 fchmod=91 fchmodat=268 chown=92 lchown=94 fchown=93 fchownat=260 utime=132 utimes=235
futimesat=261 utimensat=280 setxattr=188 lsetxattr=189 fsetxattr=190 removexattr=197
lremovexattr=198 fremovexattr=199 memfd_create=319 inotify_init=253 inotify_init1=294
inotify_add_watch=254 sync=162 syncfs=306 fcntl=72 socketpair=53 listen=50
""")
_AARCH64 = _BOTH | _numbers("""
ptrace=117 process_vm_readv=270 process_vm_writev=271 kcmp=272 mount=40 umount2=39 pivot_root=41
chroot=51 swapon=224 swapoff=225 reboot=142 kexec_load=104 kexec_file_load=294 init_module=105
finit_module=273 delete_module=106 bpf=280 perf_event_open=241 add_key=217 request_key=218
keyctl=219 userfaultfd=282 unshare=97 setns=268 personality=92 acct=89 quotactl=60
settimeofday=170 clock_settime=112 clock_adjtime=266 adjtimex=171 sethostname=161
setdomainname=162 name_to_handle_at=264 open_by_handle_at=265 vhangup=58 syslog=116
fanotify_init=262 lookup_dcookie=18 move_pages=239 migrate_pages=238 shmget=194 shmctl=195
shmat=196 semget=190 semctl=191 semtimedop=192 semop=193 msgget=186 msgctl=187 msgrcv=188
msgsnd=189 mq_open=180 mq_unlink=181 sched_setscheduler=119 sched_setparam=118 sched_setattr=274
setpriority=140 ioprio_set=30 tkill=130 clone=220 execve=221 execveat=281 socket=198 sendto=206
sendmsg=211 sendmmsg=269 ioctl=29 prctl=167 prlimit64=261 sched_setaffinity=122 kill=129
tgkill=131 rt_sigqueueinfo=138 rt_tgsigqueueinfo=240
fchmod=52 fchmodat=53 fchown=55 fchownat=54 utimensat=88 setxattr=5 lsetxattr=6 fsetxattr=7
removexattr=14 lremovexattr=15 fremovexattr=16 memfd_create=279 inotify_init1=26
inotify_add_watch=27 sync=81 syncfs=267 fcntl=25 socketpair=199 listen=201
""")
_MACHINES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}

_CONDITIONAL = {
    "clone", "clone3", "execve", "execveat", "fcntl", "fork", "ioctl", "kill", "listen",
    "pidfd_open", "pidfd_send_signal", "prctl", "prlimit64", "rt_sigqueueinfo",
    "rt_tgsigqueueinfo", "sched_setaffinity", "sendmmsg", "sendmsg", "sendto", "socket",
    "socketpair", "tgkill", "tkill", "vfork",
}  # fmt: skip
"""Calls that are refused under a condition; all others in the tables always are.

Landlock governs what is opened. A file of the same user could still be given another mode, owner,
time or attribute, by its path or by a descriptor for reading (`test_escapes.py`): these calls are
never made, as a filter cannot tell files apart. Files in memory alone (`memfd_create`), which no
limit counts, and watching files that may not be read (`inotify`) are refused too.
"""
_WITHOUT_EFFECT = {
    "chmod", "fchmod", "fchmodat", "fchmodat2", "utime", "utimes", "futimesat", "utimensat",
}  # fmt: skip
"""Calls that change nothing and say that they did: `shutil.copy` and `tar` would fail otherwise,
for a mode and a time that no other user sees."""


class _Program(Structure):
    _fields_ = (("length", c_ushort), ("filter", c_char_p))


def is_supported(machine: str = "") -> bool:
    """Return whether there is a filter for this system.

    Args:
        machine: The processor's architecture; this machine's if left out.
    """
    return sys.platform == "linux" and (machine or platform.machine()) in _MACHINES


def restrict(confinement: Confinement, *, executes: bool) -> None:
    """Refuse this process what its confinement does not allow. It can gain no privileges before.

    Args:
        confinement: What it may do.
        executes: Whether it is about to execute its program.

    Raises:
        OSError: The kernel refused.
    """
    code = program(confinement, executes=executes, pid=os.getpid(), machine=platform.machine())
    filtered = _Program(len(code) // 8, code)
    native.prctl(_PR_SET_SECCOMP, _MODE_FILTER, byref(filtered))


def program(confinement: Confinement, *, executes: bool, pid: int, machine: str) -> bytes:
    """Return the filter's instructions.

    Args:
        confinement: What the worker may do.
        executes: Whether it is about to execute its program. What it may execute after that is for
            Landlock to say.
        pid: Its pid, to which alone it may send signals unless it may start processes.
        machine: The processor's architecture.
    """
    architecture, numbers = _MACHINES[machine]
    filter_ = _Filter(numbers)
    filter_.begin(architecture, x32=machine == "x86_64")
    filter_.refuse(name for name in numbers if name not in _CONDITIONAL | _WITHOUT_EFFECT)
    filter_.refuse(_WITHOUT_EFFECT, 0)
    if confinement.spawn:
        filter_.refuse_bits("clone", 0, _NEW_NAMESPACES)
    else:
        filter_.refuse(("fork", "vfork", "tkill", "pidfd_open", "pidfd_send_signal"))
        filter_.need_bits("clone", 0, _CLONE_THREAD)
        for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
            filter_.need_value(name, 0, (pid,))
        if not executes:
            filter_.refuse(("execve", "execveat"))
    # Its flags lie in memory, which a filter cannot read. C libraries use `clone` instead.
    filter_.refuse(("clone3",), errno.ENOSYS)
    filter_.sockets(udp=confinement.udp)
    if confinement.connect is not None:
        # Connects without the call that Landlock looks at.
        for name, index in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
            filter_.refuse_bits(name, index, _FAST_OPEN)
    if confinement.listen == ():
        filter_.refuse(("listen",))  # Landlock looks at `bind`, without which a port is chosen
    filter_.stream_pairs()
    for request in _REQUESTS:
        filter_.refuse_value("ioctl", 1, request)
    for control in _CONTROLS:
        filter_.refuse_value("fcntl", 1, control)
    filter_.refuse_value("prctl", 0, _PR_SET_PDEATHSIG)  # it must not outlive the host
    for name in ("prlimit64", "sched_setaffinity"):  # of itself only
        filter_.need_value(name, 0, (0, pid))
    return filter_.end()


class _Filter:
    """Instructions of a filter; each block tests one system call and falls through to the next."""

    def __init__(self, numbers: dict[str, int]) -> None:
        self._numbers = numbers
        self._code: list[tuple[int, int, int, int]] = []

    def begin(self, architecture: int, *, x32: bool) -> None:
        self._add(_LOAD, _ARCHITECTURE)
        self._add(_EQUAL, architecture, true=1)
        self._add(_RETURN, _KILL)  # calls of another architecture have other numbers
        self._add(_LOAD, _NUMBER)
        if x32:
            self._add(_AT_LEAST, _X32, false=1)
            self._error(errno.EPERM)
        self._add(_AT_LEAST, _LAST + 1, false=1)
        self._error(errno.ENOSYS)

    def refuse(self, names: Iterable[str], number: int = errno.EPERM) -> None:
        for name in names:
            if name in self._numbers:
                self._add(_EQUAL, self._numbers[name], false=1)
                self._error(number)

    def refuse_bits(self, name: str, argument: int, bits: int) -> None:
        self._block(name, [(_LOAD, _of(argument)), (_ANY_BIT, bits)], refuse_if=True)

    def need_bits(self, name: str, argument: int, bits: int) -> None:
        self._block(name, [(_LOAD, _of(argument)), (_ANY_BIT, bits)], refuse_if=False)

    def refuse_value(self, name: str, argument: int, value: int) -> None:
        self._block(name, [(_LOAD, _of(argument)), (_EQUAL, value)], refuse_if=True)

    def stream_pairs(self) -> None:
        """Refuse pairs of datagram sockets: they reach named sockets, those of the host too."""
        for kind in (_DATAGRAM, _RAW):
            test = [(_LOAD, _of(1)), (_AND, _TYPE_MASK), (_EQUAL, kind)]
            self._block("socketpair", test, refuse_if=True)

    def need_value(self, name: str, argument: int, values: tuple[int, ...]) -> None:
        """Refuse the call unless the argument is one of these."""
        count = len(values)
        self._add(_EQUAL, self._numbers[name], false=count + 4)
        self._add(_LOAD, _of(argument))
        for index, value in enumerate(values):
            self._add(_EQUAL, value, true=count - index)
        self._error(errno.EPERM)
        self._add(_RETURN, _ALLOW)
        self._add(_LOAD, _NUMBER)

    def sockets(self, *, udp: bool) -> None:
        """Allow TCP, and UDP if asked; a protocol by another number would pass Landlock by."""
        kinds = [(_STREAM, _TCP)] + ([(_DATAGRAM, _UDP)] if udp else [])
        rules: list[tuple[int, int, int, int]] = [
            (_LOAD, 0, 0, _of(0)),
            (_EQUAL, 1, 0, _AF_INET),
            (_EQUAL, 0, 255, _AF_INET6),
            (_LOAD, 0, 0, _of(1)),
            (_AND, 0, 0, _TYPE_MASK),
        ]
        for kind, protocol in kinds:
            rules += [
                (_EQUAL, 0, 3, kind),
                (_LOAD, 0, 0, _of(2)),
                (_EQUAL, 254, 0, 0),
                (_EQUAL, 254, 255, protocol),
            ]
        # 255 jumps to the refusal, 254 to the permission, which follow the rules.
        refusal = len(rules)
        self._add(_EQUAL, self._numbers["socket"], false=len(rules) + 3)
        for index, (code, true, false, value) in enumerate(rules):
            ends = {255: refusal - index - 1, 254: refusal - index}
            self._add(code, value, true=ends.get(true, true), false=ends.get(false, false))
        self._error(errno.EPERM)
        self._add(_RETURN, _ALLOW)
        self._add(_LOAD, _NUMBER)

    def end(self) -> bytes:
        self._add(_RETURN, _ALLOW)
        return b"".join(
            struct.pack("=HBBI", code, true, false, value)
            for code, true, false, value in self._code
        )

    def _block(self, name: str, test: list[tuple[int, int]], *, refuse_if: bool) -> None:
        self._add(_EQUAL, self._numbers[name], false=len(test) + 2)
        for code, value in test[:-1]:
            self._add(code, value)
        code, value = test[-1]
        self._add(code, value, true=0 if refuse_if else 1, false=1 if refuse_if else 0)
        self._error(errno.EPERM)
        self._add(_LOAD, _NUMBER)

    def _error(self, number: int) -> None:
        self._add(_RETURN, _REFUSE | number)

    def _add(self, code: int, value: int, *, true: int = 0, false: int = 0) -> None:
        self._code.append((code, true, false, value))


def _of(argument: int) -> int:
    """Return where the low half of an argument is; both architectures are little-endian."""
    return 16 + 8 * argument
