"""The failures of ``errors``, by the same names, imported when the first one happens.

A ProxyCommand is waited for at each ssh, and mostly all goes well: then click, which failures are made of, is a tenth
of the time until the first byte, for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hbone.errors import DeadlinePassed as DeadlinePassed
    from hbone.errors import Denied as Denied
    from hbone.errors import Failure as Failure
    from hbone.errors import Misconfigured as Misconfigured
    from hbone.errors import Unreachable as Unreachable
else:

    def __getattr__(name: str) -> object:
        from hbone import errors

        return getattr(errors, name)
