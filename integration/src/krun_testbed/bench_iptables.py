"""`make bench`, its part with interception rules: the same ones applied by krun-iptables and by Istio's pilot-agent.

``python -m krun_testbed.bench_iptables`` runs it alone. Each run is in a network namespace of its own that is new and
has no rules, and what comes to stand there is counted: both must have done it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import click

from krun_testbed import components, istio_build, kernel_rules, namespaces, processes
from krun_testbed.bench import System, rounds, table

AGENT = "pilot-agent istio-iptables"
OURS = "krun-iptables"
# As sidecars are injected with, but for the last: that is what needs most rules.
ASKED = {
    "redirect": ("-b", "*", "-i", "*", "-d", "15090,15021,15020"),
    "redirect, both families": ("--dual-stack", "-b", "*", "-i", "*", "-d", "15090,15021,15020"),
    "TPROXY and DNS, both families": ("--dual-stack", "-b", "*", "-i", "*", "-m", "TPROXY")
    + ("--redirect-dns", "--capture-all-dns"),
}
# Runs a command, and says its seconds, and the KB of the largest process of it and of those that it waited for. What a
# process was before exec counts as well: so it is a small Python that starts it, not this one.
STARTER = """
import os, sys, time
started = time.monotonic()
null = os.open(os.devnull, os.O_RDWR)
places = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=places)
_, status, usage = os.wait4(pid, 0)
print(time.monotonic() - started, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
WAYS = {"iptables": (), "nft": ("--native-nftables",)}


def report(count: int) -> str:
    """The tables: time against the agent's for each kind of rules, and memory."""
    (agent,) = istio_build.make(istio_build.AGENT)
    programs = {AGENT: [str(agent), "istio-iptables"], OURS: [components.command(OURS), "istio-iptables"]}
    said: list[str] = []
    for asked, flags in ASKED.items():
        for way, more in WAYS.items():
            peaks: dict[str, list[float]] = {name: [] for name in programs}
            systems = [
                System(name=name, measure=_apply([*argv, *more, *flags], peaks=peaks[name]))
                for name, argv in programs.items()
            ]
            times = table(rounds(systems, count=count), peer=AGENT)
            highest = {name: max(found) for name, found in peaks.items()}
            memory = ", ".join(f"{name} {peak:.1f}" for name, peak in highest.items())
            said.append(f"{asked}, by {way}:\n{times}")
            said.append(f"MB of the largest process: {memory}, ratio {highest[OURS] / highest[AGENT]:.2f}\n")
    return "\n".join(said)


def _apply(argv: Sequence[str], *, peaks: list[float]) -> Callable[[], float]:
    """Seconds from exec to the end; the resident memory of the largest process of that run, in MB, goes to peaks."""

    def measure() -> float:
        with namespaces.namespace() as where:
            for address in kernel_rules.ADDRESSES:
                where.must("ip", "address", "add", address, "dev", "lo")
            env = processes.environment(KRUN_LOG_LEVEL="error")
            env.pop("PYTHONDONTWRITEBYTECODE")
            done = where.run(sys.executable, "-I", "-S", "-c", STARTER, *argv, env=env)
            if done.returncode or not kernel_rules.held(where).ours:
                raise click.ClickException(f"{argv}: status {done.returncode}, or no rules: {done.stderr}")
        seconds, kilobytes = done.stdout.split()
        peaks.append(int(kilobytes) / 1024)
        return float(seconds)

    return measure


@click.command()
@click.option("--rounds", "count", default=11, show_default=True, help="Rounds.")
def main(count: int) -> None:
    """Measure, and print ratios."""
    click.echo(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {count} rounds after one thrown away\n")
    click.echo(report(count))


if __name__ == "__main__":
    main()
