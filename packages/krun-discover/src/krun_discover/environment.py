"""The first source: flags of the command line, and the environment. An empty variable counts as not set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from krun_discover.resolve import NAME, Answer, Candidate, Known


class Environment:
    """What the user and the platform have set. ``flags``: variable name to the flag's text, for those given."""

    def __init__(self, *, environ: Mapping[str, str], flags: Mapping[str, str]) -> None:
        self._environ = environ
        self._flags = flags

    def names(self) -> Iterable[str]:
        """Ports of the application, and roots. Names that no tool could pass on (an environment holds any) are out."""
        return [name for name in self._environ if is_port(name) or is_roots(name)]

    def candidates(self, name: str, known: Known) -> Iterable[Candidate]:
        """The flag when there is one, then the variable itself."""
        if name in self._flags:
            yield Candidate(source="command line", ask=lambda: Answer(value=self._flags[name]))
        yield Candidate(source="environment", ask=lambda: self._ask(name))

    def _ask(self, name: str) -> Answer:
        value = self._environ.get(name)
        return Answer(value=value or "", note="not set" if value is None else "" if value else "empty")


def is_port(name: str) -> bool:
    """Tell whether the variable names a port of the application, as ``PORT_http``."""
    return name.startswith("PORT_") and len(name) > 5 and NAME.fullmatch(name) is not None


def is_roots(name: str) -> bool:
    """Tell whether the variable holds root certificates, as ``CAROOT_ISTIOD``."""
    return name.startswith("CAROOT_") and len(name) > 7 and NAME.fullmatch(name) is not None
