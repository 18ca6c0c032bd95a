"""What krun-launch finds on the machine, as data for the plan."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path

from krun_launch.record import Record
from krun_launch.settings import DEFAULT_CERTS, names_control_plane
from krun_launch.spawn import find, find_own, is_on_terminal

SHELLS = frozenset({"sh", "dash", "bash", "ash", "busybox"})


class Facts(Record):
    """Paths of programs are None when they are not there; texts say why something cannot be, and are empty else."""

    envoy: str | None = None
    hboned: str | None = None
    sshd: str | None = None
    pilot_agent: str | None = None
    template: str | None = None  # the agent's, of Envoy's bootstrap
    krun_token: str | None = None
    has_token: bool = False  # a platform has mounted one for the control plane, as in a Pod
    has_roots: bool = False  # and the control plane's root certificates
    instance: str = "0"  # tells this instance from others of the same workload
    python: str = "python3"  # the interpreter that runs us
    has_default_certs: bool = False
    is_below_shell: bool = False  # PID 1 is a shell that drops signals, and no init of ours is between
    is_on_terminal: bool = False
    uid: int = 1000
    cannot_switch: str = "not root"  # why parts cannot run as other users
    app_gid: int | None = None  # of the account that K8S_UID names, if there is one
    app_home: str = ""
    own_home: str = ""
    has_rules: bool = False  # chains of krun-iptables are in the kernel
    resolv_conf: str = ""  # its text
    cannot_capture: str = "names cannot be answered here"  # beyond rules and users


def look(env: Mapping[str, str], *, is_before_rules: bool = False) -> Facts:
    """Look around, but for rules when they are only going to be; nothing is changed, and what is started has ended."""
    path = env.get("PATH") or os.defpath
    found = Facts(
        envoy=find(env.get("KRUN_ENVOY") or "envoy", path=path),
        hboned=find_own("hboned", path=path),
        sshd=find_own("krun-sshd", path=path),
        python=sys.executable,
        has_default_certs=os.path.isdir(DEFAULT_CERTS),  # noqa: PTH112 - no need of pathlib's errors
        is_below_shell=_is_below_shell(env),
        is_on_terminal=is_on_terminal(),
        uid=os.geteuid(),
    )
    if names_control_plane(env):
        found = _with_agent(found, env=env, path=path)
    # Whoever is not root can change neither users nor rules: nothing else is worth a look.
    return found if os.geteuid() != 0 else _as_root(found, env=env, is_before_rules=is_before_rules)


def _with_agent(found: Facts, *, env: Mapping[str, str], path: str) -> Facts:
    # Late: only a mesh with a control plane has an agent.
    from krun_launch import istio_agent, istio_paths
    from krun_launch.stay import KRUN_TOKEN

    agent = find(env.get("KRUN_PILOT_AGENT") or istio_agent.PROGRAM, path=f"{path}:{istio_agent.USUAL_FOLDER}")
    beside = [str(Path(agent).parent / name) for name in istio_agent.TEMPLATES] if agent else []
    templates = [env["ISTIO_BOOTSTRAP"]] if env.get("ISTIO_BOOTSTRAP") else [istio_agent.TEMPLATE, *beside]
    return found.but(
        pilot_agent=agent,
        template=next((name for name in templates if os.path.isfile(name)), None),  # noqa: PTH113
        krun_token=find_own(KRUN_TOKEN, path=path),
        has_token=os.access(istio_paths.MOUNTED_TOKEN, os.R_OK),
        has_roots=os.access(istio_paths.MOUNTED_ROOT, os.R_OK),
        instance=os.urandom(4).hex(),
    )


def _as_root(found: Facts, *, env: Mapping[str, str], is_before_rules: bool) -> Facts:
    # Late: a user's start-up needs none of it.
    from krun_launch import identity, trial

    account, own = _account(identity.uid_of(env)), _account(found.uid)
    is_alone = env.get("KRUN_MODE") == "none"
    wanted = (found.envoy, found.pilot_agent, found.hboned, found.sshd, found.python)
    programs = [program for program in wanted if program]
    texts = [found.template] if found.template else []
    found = found.but(
        cannot_switch=trial.cannot_switch(
            [] if is_alone else programs, texts=[] if is_alone else texts, folder=env.get("TMPDIR") or "/tmp"
        ),
        app_gid=account.pw_gid if account else None,
        app_home=account.pw_dir if account else "",
        own_home=own.pw_dir if own else "",
    )
    if is_alone:
        return found
    from krun_launch import chains, resolver

    return found.but(
        has_rules=not (is_before_rules or env.get("KRUN_INTERCEPTION")) and chains.are_there(path=env.get("PATH", "")),
        resolv_conf=resolver.read(),
        cannot_capture=resolver.cannot_answer(),
    )


def _account(uid: int | None) -> pwd.struct_passwd | None:
    try:
        return None if uid is None else pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return None


def _is_below_shell(env: Mapping[str, str]) -> bool:
    if os.getpid() == 1 or env.get("KRUN_INIT_FD"):
        return False
    try:
        return Path("/proc/1/comm").read_text().strip() in SHELLS
    except OSError:
        return False
