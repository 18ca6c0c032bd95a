"""Envoy's TLS settings: the workload's certificate and the roots, by SDS files that are read again when they change."""

from __future__ import annotations

from krun_launch.static_settings import StaticSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Json = dict[str, "Any"]

TYPE = "type.googleapis.com/"
TLS = "envoy.extensions.transport_sockets.tls.v3"
CERTIFICATE = "certificate"
ROOTS = "roots"


def typed(name: str, *, kind: str, **fields: object) -> Json:
    """An extension of Envoy: its name, the type of its settings, and these."""
    return {"name": name, "typed_config": {"@type": TYPE + kind, **fields}}


def socket_address(address: str, port: int) -> Json:
    """A TCP address, as Envoy writes it."""
    return {"address": {"socket_address": {"address": address, "port_value": port}}}


def common(settings: StaticSettings, *, alpn: tuple[str, ...]) -> Json:
    """What both directions share: our certificate, and a peer of our trust domain, signed by the roots.

    The namespace of a peer is not compared with the name that was called: Envoy matches a prefix of the identity per
    cluster, not per request, and the mesh allows that a service's workloads have identities of another namespace.
    """
    return {
        "alpn_protocols": list(alpn),
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [_secret(settings, CERTIFICATE)],
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [
                    {"san_type": "URI", "matcher": {"prefix": f"spiffe://{settings.trust_domain}/"}}
                ]
            },
            "validation_context_sds_secret_config": _secret(settings, ROOTS),
        },
    }


def secrets(settings: StaticSettings) -> dict[str, Json]:
    """The SDS files by name. Envoy reads what they name again when something is moved into the watched folder."""
    live = settings.run_dir / "certs" / "live"
    watched = {"path": str(settings.run_dir / "certs")}
    certificate = {
        "certificate_chain": {"filename": str(live / "certificates.pem")},
        "private_key": {"filename": str(live / "private_key.pem")},
        "watched_directory": watched,
    }
    roots = {"trusted_ca": {"filename": str(live / "ca_certificates.pem")}, "watched_directory": watched}
    return {
        f"sds-{CERTIFICATE}.json": _resource(CERTIFICATE, {"tls_certificate": certificate}),
        f"sds-{ROOTS}.json": _resource(ROOTS, {"validation_context": roots}),
    }


def _secret(settings: StaticSettings, name: str) -> Json:
    path = settings.run_dir / f"sds-{name}.json"
    return {"name": name, "sds_config": {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}}


def _resource(name: str, secret: Json) -> Json:
    return {"resources": [{"@type": f"{TYPE}{TLS}.Secret", "name": name, **secret}]}
