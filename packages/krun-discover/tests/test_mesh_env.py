"""The config map mesh-env: data, not code. What may not be set by a cluster never gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover import contract
from krun_discover.environment import is_roots
from krun_discover.mesh_env import accept

PEM = "-----BEGIN CERTIFICATE-----\nMIIB+/=\n-----END CERTIFICATE-----"


def test_what_hgate_writes_is_taken() -> None:
    data = {
        "PROJECT_ID": "p",
        "PROJECT_NUMBER": "7",
        "MESH_TENANT": "-",
        "CLUSTER_NAME": "c",
        "CLUSTER_LOCATION": "r",
        "MCON_ADDR": "34.1.1.1",
        "IMCON_ADDR": "10.0.0.9",
        "CAROOT_ISTIOD": PEM + "\n" + PEM + "\n",
        "PORT_grpc": "9090",
        "startupProbe.http": "/healthz",
    }
    accepted = accept(data)
    assert accepted.dropped == ()
    assert accepted.values["CAROOT_ISTIOD"] == PEM + "\n" + PEM
    assert accepted.values["STARTUP_PROBE_HTTP"] == "/healthz"
    assert set(accepted.values) == set(data) - {"startupProbe.http"} | {"STARTUP_PROBE_HTTP"}


HOSTILE = {
    "LD_PRELOAD": "/tmp/x.so",
    "LD_LIBRARY_PATH": "/tmp",
    "PATH": "/tmp",
    "PYTHONPATH": "/tmp",
    "PYTHONSTARTUP": "/tmp/x",
    "BASH_ENV": "/tmp/x",
    "IFS": "x",
    "HTTP_PROXY": "http://x",
    "SSL_CERT_FILE": "/tmp/x",
    "K8S_UID": "0",
    "PROXY_UID": "0",
    "SSH_AUTH": "ssh-ed25519 AAAA",
    "KRUN_ENVOY": "/tmp/x",
    "KRUN_CERTS": "/tmp",
    "KRUN_OFFER": "15000",
    "KRUN_PUBLIC": "app",
    "KRUN_ID_TOKEN_COMMAND": "x",
    "WORKLOAD_NAMESPACE": "kube-system",
    "WORKLOAD_SERVICE_ACCOUNT": "admin",
    "MESH": "file:/etc/shadow",
    "PORT": "1",
    "PORT_": "1",
    "PORT_x": "15000",
    "PORT_y": "15021",
    "PORT_a b": "80",
    "PORT_x\nPATH": "80",
    "PORT_z": "0",
    "PORT_w": "65536",
    "PORT_v": "٣",
    "PORT_u": "80\nPATH=/tmp",
    "XDS_ADDR": "a b",
    "MCON_ADDR": "x:0",
    "IMCON_ADDR": "x" * 5000,
    "TRUST_DOMAIN": "a\nPATH=/tmp",
    "CLUSTER_NAME": "a\x1b[2J",
    "CAROOT_": PEM,
    "CAROOT_X": PEM + "\nexport PATH=/tmp",
    "CAROOT_KEY": PEM.replace("CERTIFICATE", "PRIVATE KEY"),
    "CAROOT_BIG": PEM * 20000,
    "A" * 10000: "x",
    "": "x",
    "OUTBOUND_IP_RANGES_INCLUDE": "10.0.0.0/8" * 1000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_entry_is_dropped_and_said_and_the_rest_is_taken(name: str) -> None:
    accepted = accept({name: HOSTILE[name], "MESH_TENANT": "t"})
    assert accepted.values == {"MESH_TENANT": "t"}
    ((dropped, reason),) = accepted.dropped
    assert dropped == name
    assert reason


@given(data=st.dictionaries(st.text(max_size=12) | st.sampled_from(sorted(HOSTILE)), st.text(max_size=20)))
def test_nothing_but_what_the_contract_marks_ever_gets_through(data: dict[str, str]) -> None:
    accepted = accept(data)
    for name, value in accepted.values.items():
        assert name in contract.MESH_ENV or name.startswith("PORT_") or is_roots(name)
        assert value.isprintable() or is_roots(name)
    assert {name for name, _ in accepted.dropped} <= set(data)
