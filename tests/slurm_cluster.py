"""A Slurm cluster of one node for tests: every file in one folder, nothing under /etc, gone when the test ends.

Needs Debian's slurmctld, slurmd, slurm-client and munge, and one free port; `python tests/slurm_cluster.py FOLDER`
holds one open until Enter is pressed.
"""

from __future__ import annotations

import getpass
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from conftest import ROOT
from project import Project

# Beside Slurm's commands without a controller the plug-in makes every call of Snakemake 10 s slower; so `make slurm-plugin`
# puts it where only those who are told find it.
PLUGIN = ROOT / ".slurm-plugin"
COMMAND = ("--profile", "slurm-gpu")
PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "scontrol", "sbatch", "squeue", "sinfo", "srun")
PATH = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"

# No cgroups: a container rarely lets one make them. So memory is watched by polling, and Slurm kills the whole step.
# A regular file as a GPU is accepted but never handed out; a link to a character device is.
CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency={memory_seconds}
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=100000,preempt_youngest_first
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
ReturnToService=2
MinJobAge=300
KillWait={kill_wait}
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=24:00:00 DefaultTime=10 PriorityTier=1 State=UP
PartitionName=urgent Nodes={host} MaxTime=24:00:00 PriorityTier=2 PreemptMode=OFF State=UP
"""


def missing() -> str:
    """What this machine lacks to start a cluster and to use it; empty where nothing is."""
    plugin = importlib.util.find_spec("snakemake_executor_plugin_slurm") or PLUGIN.exists()
    lacking = [
        *(name for name in PROGRAMS if not shutil.which(name, path=PATH)),
        *([] if plugin else ["snakemake-executor-plugin-slurm"]),
    ]
    return f"a Slurm to start needs {', '.join(lacking)}" if lacking else ""


class Cluster:
    """A running controller and node. `environment` is what a user of the cluster needs."""

    def __init__(self, folder: Path, *, gpus: int = 2, kill_wait: int = 10, memory_seconds: int = 5):
        self.folder = folder.resolve()
        conf = self.folder / "slurm.conf"
        self.environment = os.environ | {"SLURM_CONF": str(conf), "PATH": f"{self.folder}/bin:{PATH}"}
        self.environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")]))
        for name in ("controller", "node", "bin"):
            (self.folder / name).mkdir(parents=True)
        # Inside a job the plug-in hides all variables of Slurm from srun, SLURM_CONF too.
        srun = self.folder / "bin/srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {shutil.which("srun", path=PATH)} "$@"\n')
        srun.chmod(0o755)
        devices = [self.folder / f"gpu{i}" for i in range(gpus)]
        for device in devices:
            device.symlink_to("/dev/null")
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in devices))
        memory = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20 * 0.9)
        text = CONF.format(
            folder=self.folder, host=socket.gethostname().partition(".")[0], user=getpass.getuser(), gpus=gpus,
            ports=_free_ports(2), cpus=os.cpu_count(), memory=memory, kill_wait=kill_wait, memory_seconds=memory_seconds,
        )  # fmt: skip
        conf.write_text(text)

    def __enter__(self) -> Cluster:
        try:
            self.start_munge()
            self.start("slurmctld")
            self._wait(lambda: self.run("scontrol", "ping").returncode == 0)
            self.start("slurmd")
            self._wait(
                lambda: self.run("sinfo", "--noheader", "--format=%T").stdout.split()[:1] in (["idle"], ["mixed"])
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid("slurmctld"):
            self.run("scancel", "--user", getpass.getuser())
            self._wait(lambda: not self.jobs(), 30, strict=False)
        for name in ("slurmd", "slurmctld", "munged"):
            self.kill(name, 15)

    def start_munge(self) -> None:
        socket_, key = self.folder / "munge.socket", self.folder / "munge.key"
        self.run("mungekey", "--create", f"--keyfile={key}")
        files = {"socket": socket_, "key-file": key, "pid-file": self.folder / "munged.pid"}
        files |= {"log-file": self.folder / "munged.log", "seed-file": self.folder / "munge.seed"}
        self.run("munged", "--force", *(f"--{name}={path}" for name, path in files.items()), check=True)

    def start(self, daemon: str) -> None:
        """Start slurmctld or slurmd, which go to the background by themselves."""
        self.run(daemon, check=True)

    def kill(self, daemon: str, number: int = 9) -> None:
        """End one of the cluster's own daemons, and wait until it is gone."""
        if pid := self._pid(daemon):
            os.kill(pid, number)
            self._wait(lambda: not self._pid(daemon), 15, strict=False)

    def run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess:
        result = subprocess.run(
            command, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert not check or result.returncode == 0, f"{' '.join(command)}: {result.stdout}"
        return result

    def jobs(self, columns: str = "%i|%t|%k") -> list[list[str]]:
        """Jobs that wait or run: number, state, comment (which says rule and cell) or other columns of squeue."""
        lines = self.run("squeue", "--noheader", f"--format={columns}").stdout.splitlines()
        return [line.split("|") for line in lines if "|" in line]

    def _pid(self, daemon: str) -> int | None:
        """Its process, if that runs and is what it should be."""
        try:
            pid = int((self.folder / f"{daemon}.pid").read_text())
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except (OSError, ValueError):
            return None
        return pid if name == daemon else None

    def _wait(self, condition: Callable[[], object], seconds: float = 30, strict: bool = True) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                assert not strict, "\n".join(p.read_text()[-2000:] for p in self.folder.glob("*.log"))
                return
            time.sleep(0.1)


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


# The plug-in asks Slurm how its jobs are after so many seconds, and each time that none has succeeded waits 10 s more.
ASK_OFTEN = """

if workflow.is_main_process:
    from snakemake_executor_plugin_slurm import Executor

    Executor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)
"""


def on_cluster(folder: Path, config: dict) -> Project:
    """A project whose default experiment is `config`, set up for this cluster as a user would, but never waiting long."""
    project = Project(folder, config)
    with (folder / "Snakefile").open("a") as snakefile:
        snakefile.write(ASK_OFTEN)
    shutil.copytree(ROOT / "slurm-gpu", folder / "slurm-gpu")
    default = folder / "config/config.yaml"
    merged = yaml.safe_load(default.read_text())
    for key, value in config.items():
        merged[key] = merged[key] | value if isinstance(value, dict) and key != "experiment" else value
    default.write_text(yaml.safe_dump(merged, sort_keys=False))
    profile = folder / "slurm-gpu/config.yaml"
    text = re.sub("^# (slurm-status-command: squeue)", r"\1", profile.read_text(), flags=re.MULTILINE)
    text = re.sub("latency-wait: 60", "latency-wait: 10", text)
    profile.write_text(text)
    return project


def slurm_job(project: Project, log: str) -> str:
    """The number of the Slurm job that wrote the last attempt in a log of the ledger; its own log exists."""
    number = re.findall(r"  Slurm job (\d+) on ", (project.folder / log).read_text())[-1]
    assert list((project.folder / "results/logs/slurm").rglob(f"{number}.log")), f"the log of Slurm job {number}"
    return number


if __name__ == "__main__":
    with Cluster(Path(sys.argv[1])) as cluster:
        input(f"export SLURM_CONF={cluster.environment['SLURM_CONF']}\nEnter stops it. ")
