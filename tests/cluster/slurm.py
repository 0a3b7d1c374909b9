"""A real Slurm on this machine: one node, loopback only, no accounting database, no systemd and no cgroups. Needs root.

Its configuration lies in a directory of its own, and /etc/slurm/slurm.conf becomes a link to it: a job's own srun finds
no other. Everything is stopped by its own process id, and the link is taken away again.
"""

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
INSTALL = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
SYSTEM_CONFIG = Path("/etc/slurm/slurm.conf")
# Two partitions, so that one can be too short. Programs run with the memory they like: nothing here enforces a request.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
MinJobAge=3600
ReturnToService=2
KillWait=2
SlurmctldTimeout=30
SlurmdTimeout=5
OverTimeLimit=0
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=32000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=240 State=UP
PartitionName=short Nodes=ALL MaxTime=10 State=UP
"""


def missing():
    """Why no Slurm can be started here, as a sentence; None if one can."""
    if os.geteuid() != 0:
        return "starting a Slurm needs root"
    if SYSTEM_CONFIG.exists():
        return f"this machine has a Slurm of its own, {SYSTEM_CONFIG}, which is left alone"
    absent = [name for name in PROGRAMS if not program(name)]
    return f"{', '.join(absent)} not found: {INSTALL}" if absent else None


def program(name):
    """Path of a program, daemons included; None if it is not there."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def free_port():
    """A port of the loopback that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def state_of(pid):
    """The letter for a process's state, Z if it has ended and waits for its parent; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def parent_of(pid):
    """Id of a process's parent."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]


class Slurm:
    """A Slurm that runs from `start` to `stop`, with its files in a directory."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.config = self.directory / "slurm.conf"

    def start(self):
        """Start munge and both daemons, and wait until the node takes jobs."""
        for name in ("state", "spool", "munge"):
            (self.directory / name).mkdir(parents=True)
        self.config.write_text(
            CONFIG.format(
                host=socket.gethostname().split(".")[0],
                directory=self.directory,
                control_port=free_port(),
                node_port=free_port(),
            )
        )
        SYSTEM_CONFIG.parent.mkdir(exist_ok=True)
        SYSTEM_CONFIG.unlink(missing_ok=True)  # a link that an earlier test left behind
        SYSTEM_CONFIG.symlink_to(self.config)
        key = self.directory / "munge" / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        files = {"key": "munge.key", "socket": "munge.socket", "pid": "munged.pid", "log": "munged.log", "seed": "seed"}
        options = [f"--{name}{'' if name == 'socket' else '-file'}={key.parent / file}" for name, file in files.items()]
        subprocess.run([program("munged"), "--force", *options], check=True)
        subprocess.run([program("slurmctld"), "-f", self.config], check=True)
        self.start_node()

    def start_node(self):
        """Start the node's daemon, the first time or after it was lost."""
        subprocess.run([program("slurmd"), "-f", self.config], check=True)
        self.wait_for(lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"), "the node to be idle")

    def ask(self, *command):
        """What a command of Slurm prints."""
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout

    def wait_for(self, condition, what, seconds=240):
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = "\n".join(path.read_text()[-2000:] for path in self.directory.glob("*.log"))
                raise TimeoutError(f"Waited {seconds} s for {what}.\n{logs}")
            time.sleep(0.3)

    def jobs(self):
        """[(number, state, memory, minutes)] of all jobs submitted since the start, in order."""
        lines = self.ask("squeue", "--states=all", "--noheader", "--sort=i", "--format=%i %T %m %l").split("\n")
        return [tuple(line.split()) for line in lines if line]

    def processes(self):
        """Ids of the processes of all running jobs."""
        numbers = [job[0] for job in self.jobs() if job[1] == "RUNNING"]
        listed = "".join(self.ask("scontrol", "listpids", number) for number in numbers)
        return {line.split()[0] for line in listed.splitlines() if line[:1].isdigit()}

    def lose_node(self):
        """What happens when a machine dies: its daemon and all that runs there are gone, without a word."""
        pids = self.processes()
        pids |= {parent_of(pid) for pid in pids if Path(f"/proc/{parent_of(pid)}/comm").read_text() == "slurmstepd\n"}
        self.kill("slurmd", 9)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), 9)

    def kill(self, name, signal=15):
        """Stop one of the daemons by its own id, and wait until it is gone; nothing if it does not run."""
        path = self.directory / ("munge/munged.pid" if name == "munged" else f"{name}.pid")
        if not path.exists():
            return
        pid = int(path.read_text())
        with suppress(ProcessLookupError):
            os.kill(pid, signal)
        self.wait_for(lambda: state_of(pid) in ("", "Z"), f"{name} to end", 30)

    def stop(self):
        """Cancel all jobs, stop the daemons, and put /etc/slurm back as it was."""
        try:
            self.ask("scancel", "--user=root")
            for name in ("slurmd", "slurmctld", "munged"):
                self.kill(name)
        finally:
            if SYSTEM_CONFIG.is_symlink() and os.readlink(SYSTEM_CONFIG) == str(self.config):
                SYSTEM_CONFIG.unlink()
