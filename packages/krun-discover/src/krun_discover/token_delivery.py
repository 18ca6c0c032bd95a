"""What krun-token does with its token: prints it, files it, keeps a file's token good, or tells about it."""

from __future__ import annotations

from krun_discover import token_claims
from krun_discover.errors import Failure
from krun_discover.issued import Token
from krun_discover.output import write
from krun_discover.token_file import TokenFile
from krun_discover.token_mint import Mint
from krun_discover.token_options import Options

CLAIMS = ("iss", "sub", "email", "aud")  # whose it is, and for whom; no secrets


def deliver(mint: Mint, options: Options) -> None:
    """Do what the flags ask for. Raises a Failure."""
    if options.file and options.watch:
        _watch(mint, options.file, seconds=options.timeout)
    elif options.file:
        # It will be used for a while: one that was kept has less of its life before it.
        options.file.write(mint.mint(seconds=options.timeout, is_new=True))
    elif options.explain:
        _explain(mint, seconds=options.timeout)
    else:
        write(mint.mint(seconds=options.timeout, is_new=False).value + "\n")


def _watch(mint: Mint, file: TokenFile, *, seconds: float) -> None:
    from krun_discover.token_signals import Ended, Signals
    from krun_discover.token_watch import Watch

    with Signals() as signals:

        def new() -> Token:
            with signals.interruptible():
                return mint.mint(seconds=seconds, is_new=True)

        try:
            Watch(mint=new, sink=file, pause=signals.pause).run()
        except Ended:
            return


def _explain(mint: Mint, *, seconds: float) -> None:
    try:
        token = mint.mint(seconds=seconds, is_new=True)
    except Failure:
        write("".join(f"{line}\n" for line in ["no token", *_indented(mint)]))
        raise
    write("".join(f"{line}\n" for line in [*_told(token), *_indented(mint)]))


def _told(token: Token) -> list[str]:
    from krun_discover.token_watch import stamp

    claims = token_claims.claims(token.value)
    lines = [f"token from {token.source}, expires {stamp(token.expires)}"]
    return lines + [f"  {name}: {token_claims.shown(str(claims[name]))}" for name in CLAIMS if name in claims]


def _indented(mint: Mint) -> list[str]:
    return ["tried:", *(f"  {line}" for line in mint.account())]
