"""What runs beside Envoy in every mesh: the application, what lets others in, and the ports of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from krun_launch import environments, identity
from krun_launch.contract import PORTS
from krun_launch.errors import Misconfigured
from krun_launch.facts import Facts
from krun_launch.interception import Interception
from krun_launch.plan import APP, HBONED, SSHD, Port, Step
from krun_launch.record import Record
from krun_launch.settings import Settings
from krun_launch.spawn import ProcessSpec, helper
from krun_launch.startup_probe import Probe, app_probe


class Served(Record):
    """What is there of it; programs are None when they are not there or not wanted."""

    app: ProcessSpec | None
    is_job: bool
    hboned: str | None
    wants_ssh: bool
    sshd: str | None

    @property
    def status_host(self) -> str:
        """Empty where the loopback address is right: a sidecar is asked from outside."""
        return "" if self.app else "0.0.0.0"


def served(env: Mapping[str, str], *, app: ProcessSpec | None, facts: Facts) -> Served:
    """Decide which of them run."""
    is_job = bool(env.get("CLOUD_RUN_JOB"))
    hboned = None if is_job else facts.hboned
    wants_ssh = bool(env.get("SSH_AUTH")) and not is_job
    return Served(
        app=app, is_job=is_job, hboned=hboned, wants_ssh=wants_ssh, sshd=facts.sshd if wants_ssh and hboned else None
    )


def warnings(served: Served, *, chosen: Interception, facts: Facts) -> tuple[str, ...]:
    """What a person should know of a plan that is carried out all the same."""
    found = []
    if chosen.is_second_best:
        found.append(f"nothing is intercepted, though it was tried: {chosen.reason}")
    if facts.cannot_switch and facts.uid == 0:
        found.append(f"all parts run as root: {facts.cannot_switch}")
    if served.hboned is None and not served.is_job:
        found.append("inbound tunnels are off: hboned is not installed")
    elif served.wants_ssh and served.sshd is None:
        found.append("SSH_AUTH is set, and krun-sshd is not installed: no debug shell")
    return tuple(found)


def egress_steps(env: Mapping[str, str], *, sees: Mapping[str, str], facts: Facts) -> tuple[Step, ...]:
    """The call that must be answered before the application starts, when one is asked for."""
    if not env.get("KRUN_EGRESS_PROBE"):
        return ()
    # Late: most have none.
    from krun_launch import egress

    step = egress.step(env, app_env=sees, python=facts.python, identity=identity.of_app(env, facts=facts))
    return (step,) if step else ()


def app_steps(env: Mapping[str, str], *, settings: Settings, served: Served) -> tuple[Step, ...]:
    """The application, and until it answers."""
    probe = app_probe(env, settings=settings)
    if served.app is None:
        return ()
    start = Step(name="app", part=APP, start=served.app)
    answers = Step(name="app answers", part=APP, wait=probe, timeout=settings.app_timeout, setting="KRUN_APP_TIMEOUT")
    return (start,) if served.is_job else (start, answers)


def inbound_steps(
    env: Mapping[str, str],
    *,
    settings: Settings,
    served: Served,
    facts: Facts,
    sees: Mapping[str, str],
) -> tuple[Step, ...]:
    """hboned, and krun-sshd, whose sessions see the variables in ``sees``: nothing comes in before the last of them."""
    if served.hboned is None:
        return ()
    tunnel_user = None if facts.cannot_switch else identity.HBONED
    dialled = settings.loopback if settings.bind == "0.0.0.0" else settings.bind
    steps = [
        Step(
            name="hboned",
            part=HBONED,
            start=helper(
                HBONED,
                argv=(served.hboned,),
                env=environments.hboned(env, settings=settings, offers_ssh=served.sshd is not None),
                identity=tunnel_user,
                notifies=True,
            ),
        )
    ]
    if served.sshd is not None:
        start = helper(
            SSHD,
            argv=(served.sshd,),
            env=environments.sshd(env, settings=settings, sees=sees),
            identity=identity.of_app(env, facts=facts),
        )
        steps.append(Step(name="krun-sshd", part=SSHD, start=start))
    steps.append(
        Step(
            name="hboned listens",
            part=HBONED,
            wait=Probe(host=dialled, port=settings.port),
            timeout=settings.ready_timeout,
            setting="KRUN_READY_TIMEOUT",
        )
    )
    return tuple(steps)


def checked(proxys: Iterable[Port], *, settings: Settings, served: Served) -> tuple[Port, ...]:
    """The proxy's ports and those of all others, as they must be free.

    Raises:
        Misconfigured: two uses of one number are a contradiction, whoever listens in the end.
    """
    local = settings.loopback
    status_host = served.status_host or local
    app = Port(name="the application", host=local, number=settings.app_port, variable="PORT_http")
    hboned = Port(name="hboned", host=settings.bind, number=settings.port, variable="PORT")
    sshd = Port(name="krun-sshd", host=local, number=PORTS["SSH"])
    status = Port(
        name="krun-launch's status", host=status_host, number=settings.status_port, variable="KRUN_STATUS_PORT"
    )
    absent = {app: served.app is None or served.is_job, hboned: served.hboned is None, sshd: served.sshd is None}
    ports = [*proxys, status, sshd, hboned, app]
    taken: dict[int, Port] = {}
    for port in ports:
        other = taken.setdefault(port.number, port)
        if other is not port:
            raise _clash(other, port)
    return tuple(port for port in ports if not (port.is_idle or absent.get(port, False)))


def _clash(first: Port, second: Port) -> Misconfigured:
    names = " and ".join(f"{port.name}{f' ({port.variable})' if port.variable else ''}" for port in (first, second))
    variable = second.variable or first.variable
    hint = f"give another {variable}"
    if {first.variable, second.variable} == {"PORT", "PORT_http"}:
        hint = (
            "PORT is where the platform sends requests: deploy with port 15009, or set PORT_http to the application's"
        )
    return Misconfigured(f"port {first.number}: wanted by {names}", hint=hint)
