"""What is promised of tunnels: each row with its target, against a peer of the same rounds."""

from __future__ import annotations

from krun_testbed.load_rounds import Row

RATE, CPU = "MB/s", "CPU s/GiB"
BARE = "python -I -S"  # the interpreter alone, which no start of ours is quicker than


def bulk() -> list[Row]:
    rows = []
    for kind, ours, peer, one, many in (
        ("h2c, copied", "hbone h2c copied", "envoy h2c", 1.3, 1.3),
        ("h2c, spliced", "hbone h2c", "envoy h2c", 2.0, 1.9),
        ("TLS", "hbone tls", "envoy tls", 1.0, 1.0),
    ):
        for metric, least in (("down1", one), ("up1", one), ("down16", many)):
            what = f"bulk {kind} {metric}, MB/s against Envoy"
            rows.append(Row(what=what, metric=metric, value=RATE, ours=ours, peer=peer, least=least))
    # An Envoy sends frames of 16 KiB whatever it is told.
    for metric, least in (("down1", 1.2), ("down16", 1.1)):
        what = f"bulk h2c {metric}, an Envoy sends to hbone, MB/s against Envoy"
        rows.append(Row(what=what, metric=metric, value=RATE, ours="hbone-envoy h2c", peer="envoy h2c", least=least))
    what = "bulk h2c up1, an Envoy sends to hboned, MB/s against Envoy"
    rows.append(Row(what=what, metric="up1", value=RATE, ours="envoy-hboned h2c", peer="envoy h2c", least=1.2))
    for metric in ("down1", "up1"):
        for ours, peer, name, least in (
            ("hbone tls", "ssh", "ssh -L", 1.5),
            ("hbone tls", "ssh gcm", "ssh -L aes128-gcm", 1.0),
            ("hbone h2c", "go h2c", "Go h2c", 1.3),
            ("hbone tls", "go tls", "Go TLS", 1.1),
        ):
            what = f"bulk {ours.split()[1]} {metric}, MB/s against {name}"
            rows.append(Row(what=what, metric=metric, value=RATE, ours=ours, peer=peer, least=least))
        for kind, ours, peer, most in (
            ("h2c, copied", "hbone h2c copied", "envoy h2c", 0.7),
            ("h2c, spliced", "hbone h2c", "envoy h2c", 0.3),
            ("TLS", "hbone tls", "envoy tls", 1.0),
        ):
            what = f"bulk {kind} {metric}, CPU for a GiB against Envoy"
            rows.append(Row(what=what, metric=metric, value=CPU, ours=ours, peer=peer, most=most))
    return rows


def latency() -> list[Row]:
    return [
        _latency("ping1", "p50", "h2c", "envoy h2c", 1.1),
        _latency("ping1", "p99", "h2c", "envoy h2c", 1.1),
        _latency("ping1k", "p50", "h2c", "envoy h2c", 1.0),
        _latency("ping1", "p50", "tls", "envoy tls", 1.25),
        _latency("ping1", "p99", "tls", "envoy tls", 1.3),
        _latency("ping1", "p50", "h2c", "ssh", 1.1),
        _latency("ping1", "p50", "tls", "ssh", 1.5),
        _latency("pingload", "p50", "h2c", "go h2c", 1.0),
        _latency("pingload", "p50", "h2c", "ssh gcm", 1.0),
        _latency("pingload", "p50", "tls", "ssh gcm", 1.5),
        _latency("pingload", "p99", "h2c", "envoy h2c", 1.2),
        _latency("pingload", "p99", "tls", "envoy tls", 1.2),
    ]


def _latency(metric: str, value: str, kind: str, peer: str, most: float) -> Row:
    return Row(
        what=f"{metric} {kind} {value} against {peer}",
        metric=metric,
        value=value,
        ours=f"hbone {kind}",
        peer=peer,
        most=most,
    )


def connections() -> list[Row]:
    rows = [
        Row(
            what=f"tunnels a second, 16 at once, {kind}, against {peer}",
            metric="conn16",
            value="conn/s",
            ours=f"hbone {kind}",
            peer=peer,
            least=least,
        )
        for kind, peer, least in (
            ("h2c", "envoy h2c", 0.8),
            ("tls", "envoy tls", 0.8),
            ("h2c", "ssh", 0.6),
            ("tls", "ssh", 0.6),
            ("h2c", "go h2c", 0.55),
            ("tls", "go tls", 0.55),
        )
    ]
    rows += [
        Row(
            what=f"CPU of a tunnel, both ends, {kind}, ms",
            metric="conn16",
            value="CPU ms",
            ours=f"hbone {kind}",
            most=0.55,
        )
        for kind in ("h2c", "tls")
    ]
    for kind in ("h2c", "tls"):
        ours, peer = f"hbone {kind}", f"envoy {kind}"
        rows += [
            Row(
                what=f"memory of an idle tunnel, {kind}, against Envoy",
                metric="idle",
                value="KiB each",
                ours=ours,
                peer=peer,
                most=0.1,
            ),
            Row(what=f"memory of an idle tunnel, {kind}, KiB", metric="idle", value="KiB each", ours=ours, most=4.0),
            Row(
                what=f"both ends, none open, {kind}, against Envoy",
                metric="idle",
                value="MiB none open",
                ours=ours,
                peer=peer,
                most=0.35,
            ),
            Row(what=f"both ends, none open, {kind}, MiB", metric="idle", value="MiB none open", ours=ours, most=28.0),
        ]
    return rows


def starts() -> list[Row]:
    openssl, ssh = "openssl s_client", "ssh -W"
    return [
        _start("TLS, system's roots", "hbone tls", peer=openssl, most=0.6),
        _start("TLS, one root", "hbone tls, one root", peer=f"{openssl}, one root", most=0.6),
        _start("TLS", "hbone tls", peer=ssh, most=0.12),
        _start("TLS, system's roots", "hbone tls", most=32.0),
        _start("TLS, one root", "hbone tls, one root", most=32.0),
        _start("h2c", "hbone h2c", most=18.0),
        # The same without this machine's speed: 18 and 32 ms were measured where the interpreter takes 10.2.
        _start("TLS, one root", "hbone tls, one root", peer=BARE, most=3.1),
        _start("h2c", "hbone h2c", peer=BARE, most=1.8),
    ]


def _start(kind: str, ours: str, *, most: float, peer: str = "") -> Row:
    what = f"start to first byte, {kind}, {f'against {peer}' if peer else 'ms'}"
    return Row(what=what, metric="start", value="ms", ours=ours, peer=peer, most=most)


ROWS = (*bulk(), *latency(), *connections(), *starts())
