"""Why a proxy did not become ready, by lines that pilot-agent and Envoy wrote when it happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch import istio_diagnosis
from krun_launch.agent_log import complaints
from krun_launch.errors import DeadlinePassed, Denied, Failure, Misconfigured, Unreachable
from krun_launch.plan import Diagnosis, Step

SIGN = "2026-11-26T04:24:08.771538Z\terror\tcitadelclient\tfailed to sign CSR: create certificate: rpc error: code = "
JSON = '{"level":"error","time":"2026-11-26T04:24:08Z","msg":"failed to sign CSR: rpc error: code = '
TLS = 'Unavailable desc = connection error: desc = "transport: authentication handshake failed: tls: failed to verify '
DIAL = 'Unavailable desc = connection error: desc = "transport: Error while dialing: dial tcp'
ENVOY = "2026-11-26T04:24:44.991396Z\twarning\tenvoy config external/envoy/source/x.cc:189\t"
NOISE = (
    "2026-11-26T04:24:06.938770Z\twarn\tconcurrency is set to 0, which will use a thread per CPU on the host.\n"
    "2026-11-26T04:24:07.206177Z\twarn\tca\tca request failed, starting attempt 1 in 103.22024ms\n"
    f"{ENVOY}DeltaAggregatedResources gRPC config stream to xds-grpc closed: 16, authentication failure thread=1\n"
)


def diagnosis(folder: Path) -> Diagnosis:
    return Diagnosis(
        log=folder / "complaints",
        discovery="192.0.2.7:15012",
        discovery_san="istiod.x.svc",
        token="account default in demo",
    )


STEP = Step(name="agent ready", part="pilot-agent", timeout=4.0, setting="KRUN_READY_TIMEOUT")


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        (
            f'{SIGN}{TLS}certificate: x509: certificate signed by unknown authority"',
            Misconfigured,
            "the control plane 192.0.2.7:15012 is not that of CAROOT_ISTIOD: another root has signed for it",
        ),
        (
            f'{SIGN}{TLS}certificate: x509: certificate is valid for istio-pilot.istio-system.svc, a.svc, not b.svc"',
            Misconfigured,
            "192.0.2.7:15012 is not istiod.x.svc: its certificate is for istio-pilot.istio-system.svc, a.svc",
        ),
        (
            f"{SIGN}{TLS}certificate: x509: certificate has expired or is not yet valid: current time "
            '2019-01-01T00:00:00Z is before 2026-11-26T03:00:00Z"',
            Misconfigured,
            "not valid by our clock: current time 2019-01-01T00:00:00Z is before 2026-11-26T03:00:00Z",
        ),
        (
            f"{SIGN}Unauthenticated desc = request authenticate failure",
            Denied,
            "does not take our token (account default in demo): request authenticate failure",
        ),
        (
            f'{JSON}Unauthenticated desc = request authenticate failure"}}',
            Denied,
            "does not take our token (account default in demo): request authenticate failure",
        ),
        (
            "2026-11-26T04:24:15.138232Z\twarn\txdsproxy\tupstream terminated with unexpected error rpc error: "
            "code = PermissionDenied desc = authorization failed: no identities matched\tid=1",
            Denied,
            "refuses us (account default in demo): authorization failed: no identities matched",
        ),
        (f'{SIGN}{DIAL} 192.0.2.7:15012: connect: connection refused"', Unreachable, "cannot be reached: connection"),
        (
            f'{JSON}{DIAL} 192.0.2.7:15012: i/o timeout\\""}}'.replace('"transport', '\\"transport'),
            Unreachable,
            "cannot be reached: i/o timeout",
        ),
        (
            f'{SIGN}{DIAL}: lookup istiod.no.invalid on 192.0.2.53:53: no such host"',
            Unreachable,
            "no address for 192.0.2.7: no such host",
        ),
        (
            "Error: failed to get proxy config: failed to unmarshal mesh config from environment [{}]: "
            "could not parse proxy config: invalid character 'o' in literal null (expecting 'u')",
            Misconfigured,
            "PROXY_CONFIG: pilot-agent cannot read it: invalid character 'o' in literal null (expecting 'u')",
        ),
        (
            f"{ENVOY}delta config for envoy.config.listener.v3.Listener rejected: Error adding/updating "
            "listener(s) virtualInbound: cannot bind '0.0.0.0:15006': Address already in use\tthread=2",
            Misconfigured,
            "Envoy cannot listen on 0.0.0.0:15006: Address already in use",
        ),
        (
            f"{ENVOY}delta config for envoy.config.listener.v3.Listener rejected: Error adding "
            "listener(s) x: Didn't find a registered implementation for 'istio.alpn'\tthread=2",
            Misconfigured,
            "Envoy rejects its configuration: Error adding listener(s) x: Didn't find a registered implementation",
        ),
    ],
)
def test_complaint_becomes_a_cause(line: str, kind: type[Failure], text: str, tmp_path: Path) -> None:
    kept = complaints(f"{NOISE}{line}\n{NOISE}".encode())
    (tmp_path / "complaints").write_bytes(b"\n".join(kept) + b"\n")
    failure = istio_diagnosis.failure(diagnosis(tmp_path), step=STEP)
    assert type(failure) is kind
    assert text in failure.message
    assert failure.hint
    assert "\n" not in failure.message


def test_an_agent_that_ended_without_a_known_cause_is_told_with_its_last_complaint(tmp_path: Path) -> None:
    (tmp_path / "complaints").write_text("2026-11-26T04:24:08Z\terror\tsomething new\n")
    failure = istio_diagnosis.failure(diagnosis(tmp_path), step=STEP, ended="ended with status 1")
    assert isinstance(failure, Unreachable)
    assert failure.message == "pilot-agent ended with status 1 before step 'agent ready' was done: error something new"


def test_a_control_plane_that_says_nothing_is_told_as_such(tmp_path: Path) -> None:
    failure = istio_diagnosis.failure(diagnosis(tmp_path), step=STEP)
    assert isinstance(failure, DeadlinePassed)
    assert failure.message == "the control plane 192.0.2.7:15012 has said nothing to pilot-agent within 4 s"


def test_a_proxy_that_complains_of_something_new_is_told_with_it(tmp_path: Path) -> None:
    (tmp_path / "complaints").write_text("2026-11-26T04:24:08Z\terror\tsomething new\n")
    failure = istio_diagnosis.failure(diagnosis(tmp_path), step=STEP)
    assert isinstance(failure, DeadlinePassed)
    assert failure.message.endswith("within 4 s: error something new")


@given(st.text())
def test_whatever_was_complained_of_the_message_is_one_line(text: str) -> None:
    where = Diagnosis(log=Path("/nowhere"), discovery="x:1", discovery_san="y", token="z")
    for line in (text, f"code = Unauthenticated desc = {text}", f"could not parse proxy config: {text}"):
        found = istio_diagnosis.cause([line], diagnosis=where)
        assert found is None or found.message.isprintable()
