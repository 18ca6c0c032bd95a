"""Which text counts for each setting, of the flags and variables that name it, and whose defaults hold.

Istio's tool is asked for by its first word, or by Istio's flags and variables alone; krun's own by krun's names for
some of them, or by nothing at all. What both name must not contradict.
"""

from __future__ import annotations

from krun_iptables.arguments import Given, WrongUse, flags
from krun_iptables.errors import Misconfigured
from krun_iptables.options import OPTIONS, Option
from krun_iptables.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST_WORD = "istio-iptables"
# Their empty value is one: no group at all; and one that Istio refuses.
EMPTY_COUNTS = ("ISTIO_OUTBOUND_OWNER_GROUPS", "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR")


class Choice(Record):
    """The text for each setting that was given, by its key; the others have their defaults."""

    given: Mapping[str, Given]
    is_istio: bool  # whose defaults

    def text(self, key: str, default: str = "") -> str:
        """Of a setting."""
        found = self.given.get(key)
        return found.text if found and found.text else default

    def is_on(self, key: str) -> bool:
        """Whether a switch is on. Raises WrongUse or Misconfigured."""
        found = self.given.get(key)
        return found is not None and switch(found)


def choose(arguments: Sequence[str], environ: Mapping[str, str]) -> Choice:
    """Read a command line and an environment.

    Raises:
        WrongUse: the command line is wrong, or contradicts itself.
        Misconfigured: two variables, or a flag and a variable, contradict each other.
    """
    by_word = list(arguments[:1]) == [FIRST_WORD]
    written = flags(arguments[1:] if by_word else arguments)
    options = [_istios(option) for option in OPTIONS] if by_word else OPTIONS
    given = {option.key: found for option in options if (found := _given(option, written, environ))}
    for one in written if by_word else ():
        if one.is_own and given[one.key].is_own and _says(one.key) == "what":
            hint = f"leave out {FIRST_WORD}, or take Istio's name for it"
            raise WrongUse(f"{one.name} is no option of {FIRST_WORD}", hint=hint)
    return Choice(given=given, is_istio=by_word or _is_istio(given))


def _istios(option: Option) -> Option:
    """The option as Istio's tool has it: krun's variable is none of its own."""
    return option if option.says == "log" else option.but(own_variable="")


def _says(key: str) -> str:
    return next(option.says for option in OPTIONS if option.key == key)


def _is_istio(given: Mapping[str, Given]) -> bool:
    """Whose defaults: how rules are applied, and what is logged, says nothing about which."""
    asked = [given[option.key] for option in OPTIONS if option.key in given and option.says == "what"]
    kinds = given.get("force_iptables_binary")
    return bool(asked) and not any(one.is_own for one in [*asked, *([kinds] if kinds else [])])


def _given(option: Option, written: Sequence[Given], environ: Mapping[str, str]) -> Given | None:
    """What counts for one setting. A flag wins over the variables of its own kind."""
    mine = [one for one in written if one.key == option.key]
    istio = next((one for one in reversed(mine) if not one.is_own), None)
    own = next((one for one in reversed(mine) if one.is_own), None)
    if option.own_variable:
        own = own or _variable(option.key, [option.own_variable], environ, is_own=True)
    if option.own_variable or not own:
        istio = istio or _variable(option.key, option.variables, environ)
    if istio and own and istio.text != own.text:
        message = f"{own.name} and {istio.name} name the same setting: {own.text!r} and {istio.text!r} contradict"
        kind = WrongUse if istio.is_flag and own.is_flag else Misconfigured
        raise kind(message, hint=f"leave out {istio.name}, which is Istio's name, or {own.name}, which is krun's")
    return own or istio


def _variable(key: str, names: Sequence[str], environ: Mapping[str, str], *, is_own: bool = False) -> Given | None:
    """The last one that is set; an empty one is not, as a rule."""
    for name in reversed(names):
        text = environ.get(name, "")
        if text or (name in EMPTY_COUNTS and name in environ):
            return Given(key=key, name=name, text=text, is_own=is_own)
    return None


def switch(given: Given) -> bool:
    """Read on or off as Go does.

    Raises:
        WrongUse, Misconfigured: it is neither.
    """
    if given.text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if given.text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise wrong(given, "is neither true nor false", hint="true or false")


def wrong(given: Given, why: str, *, hint: str, entry: str | None = None) -> WrongUse | Misconfigured:
    """The failure for a text: of the command line, or of the environment."""
    kind = WrongUse if given.is_flag else Misconfigured
    return kind(f"{given.name}: {given.text if entry is None else entry!r} {why}", hint=hint)
