"""ClientHellos of real TLS clients, as they were caught here: what tests of the gate read.

``python -m krun_testbed.hello_corpus`` catches those of every client that this machine has, and leaves the others as
they are; ``python -m krun_testbed.hello_corpus --list`` tells what is there. Which name each asks for is not read out
of its bytes: it is what the client was told to ask for.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import click

from krun_testbed import tables
from krun_testbed.components import Missing

FOLDER = tables.ROOT / "integration" / "tests" / "data" / "hellos"
INDEX = FOLDER / "index.json"
LINE = 96  # characters


@dataclass(frozen=True, kw_only=True)
class Caught:
    """One hello, and what its client was told."""

    name: str
    client: str  # and its version
    sni: str
    alpn: tuple[str, ...] | None  # None: the client was not asked to name any
    data: bytes


def load() -> list[Caught]:
    """The hellos that are kept."""
    found = json.loads(INDEX.read_text(encoding="utf-8"))
    return [
        Caught(
            name=name,
            client=entry["client"],
            sni=entry["sni"],
            alpn=None if entry["alpn"] is None else tuple(entry["alpn"]),
            data=bytes.fromhex((FOLDER / f"{name}.hex").read_text(encoding="utf-8")),
        )
        for name, entry in found.items()
    ]


def store(caught: Sequence[Caught]) -> None:
    """Keep these, in place of older ones of the same names."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    index = json.loads(INDEX.read_text(encoding="utf-8")) if INDEX.exists() else {}
    for one in caught:
        # As text, as every file here is.
        lines = textwrap.wrap(one.data.hex(), LINE)
        (FOLDER / f"{one.name}.hex").write_text("\n".join(lines) + "\n", encoding="utf-8")
        index[one.name] = {"client": one.client, "sni": one.sni, "alpn": one.alpn}
    INDEX.write_text(json.dumps(dict(sorted(index.items())), indent=2) + "\n", encoding="utf-8")


@click.command()
@click.option("--list", "is_list", is_flag=True, help="Only tell what is kept.")
@click.option("--client", "names", multiple=True, help="Only those whose names begin so (repeat for several).")
def main(is_list: bool, names: tuple[str, ...]) -> None:
    """Catch the ClientHellos of the TLS clients of this machine, and keep them for the tests."""
    # Late: reading the corpus needs no client.
    from krun_testbed import hello_catcher, hello_programs

    if is_list:
        for one in load():
            click.echo(f"{one.name:<28} {len(one.data):>5} bytes  {one.sni or '(none)':<48} {one.client}")
        return
    for client in hello_programs.CLIENTS:
        if names and not client.name.startswith(names):
            continue
        try:
            with hello_catcher.catching() as catcher, client.running(catcher) as version:
                data = catcher.wait()
        except (Missing, TimeoutError) as error:
            click.echo(f"{client.name}: left as it is: {error}", err=True)
            continue
        store([Caught(name=client.name, client=version, sni=client.sni, alpn=client.alpn, data=data)])
        click.echo(f"{client.name}: {len(data)} bytes of {version}")


if __name__ == "__main__":
    main()
