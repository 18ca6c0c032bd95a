"""What is promised of hgate's data path: each row with its target, against a peer of the same rounds."""

from __future__ import annotations

from krun_testbed.load_rounds import Row

RATE, CPU = "MB/s", "CPU s/GiB"


def raw() -> list[Row]:
    """Bytes as they are, by the server name alone."""
    rows = [
        _row("bulk", "down1", RATE, "hgate", peer, least=least)
        for peer, least in (("haproxy", 2.5), ("nginx", 2.2), ("envoy", 1.5))
    ]
    rows += [
        _row("latency", "ping1", "p50", "hgate", "haproxy", most=1.1),
        _row("connections a second", "conn16", "conn/s", "hgate", "haproxy", least=0.8),
        _row("CPU of a connection", "conn16", "CPU ms", "hgate", "haproxy", most=1.25),
        _row("memory of a connection", "idle", "KiB each", "hgate", "haproxy", most=0.35),
        _row("memory of a connection", "idle", "KiB each", "hgate", "envoy", most=0.06),
        _row("latency beside 2,000 half hellos, of that without", "slow", "ratio", "hgate", "", most=1.2),
        _row("CPU with 2,000 half hellos at rest", "slow", "CPU % at rest", "hgate", "", most=1.0),
    ]
    return rows


def tunnels(kind: str) -> list[Row]:
    """Through HTTP/2: as fast as an Envoy that does the same, with the same kind behind it."""
    ours, peer = f"hgate {kind}", f"envoy {kind}"
    return [
        _row("bulk", "down1", RATE, ours, peer, least=1.2 if kind == "h2c" else 1.0),
        _row("bulk", "up1", RATE, ours, peer, least=1.2 if kind == "h2c" else 1.0),
        _row("CPU for a GiB", "down1", CPU, ours, peer, most=0.7 if kind == "h2c" else 1.0),
        _row("latency", "ping1", "p50", ours, peer, most=1.0 if kind == "h2c" else 1.25),
        _row("connections a second", "conn16", "conn/s", ours, peer, least=0.85),
        _row("memory of a connection", "idle", "KiB each", ours, peer, most=0.1),
        # The same server behind both: what is left is the gate alone.
        _row("bulk", "down1", RATE, f"hgate-envoy {kind}", peer, least=1.0),
    ]


def _row(
    what: str, metric: str, value: str, ours: str, peer: str, *, most: float | None = None, least: float | None = None
) -> Row:
    what = f"{ours}: {what} ({metric}, {value})" + (f" against {peer}" if peer else "")
    return Row(what=what, metric=metric, value=value, ours=ours, peer=peer, most=most, least=least)


ROWS = (*raw(), *tunnels("h2c"), *tunnels("tls"))
