"""A real Slurm of one node on this computer, in a network namespace of its own: nothing of it is reached from elsewhere."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

PROGRAMS = ("slurmctld", "slurmd", "munged", "unshare", "nsenter", "ip")
MISSING = "needs root and the programs of Debian's slurm-wlm, munge, iproute2 and util-linux"
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
ReturnToService=2
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
# The second address is no loopback one: without any, Slurm's look-up of its own address finds nothing.
START = """\
ip link set lo up && ip addr add 10.123.0.1/32 dev lo || exit 1
munged --key-file={place}/munge/key --socket={place}/munge/socket --pid-file={place}/munge/pid \
  --log-file={place}/munge/log --seed-file={place}/munge/seed --force || exit 1
slurmctld -f {place}/slurm.conf && slurmd -f {place}/slurm.conf || exit 1
exec sleep infinity
"""


def is_possible() -> bool:
    """Whether all that it needs is there."""
    return os.geteuid() == 0 and all(shutil.which(name, path=_path()) for name in PROGRAMS)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


class Slurm:
    """The cluster that runs; ``run`` runs a command where its programs find it."""

    def __init__(self, place: Path, process: subprocess.Popen):
        self.place, self.process = place, process

    def run(self, *words: object, check: bool = True) -> str:
        command = ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", *map(str, words)]
        environment = {**os.environ, "SLURM_CONF": str(self.place / "slurm.conf"), "PATH": _path()}
        done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, timeout=300, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def wait(self, seconds: float) -> None:
        """Until no job is left."""
        deadline = time.monotonic() + seconds
        while self.run("squeue", "--noheader"):
            assert time.monotonic() < deadline, self.run("squeue") + self.log()
            time.sleep(0.5)

    def log(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in self.place.glob("*.log"))


@contextmanager
def slurm(place: Path) -> Iterator[Slurm]:
    """A cluster that is ready; all its daemons and jobs are gone afterwards."""
    for name in ("munge", "state", "spool"):
        (place / name).mkdir(mode=0o700, parents=True)
    (place / "munge" / "key").write_bytes(os.urandom(1024))
    (place / "munge" / "key").chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    (place / "slurm.conf").write_text(CONF.format(place=place, host=host, cores=os.cpu_count()))
    with (place / "start.log").open("wb") as log:
        words = ["unshare", "--net", "sh", "-c", START.format(place=place)]
        environment = {**os.environ, "SLURM_CONF": str(place / "slurm.conf"), "PATH": _path()}
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    cluster = Slurm(place, process)
    try:
        deadline = time.monotonic() + 60
        while "idle" not in cluster.run("sinfo", "--noheader", check=False):
            assert time.monotonic() < deadline and process.poll() is None, cluster.log()
            time.sleep(0.3)
        yield cluster
    finally:
        for one in psutil.process_iter():  # the daemons, and what they have started
            with suppress(psutil.Error):
                if one.environ().get("SLURM_CONF") == str(place / "slurm.conf"):
                    one.send_signal(signal.SIGKILL)
        process.wait(20)
