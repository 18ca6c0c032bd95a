"""One run of krun-discover: everything is found, and printed."""

from __future__ import annotations

import os
import time

from krun_discover import discovery, lines, mesh, metadata, render
from krun_discover.assembly import Assembly, Request
from krun_discover.output import write
from krun_discover.web import Web

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from krun_discover.options import Options


def run(options: Options) -> None:
    """Do it, with this process's environment. Raises a Failure."""
    deadline = time.monotonic() + options.timeout
    lines.configure(tool="krun-discover", level=options.log_level, style=options.log_format)
    named = mesh.parse(options.mesh)
    client = metadata.Client(settings=metadata.settings(os.environ, product=metadata.product_name), deadline=deadline)
    flags = {"MESH": options.mesh} if options.mesh_is_flag and options.mesh else {}
    request = Request(environ=os.environ, flags=flags, mesh=named, context=options.context)
    web = Web(deadline=deadline, environ=os.environ)
    assembly = Assembly(request=request, web=web, client=client)
    result = discovery.discover(assembly.resolution, environ=os.environ, lost=assembly.failure)
    if options.explain:
        from krun_discover import account, explain

        write(explain.values(result.found, dropped=named.dropped, mesh=named.label, remark=client.remark))
        write(account.rest(assembly, web=web))
    if result.failure:
        raise result.failure
    if options.tokens:
        _mint(options.tokens, assembly=assembly, values=result.values)
    if not options.explain:
        _report(result.values, named=named, style=options.style)
        write(render.environment(result.values, style=options.style))
    if options.stay is not None:
        from krun_discover.stay import stay  # late: only krun-launch asks for it

        stay(options.stay, is_wanted=bool(result.values.get("XDS_ADDR")))


def _mint(tokens: Sequence[tuple[str, str]], *, assembly: Assembly, values: Mapping[str, str]) -> None:
    from krun_discover.token_file import TokenFile
    from krun_discover.token_options import LIFE

    files = [(audience, TokenFile(path=path)) for audience, path in tokens]
    for _, file in files:
        file.check()
    cluster = assembly.cluster()
    for audience, file in files:
        token = cluster.mint_token(
            namespace=values["WORKLOAD_NAMESPACE"],
            account=values["WORKLOAD_SERVICE_ACCOUNT"],
            audiences=[audience],
            seconds=LIFE,
        )
        file.write(token)


def _report(values: dict[str, str], *, named: mesh.Mesh, style: str) -> None:
    if named.dropped:
        lines.warning(
            "variables that a mesh file may not set were dropped, see --explain",
            source=named.label,
            count=len(named.dropped),
        )
    if style == "shell" and (names := render.unsayable(values)):
        lines.warning(
            "names with a dot are left out, as no shell can export them", count=len(names), reason=" ".join(names)
        )
