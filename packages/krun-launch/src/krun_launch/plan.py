"""Decides what krun-launch runs: every process with its own environment, every file, every wait, in order.

Pure: the environment, the application's argv and what was found on the machine go in, a plan comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from krun_launch import environments, identity, mode
from krun_launch.errors import Misconfigured
from krun_launch.facts import Facts
from krun_launch.record import NONE, Record
from krun_launch.settings import Settings, settings
from krun_launch.spawn import GROUP, INHERIT, SHARED, ProcessSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_launch.startup_probe import Probe

APP = "app"
ENVOY = "envoy"
HBONED = "hboned"
SSHD = "krun-sshd"
NAMES = "names relay"
AGENT = "pilot-agent"
TOKEN = "token"
ROOT = "root"
CERTIFICATE = "certificate"


class Step(Record):
    """One step of the start: a process to start, something to check or to wait for; the next waits until it is done."""

    name: str
    part: str
    start: ProcessSpec | None = None
    run: ProcessSpec | None = None  # to its end; what it says last is the cause when it fails
    checks_certificates: bool = False
    writes_resolver: bool = False
    wait: Probe | None = None
    timeout: float = 0.0  # seconds
    setting: str = ""  # the variable that sets the timeout
    diagnosis: Diagnosis | None = None  # what tells why nothing came of the wait


class Port(Record):
    """A port that must be free before anything starts."""

    name: str
    host: str
    number: int
    variable: str = ""  # what sets it, if anything does
    is_idle: bool = False  # nobody listens there now: it is kept for who may


class Certificates(Record):
    """Where a workload's certificates come from, and what they must be."""

    source: Path
    trust_domain: str


class Diagnosis(Record):
    """What tells why a proxy did not become ready: its own words, and whether the control plane can be reached."""

    log: Path  # the agent's last complaints
    discovery: str  # HOST:PORT
    discovery_san: str  # whom its certificate must name
    token: str  # for whom and by whom the token is, in words


class Task(Record):
    """A process that is run again and again while all goes on; its failure is a warning, never the end."""

    name: str
    process: ProcessSpec
    every: float  # seconds from start to start
    retry: float  # seconds after a failure; doubled with each, up to a minute
    renews: str = ""  # the credential that it keeps good: run at 80 % of its life, when that comes first


class Credential(Record):
    """A file with an end: its age is told, its content never. ``kind`` is TOKEN, ROOT or CERTIFICATE."""

    name: str
    path: Path
    kind: str


class Roots(Record):
    """The roots by which the control plane is known, and where the agent puts the mesh's, old and new ones."""

    file: Path
    learnt: Path
    owner: int | None = None  # who is to own the file (None: we)


class Scopes(Record):
    """Envoy's file of the ports that the mesh has, and whom to ask for them while it runs."""

    host: str
    port: int  # of Envoy's admin interface
    file: Path
    owner: int | None = None  # who is to own the file (None: we)


class Plan(Record):
    """All that the supervisor needs to know."""

    mode: str
    reason: str
    settings: Settings
    run_dir: Path
    steps: tuple[Step, ...]
    has_app: bool
    files: Mapping[str, str] = NONE
    ports: tuple[Port, ...] = ()
    certificates: Certificates | None = None
    owner: int | None = None  # whose the files and folders are, when they are not ours
    folders: tuple[str, ...] = ()  # below the run folder, in which the owner itself may write
    shared: tuple[str, ...] = ()  # the same, in which the owner may only read
    links: Mapping[str, str] = NONE  # below the run folder, to files of others
    tasks: tuple[Task, ...] = ()
    credentials: tuple[Credential, ...] = ()
    scopes: Scopes | None = None
    roots: Roots | None = None
    status_host: str = ""  # empty: no status port
    interception: str = ""  # captured or whitebox, where there is a mesh
    resolver: str = ""  # what the resolver's file is to hold while captured
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def processes(self) -> tuple[ProcessSpec, ...]:
        """The processes, in the order they are started."""
        return tuple(process for step in self.steps for process in (step.run, step.start) if process is not None)


def plan(
    env: Mapping[str, str],
    *,
    app: tuple[str, ...],
    facts: Facts,
    run_dir: Path,
    app_stdin: str = INHERIT,
    flags: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan.

    Args:
        env: the merged environment.
        app: the application's command line; empty for a sidecar.
        facts: what was found on the machine.
        run_dir: where the files are going to be.
        app_stdin: INHERIT, or NULL when the environment was read from stdin.
        flags: variables that were given as flags: they win over the environment, and the application never sees them.

    Raises:
        Misconfigured: settings are missing, wrong or contradictory.
        Denied: what was asked for is not permitted here.
        click.BadParameter: no such mode.
    """
    given, env = env, {**env, **(flags or {})}
    choice = mode.choose(env, facts=facts)
    numbers = settings(env)
    group = SHARED if facts.is_on_terminal and app_stdin == INHERIT else GROUP
    # In mode none an application that is root is nobody's business.
    asks_for_user = choice.mode != mode.NONE or bool(env.get("K8S_UID"))
    who = identity.of_app(env, facts=facts) if asks_for_user else None
    if who is not None and who.uid != facts.uid:
        given = environments.with_home(given, home=facts.app_home, instead_of=facts.own_home)
    process = ProcessSpec(name=APP, argv=app, env=given, stdin=app_stdin, group=group, identity=who) if app else None
    if choice.mode == mode.NONE:
        return _none(process, settings=numbers, reason=choice.reason, run_dir=run_dir)
    if choice.mode == mode.ISTIO:
        # Late: only a mesh with a control plane needs it.
        from krun_launch import istio_plan

        return istio_plan.plan(env, app=process, settings=numbers, facts=facts, run_dir=run_dir, reason=choice.reason)
    # Late: mode none does not need it.
    from krun_launch import static_plan

    return static_plan.plan(env, app=process, settings=numbers, facts=facts, run_dir=run_dir, reason=choice.reason)


def _none(app: ProcessSpec | None, *, settings: Settings, reason: str, run_dir: Path) -> Plan:
    if app is None:
        raise Misconfigured(f"mode none ({reason}) without an application: nothing to run", hint="krun-launch -- APP")
    process = app.but(env=environments.untouched(app.env))
    return Plan(
        mode=mode.NONE,
        reason=reason,
        settings=settings,
        run_dir=run_dir,
        steps=(Step(name=APP, part=APP, start=process),),
        has_app=True,
        warnings=("no mesh: the application runs alone",),
    )
