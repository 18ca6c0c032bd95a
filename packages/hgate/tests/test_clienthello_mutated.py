"""Mutated ClientHellos: the name that a TLS server takes each for, or a clean refusal, and never anything else."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from hgate.clienthello import HelloError, Parser
from krun_testbed import hello_corpus, hello_mutations
from krun_testbed.hello_openssl import Server

SEEDS = range(10)
EACH = 100_000 if os.environ.get("KRUN_SOAK") else 400
HELLOS = [caught.data for caught in hello_corpus.load()]

pytestmark = pytest.mark.timeout(60 + EACH // 50)


def read(pieces: list[bytes]) -> tuple[str, str]:
    """How it ends: with a name, refused, or as if more were to come."""
    parser = Parser()
    try:
        for piece in pieces:
            if (found := parser.feed(piece)) is not None:
                return "taken", found.sni
    except HelloError:
        return "refused", ""
    return "waiting", ""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mutated_hello_is_taken_for_what_openssl_takes_it_for_or_refused(seed: int, tmp_path: Path) -> None:
    random, server, ends = Random(seed), Server(tmp_path), Counter[str]()
    for _ in range(EACH):
        data = hello_mutations.mutated(random, HELLOS)
        end, sni = read([data])
        assert read(hello_mutations.pieces(random, data)) == (end, sni), data.hex()
        expected = server.name(data)
        # It may refuse what we take: then the connection ends at the other side. All that it takes, we take as it does.
        if expected is not None:
            assert (end, sni) == ("taken", expected), data.hex()
        ends[end] += 1
    # That the mutations are neither all harmless nor all hopeless.
    assert min(ends["taken"], ends["refused"], ends["waiting"]) > EACH / 20
