"""`make bench`, its part with interception rules: the same ones applied by krun-iptables and by Istio's pilot-agent.

``python -m krun_testbed.bench_iptables`` runs it alone. Each run is in a network namespace of its own that is new and
has no rules, and what comes to stand there is counted: both must have done it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
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
            started = time.monotonic()
            seconds, peak, status = _to_end(where.inside(argv), started=started)
            if status or not kernel_rules.held(where).ours:
                raise click.ClickException(f"{argv}: status {status}, or no rules")
        peaks.append(peak)
        return seconds

    return measure


def _to_end(argv: Sequence[str], *, started: float) -> tuple[float, float, int]:
    with subprocess.Popen(
        argv,
        env=processes.environment(KRUN_LOG_LEVEL="error"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        # Of the process and of all that it waited for, the largest.
        _, status, usage = os.wait4(running.pid, 0)
        seconds = time.monotonic() - started
        running.returncode = os.waitstatus_to_exitcode(status)
    return seconds, usage.ru_maxrss / 1024, running.returncode


@click.command()
@click.option("--rounds", "count", default=11, show_default=True, help="Rounds.")
def main(count: int) -> None:
    """Measure, and print ratios."""
    click.echo(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {count} rounds after one thrown away\n")
    click.echo(report(count))


if __name__ == "__main__":
    main()
