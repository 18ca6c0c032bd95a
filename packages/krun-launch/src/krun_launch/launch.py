"""The main path: reads the environment, makes the plan, prints it or carries it out."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Mapping

from krun_launch import envjson, lines, signals
from krun_launch.errors import Misconfigured
from krun_launch.record import Record
from krun_launch.settings import names_control_plane, seconds
from krun_launch.signals import Signals
from krun_launch.spawn import INHERIT, NULL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_launch.certificates import Keeper
    from krun_launch.facts import Facts
    from krun_launch.plan import Certificates, Plan
    from krun_launch.stay import Stay

STDIN = "-"


class Request(Record):
    """What the command line asks for; ``flags`` are variables that were given as flags."""

    app: tuple[str, ...]
    flags: Mapping[str, str]
    env_file: str | None
    reads_env: bool
    is_dry: bool
    wants_rules: bool = False
    enters: bool = False


def launch(request: Request, *, env: Mapping[str, str]) -> int:
    """Do it, and return the exit status.

    Raises:
        Failure: see docs/process.md.
    """
    with Signals() as arriving:
        init = None if request.is_dry or request.wants_rules else _tell_init(env)
        try:
            if request.enters:
                return _enter(request, env=env, arriving=arriving, init=init)
            stay = None if request.is_dry or request.wants_rules else _ahead({**env, **request.flags})
            found, app_stdin = _environment(request, env=env, arriving=arriving)
        except envjson.Interrupted as interrupted:
            lines.info("ended before the start", signal=signals.name(interrupted.number))
            return 128 + interrupted.number
        from krun_launch import facts  # late, as in _enter

        around = facts.look({**found, **request.flags})
        if request.wants_rules:
            _print_rules({**found, **request.flags}, facts=around)
            return 0
        return _carry_out(request, env=found, facts=around, app_stdin=app_stdin, signals=arriving, init=init, stay=stay)


def _enter(request: Request, *, env: Mapping[str, str], arriving: Signals, init: int | None) -> int:
    """The environment and the rules first, as `krun` has them."""
    # Late: of an image that is made by hand, the pipe is the usual way.
    from krun_launch.entry import Entry

    settled = {**env, **request.flags}
    entry = Entry(settled, signals=arriving)
    discovered = entry.discover(timeout=seconds(settled, "KRUN_ENV_TIMEOUT", default=75.0))
    # Late: krun-discover has been started sooner.
    from krun_launch import facts

    found = envjson.merge(base=env, found=discovered)
    settled = {**found, **request.flags}
    around = facts.look(settled, is_before_rules=True)
    known = entry.intercept(settled, facts=around)
    if not (known or settled.get("KRUN_INTERCEPTION")):
        # Nobody has said anything of rules: they may have been applied by hand.
        around = facts.look(settled)
    return _carry_out(
        request, env={**found, **known}, facts=around, app_stdin=INHERIT, signals=arriving, init=init, stay=entry.stay
    )


def _carry_out(
    request: Request,
    *,
    env: Mapping[str, str],
    facts: Facts,
    app_stdin: str,
    signals: Signals,
    init: int | None,
    stay: Stay | None = None,
) -> int:
    # Late: --rules needs none of it.
    from krun_launch import rundir
    from krun_launch.plan import plan

    settled = {**env, **request.flags}
    suffix = "" if request.is_dry else os.urandom(6).hex()
    made = plan(
        env,
        app=request.app,
        facts=facts,
        run_dir=rundir.path(settled, suffix=suffix),
        app_stdin=app_stdin,
        flags=request.flags,
    )
    if request.is_dry:
        _print(made, env=env)
        return 0
    _warn(made, is_below_shell=facts.is_below_shell)
    if stay is not None and not any(map(stay.can_be, made.processes)):
        stay.close()
        stay = None
    return _run(made, signals=signals, init=init, keeps_run_dir=bool(settled.get("KRUN_RUN_DIR")), stay=stay)


def _ahead(env: Mapping[str, str]) -> Stay | None:
    """What can be loaded for a start with a control plane, before it is known what that takes."""
    if not names_control_plane(env):
        return None
    from krun_launch import stay  # late, as that says

    return stay.ahead(env)


def _tell_init(env: Mapping[str, str]) -> int | None:
    """Say to the init above which process is to get the signals; return its pipe, which nothing we start may hold."""
    text = env.get("KRUN_INIT_FD", "")
    # Below 3 are our streams; a number that is longer is no descriptor.
    pipe = int(text) if text.isdecimal() and len(text) < 10 else 0
    if pipe < 3 or not envjson.is_pipe(pipe):
        return None
    os.set_inheritable(pipe, False)
    # An init that is gone already is seen by the supervisor.
    with contextlib.suppress(OSError):
        os.write(pipe, f"launch {os.getpid()}\n".encode())
    return pipe


def _environment(request: Request, *, env: Mapping[str, str], arriving: Signals) -> tuple[dict[str, str], str]:
    """The merged environment, and what the application gets as stdin."""
    timeout = seconds({**env, **request.flags}, "KRUN_ENV_TIMEOUT", default=75.0)
    name = request.env_file
    if name is None and request.reads_env and envjson.is_pipe(0):
        name = STDIN
    if name is None:
        return dict(env), INHERIT
    if name == STDIN:
        # Late: only who is before a pipe has the time.
        from krun_launch.entry import load_next

        load_next({**env, **request.flags})
        found = envjson.read(0, name="stdin", timeout=timeout, signals=arriving)
        return envjson.merge(base=env, found=found), NULL
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Misconfigured(f"environment from {name}: cannot be read: {error.strerror}") from None
    _keep_from_children(name)
    try:
        found = envjson.read(descriptor, name=name, timeout=timeout, signals=arriving)
    finally:
        os.close(descriptor)
    return envjson.merge(base=env, found=found), INHERIT


def _keep_from_children(name: str) -> None:
    """A file that was handed on as /dev/fd/N, as `krun` does, is for us: nothing that we start gets it."""
    number = name.removeprefix("/dev/fd/")
    if number != name and number.isdecimal() and len(number) < 10 and int(number) > 2:
        os.set_inheritable(int(number), False)


def _print_rules(env: Mapping[str, str], *, facts: Facts) -> None:
    """What krun-iptables is to be told, as shell; nothing when there is nothing to intercept."""
    # Late: who applies the rules by hand asks this once.
    from krun_launch import entry, interception

    wanted = entry.rules(env, facts=facts)
    sys.stdout.write("".join(f"{name}={interception.quoted(value)}\n" for name, value in wanted.items()))


def _print(made: Plan, *, env: Mapping[str, str]) -> None:
    # Late: only a dry run prints.
    from krun_launch.describe import describe

    sys.stdout.write(describe(made, env=env) + "\n")


def _warn(made: Plan, *, is_below_shell: bool) -> None:
    for note in made.notes:
        lines.info(note, mode=made.mode, interception=made.interception)
    for warning in made.warnings:
        lines.warning(warning, mode=made.mode, reason=made.reason)
    if is_below_shell:
        lines.warning('PID 1 is a shell, which drops SIGTERM: use ENTRYPOINT ["krun-launch","--init","--"]')


def _run(made: Plan, *, signals: Signals, init: int | None, keeps_run_dir: bool, stay: Stay | None) -> int:
    # Late: neither a dry run nor --rules starts anything.
    from krun_launch.supervise import Supervisor

    # What was made so far stays, and is not gone through; from here on there may be rubbish.
    gc.freeze()
    gc.enable()
    if not made.status_host:
        return Supervisor(made, signals=signals, init=init).run()
    # Late: ports and resolvers are not the business of mode none.
    from krun_launch import ports, resolver, rundir

    if os.geteuid() == 0 and resolver.mend():
        lines.warning("the resolver's file was still that of a run that was killed: put back")
    ports.check(made.ports)
    written = rundir.written(
        made.run_dir,
        files=made.files,
        is_kept=keeps_run_dir,
        owner=made.owner,
        folders=made.folders,
        shared=made.shared,
        links=made.links,
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(written)
        keeper = None if made.certificates is None else _keeper(made, certificates=made.certificates)
        if made.resolver:
            stack.enter_context(resolver.restored())
        return Supervisor(made, signals=signals, init=init, keeper=keeper, stay=stay).run()


def _keeper(made: Plan, *, certificates: Certificates) -> Keeper:
    # Late: certificates are not the business of every mode.
    from pathlib import Path

    from krun_launch.certificates import Keeper

    keeper = Keeper(
        source=certificates.source,
        target=Path(made.run_dir, "certs"),
        trust_domain=certificates.trust_domain,
        owner=made.owner,
    )
    keeper.place()
    return keeper
