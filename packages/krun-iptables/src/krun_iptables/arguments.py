"""A command line to what was given, read as pflag does, which Istio's tool is made with; click is for help."""

from __future__ import annotations

from krun_iptables.errors import Exit, Failure
from krun_iptables.options import BY_FLAG, BY_SHORT
from krun_iptables.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TOOL = "krun-iptables"


class WrongUse(Failure):
    """The command line is not one of ours."""

    exit_code = Exit.USAGE


class Given(Record):
    """A text that was given for a setting, and by which name: ``--flag``, ``-f`` or ``VARIABLE``."""

    key: str
    name: str
    text: str
    is_own: bool = False  # by krun's name for it, not Istio's

    @property
    def is_flag(self) -> bool:
        """Whether it stood on the command line."""
        return self.name.startswith("-")


def flags(arguments: Sequence[str]) -> tuple[Given, ...]:
    """Read a command line, in order.

    Raises:
        WrongUse: a flag is none of ours, lacks its value, or a word is no flag.
    """
    found: list[Given] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--" and not rest:
            break
        if word.startswith("--"):
            found.append(_long(word, rest))
        elif word.startswith("-") and word != "-":
            found += _short(word, rest)
        else:
            raise WrongUse(f"unexpected argument {word!r}", hint=_meant(word, found))
    return tuple(found)


def _meant(word: str, found: list[Given]) -> str:
    """What to do about a word that is none of ours."""
    if found and found[-1].text == "true" and word.lower() in ("true", "false"):
        return f"a switch takes its value so: {found[-1].name}={word}"
    return f"see '{TOOL} --help'"


def _long(word: str, rest: list[str]) -> Given:
    name, equals, text = word.partition("=")
    option = BY_FLAG.get(name.removeprefix("--"))
    if option is None:
        raise WrongUse(f"no such option: {shown(name)}", hint=f"see '{TOOL} --help'")
    if not equals:
        text = "true" if option.is_switch else _next(name, rest)
    return Given(key=option.key, name=name, text=text, is_own=name != f"--{option.flag}")


def _short(word: str, rest: list[str]) -> list[Given]:
    """One letter or several: ``-n``, ``-p 1``, ``-p1``, ``-p=1``, ``-np 1``."""
    found: list[Given] = []
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        option = BY_SHORT.get(letter)
        name = f"-{letter}"
        if option is None:
            raise WrongUse(f"no such option: {shown(name)}", hint=f"see '{TOOL} --help'")
        if letters.startswith("=") and len(letters) > 1:  # a lone one is a value, as pflag has it
            text, letters = letters[1:], ""
        elif option.is_switch:
            text = "true"
        else:
            text, letters = letters or _next(name, rest), ""
        found.append(Given(key=option.key, name=name, text=text))
    return found


def shown(word: str) -> str:
    """On one line."""
    return word if word.isprintable() else repr(word)


def _next(name: str, rest: list[str]) -> str:
    if not rest:
        raise WrongUse(f"{name} needs a value", hint=f"see '{TOOL} --help'")
    return rest.pop(0)
