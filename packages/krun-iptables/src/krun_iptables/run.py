"""One run of krun-iptables: the rules are decided, and applied, removed or shown."""

from __future__ import annotations

from krun_iptables.arguments import WrongUse
from krun_iptables.choice import Choice, choose, wrong
from krun_iptables.errors import Exit, Misconfigured, Unreachable
from krun_iptables.facts import Machine
from krun_iptables.interfaces import usable
from krun_iptables.lines import Lines
from krun_iptables.output import write
from krun_iptables.reading import settings
from krun_iptables.rules import routes, rules
from krun_iptables.values import one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from krun_iptables.nft_waiting import Waiting
    from krun_iptables.settings import Settings

LEVELS = ("debug", "info", "warning", "error")
STYLES = ("auto", "text", "json")
# Istio's words for ours.
ISTIO_LEVELS = {"warn": "warning", "fatal": "error", "none": "error"}
ALONE = ("dry_run", "remove", "cleanup_only", "show_settings")


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do it. Raises a Failure."""
    choice = choose(arguments, environ)
    lines = _lines(choice)
    _alone(choice)
    place = choice.given.get("network_namespace")
    if place and place.text:
        from krun_iptables import kernel_place

        # First: whether IPv6 is on, and all that follows, is that namespace's matter.
        kernel_place.enter(place.text, name=place.name)
    if choice.is_on("remove") or choice.is_on("cleanup_only"):
        return _remove(choice, lines)
    waiting = _waiting(choice)
    try:
        return _run(choice, lines, environ=environ, waiting=waiting)
    finally:
        if waiting is not None:
            waiting.close()


def _waiting(choice: Choice) -> Waiting | None:
    """An nft that starts while it is decided what it is to do, where rules are its own and are going to be applied."""
    if not choice.is_on("native_nftables") or any(choice.is_on(key) for key in (*ALONE, "skip_rule_apply")):
        return None
    from krun_iptables.nft_waiting import Waiting

    return Waiting()


def _run(choice: Choice, lines: Lines, *, environ: Mapping[str, str], waiting: Waiting | None) -> int:
    machine = Machine()
    decided = settings(choice, facts=machine, environ=environ)
    if choice.is_on("show_settings"):
        write(shown(decided))
        return Exit.OK
    if decided.dry_run:
        _dry(decided)
    elif not decided.skip_rule_apply:
        _apply(decided, lines, native=waiting)
    _warn(decided, lines, choice=choice, machine=machine)
    if decided.dry_run or not decided.run_validation:
        return Exit.OK
    return _validate(decided)


def _alone(choice: Choice) -> None:
    """Refuse what contradicts itself. Raises WrongUse, or Misconfigured where it is a variable that does."""
    asked = [choice.given[key] for key in ALONE if choice.is_on(key)]
    names = [one.name for one in asked]
    # Krun's and Istio's name for the same.
    if len(asked) > 1 and {one.key for one in asked} != {"remove", "cleanup_only"}:
        kind = WrongUse if all(one.is_flag for one in asked) else Misconfigured
        raise kind(f"{', '.join(names)}: give one of them", hint="each of them changes nothing, or removes")


def _warn(decided: Settings, lines: Lines, *, choice: Choice, machine: Machine) -> None:
    """Say what was left out, though it may have been meant."""
    is_asked = decided.dual_stack or any(network.version == 6 for network in decided.outbound_ranges)
    if choice.is_istio and not usable(machine.addresses()):
        lines.warning("no interface has an address yet: rules for IPv6 were left out")
    elif is_asked and not decided.ipv6 and (decided.dual_stack or "dual_stack" not in choice.given):
        has_address = 6 in usable(machine.addresses())
        reason = "beside IPv4 it takes --dual-stack" if has_address else "no interface has an address of it"
        lines.warning("rules for IPv6 were left out, though it is asked for", reason=reason)
    if decided.redirect_dns and not decided.captures_dns:
        lines.warning("DNS is not led to the agent: resolv.conf names no server, and --capture-all-dns is not given")


def shown(decided: Settings) -> str:
    """The settings as text: one JSON object."""
    import json

    return json.dumps(decided.as_json(), indent=2) + "\n"


def _lines(choice: Choice) -> Lines:
    level, style = (choice.given.get(key) for key in ("log_level", "log_format"))
    as_json = "json" if choice.is_on("log_json") else "auto"
    return Lines(
        level=one_of(level, LEVELS) if level else _istio_level(choice),
        style=one_of(style, STYLES) if style else as_json,
    )


def _istio_level(choice: Choice) -> str:
    """The level of Istio's default scope, in ``LEVEL`` or ``SCOPE:LEVEL,…``; other scopes are none of ours."""
    given = choice.given.get("log_levels")
    level = "info"
    for part in given.text.split(",") if given else []:
        scope, _, word = part.strip().rpartition(":")
        if scope in ("", "default", "all"):
            level = ISTIO_LEVELS.get(word, word)
    if given and level not in LEVELS:
        raise wrong(given, "is no level", hint="debug, info, warn, error, or none")
    return level


def _remove(choice: Choice, lines: Lines) -> int:
    from krun_iptables import kernel

    if choice.is_on("skip_rule_apply"):
        return Exit.OK
    what, source, refused = kernel.remove(
        kind=_kind(choice), namespace=choice.text("network_namespace"), cni=choice.is_on("cni_mode")
    )
    if source:
        lines.info(f"rules {what}", source=source)
    else:
        lines.info(f"rules {what}")
    _unseen(refused, lines)
    return Exit.OK


def _unseen(refused: Sequence[str], lines: Lines) -> None:
    """Say that rules of ours may be where nobody let us look."""
    if refused:
        lines.warning("rules of an earlier run may be left: not all could be looked at", reason="; ".join(refused))


def _kind(choice: Choice) -> str:
    given = choice.given.get("force_iptables_binary")
    return one_of(given, ("auto", "legacy", "nft")) if given and given.text else "auto"


def text(decided: Settings) -> str:
    """What the kernel's tools are told, as it is where nothing of ours is yet; reasons are comments."""
    mine = rules(decided)
    if decided.native_nftables:
        from krun_iptables import nft

        return nft.render(mine) + _routing(decided)
    from krun_iptables import restore

    four, six = (restore.apply([rule for rule in mine if rule.family == family]) for family in (4, 6))
    parts = ["# IPv4, for iptables-restore\n", four, "# IPv6, for ip6tables-restore\n", six] if six else [four]
    return "".join(parts) + _routing(decided)


def _routing(decided: Settings) -> str:
    wanted = routes(decided)
    found = ["address add ::6/128 dev lo"] if wanted.ipv6 else []
    if wanted.mark is not None:
        for family in ("-4", "-6") if wanted.ipv6 else ("-4",):
            found.append(f"{family} rule add fwmark {wanted.mark} lookup {wanted.table}")
            found.append(f"{family} route add local default dev lo table {wanted.table}")
    return "".join(f"# ip {line}\n" for line in found)


def _dry(decided: Settings) -> None:
    wanted = text(decided)
    if decided.dry_run_file:
        try:
            with open(decided.dry_run_file, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib is slow to import
                file.write(wanted)
        except OSError as error:
            raise Unreachable(f"DRY_RUN_FILE_PATH: {decided.dry_run_file}: {error.strerror}") from None
    write(wanted)


def _apply(decided: Settings, lines: Lines, *, native: Waiting | None) -> None:
    from krun_iptables import kernel

    mine = rules(decided)
    what, source, refused = kernel.apply(
        rules=mine,
        routes=routes(decided),
        ipv6=decided.ipv6,
        native=native,
        force_binary=decided.force_iptables_binary,
        force=decided.force_apply,
        reconcile=decided.reconcile,
        namespace=decided.network_namespace,
        cni=decided.cni_mode,
    )
    lines.info(f"rules {what}", count=len(mine), source=source)
    _unseen(refused, lines)


def _validate(decided: Settings) -> int:
    from krun_iptables import verify

    return verify.validate(settings=decided, seconds=decided.probe_timeout)
