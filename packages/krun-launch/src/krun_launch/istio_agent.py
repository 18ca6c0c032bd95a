"""pilot-agent as it is today: its command line, its environment, and its files below the run folder.

Paths of the agent are relative to its working directory, so that several run side by side and nothing of it is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from krun_launch import environments, istio_proxy_config
from krun_launch.errors import Misconfigured
from krun_launch.istio_paths import ROOT, TOKEN
from krun_launch.istio_settings import IstioSettings

CERTIFICATES = "certs"
CHAIN = f"{CERTIFICATES}/cert-chain.pem"
LABELS = "etc/istio/pod/labels"
ANNOTATIONS = "etc/istio/pod/annotations"
# Where the agent itself writes: its sockets, Envoy's bootstrap, the workload's certificate.
FOLDERS = ("etc/istio/proxy", "var/run/secrets/workload-spiffe-uds", CERTIFICATES)
SHARED = (TOKEN.rpartition("/")[0],)  # krun-token puts it there, whom nobody is to lead elsewhere
# In Istio's images, and beside an agent that was built by hand.
PROGRAM = "pilot-agent"
USUAL_FOLDER = "/usr/local/bin"
TEMPLATE = "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"
TEMPLATES = ("envoy_bootstrap_tmpl.json", "envoy_bootstrap.json")

# What today's agent reads and a user may say (its own sources: pilot/cmd/pilot-agent/options).
READ = (
    "CA_ADDR",
    "CA_PROVIDER",
    "CA_ROOT_CA",
    "CLOUD_PLATFORM",
    "COMPLIANCE_POLICY",
    "DNS_FORWARD_PARALLEL",
    "DNS_FORWARD_TIMEOUT",
    "ECC_CURVE",
    "ECC_SIGNATURE_ALGORITHM",
    "ENABLE_PROBE_KEEPALIVE_CONNECTIONS",
    "ENVOY_SKIP_DEPRECATED_LOGS",
    "FILE_DEBOUNCE_DURATION",
    "FILE_MOUNTED_CERTS",
    "GCP_METADATA",
    "GCP_QUOTA_PROJECT",
    "GCP_ZONE",
    "GRPC_KEEPALIVE_INTERVAL",
    "GRPC_KEEPALIVE_TIMEOUT",
    "HOST_IP",
    "HTTP_STRIP_FRAGMENT_FROM_PATH_UNSAFE_IF_DISABLED",
    "INSTANCE_IP",
    "ISTIO_AGENT_ENABLE_WASM_REMOTE_LOAD_CONVERSION",
    "ISTIO_BOOTSTRAP_OVERRIDE",
    "ISTIO_CPU_LIMIT",
    "ISTIO_DELTA_XDS",
    "ISTIO_DUAL_STACK",
    "ISTIO_GPRC_MAXRECVMSGSIZE",
    "ISTIO_GPRC_MAXSTREAMS",
    "ISTIO_PROMETHEUS_ANNOTATIONS",
    "ISTIO_WASM_MAX_BINARY_SIZE_BYTES",
    "METRICS_LOCALHOST_ACCESS_ONLY",
    "PEER_METADATA_DISCOVERY",
    "PILOT_AGENT_MERGE_ENVOY_STATS",
    "PILOT_CERT_PROVIDER",
    "PILOT_ENABLE_CA_CRL",
    "PKCS8_KEY",
    "PROV_CERT",
    "PROXY_CONFIG_XDS_AGENT",
    "SECRET_GRACE_PERIOD_RATIO",
    "SECRET_GRACE_PERIOD_RATIO_JITTER",
    "SECRET_TTL",
    "WORKLOAD_RSA_KEY_SIZE",
    "XDS_ROOT_CA",
)
READ_BY_PREFIX = ("ISTIO_META_", "ISTIO_METAJSON_", "XDS_HEADER_", "CA_HEADER_", "WASM_")
# What a user may have from older texts. Where connections are led is not the agent's to know: told NONE, istiod binds
# every port of the mesh on loopback; told a proxy port, it makes a listener that leads nowhere (issue 48763 of Istio).
NEVER = frozenset({"ISTIO_META_INTERCEPTION_MODE", "ISTIO_META_HTTP_PROXY_PORT"})


def argv(*, agent: str, settings: IstioSettings, log_level: str, is_json: bool) -> tuple[str, ...]:
    """The agent's command line."""
    return (
        agent,
        "proxy",
        "sidecar",
        "--domain",
        f"{settings.namespace}.svc.cluster.local",
        f"--proxyLogLevel={log_level}",
        # All of its parts: a level of "default" is not theirs.
        f"--log_output_level=all:{_agents_level(log_level)},grpc:none",
        *(("--log_as_json",) if is_json else ()),
    )


def environment(
    env: Mapping[str, str], *, settings: IstioSettings, envoy: str, template: str, override: str, drain: int
) -> dict[str, str]:
    """The agent's environment: what it reads today, and no variable of the application.

    Args:
        env: the merged environment.
        settings: who the workload is, and where its control plane is.
        envoy: the program.
        template: the agent's template of Envoy's bootstrap.
        override: a file that is merged into it; empty when there is none.
        drain: seconds in which Envoy closes what is open.

    Raises:
        Misconfigured: PROXY_CONFIG is not what it must be, or two settings contradict each other.
    """
    given = {**istio_proxy_config.metadata(env), **env}
    if override and given.get("ISTIO_BOOTSTRAP_OVERRIDE"):
        raise Misconfigured(
            "ISTIO_BOOTSTRAP_OVERRIDE: in whitebox mode krun-launch has one of its own", hint="leave it out"
        )
    users = {
        name: value
        for name, value in given.items()
        if value and (name in READ or name.startswith(READ_BY_PREFIX)) and name not in NEVER
    }
    own = {name: env[name] for name in environments.PLAIN if name in env}
    return {
        **own,
        # The agent would ask the metadata servers of three clouds, for up to five seconds.
        "CLOUD_PLATFORM": "none",
        "ISTIO_META_APP_CONTAINERS": settings.name,
        "ISTIO_META_WORKLOAD_NAME": settings.name,
        **({"ISTIO_META_DNS_CAPTURE": "true"} if settings.is_captured else {}),
        **users,
        "GRPC_XDS_BOOTSTRAP": "",  # for applications without a proxy
        "ISTIO_BOOTSTRAP": template,
        **({"ISTIO_BOOTSTRAP_OVERRIDE": override} if override else {}),
        "ISTIOD_SAN": settings.discovery_san,
        "ISTIO_META_CLUSTER_ID": settings.cluster_id,
        "ISTIO_META_MESH_ID": settings.mesh_id,
        "OUTPUT_CERTS": str(settings.run_dir / CERTIFICATES),
        "POD_NAME": settings.pod_name,
        "POD_NAMESPACE": settings.namespace,
        "PROXY_CONFIG": istio_proxy_config.merged(env, settings=settings, envoy=envoy, drain=drain),
        "SERVICE_ACCOUNT": settings.service_account,
        "TRUST_DOMAIN": settings.trust_domain,
    }


def files(env: Mapping[str, str], *, settings: IstioSettings) -> dict[str, str]:
    """The agent's files: name below its working directory, content."""
    roots = env.get("CAROOT_ISTIOD", "").replace("\\n", "\n")
    return {
        LABELS: _downward(settings.labels),
        **({ANNOTATIONS: _downward(settings.annotations)} if settings.annotations else {}),
        **({ROOT: roots.rstrip("\n") + "\n"} if roots else {}),
    }


def _downward(values: Mapping[str, str]) -> str:
    """As the downward API writes them."""
    return "".join(f'{name}="{value}"\n' for name, value in sorted(values.items()))


def _agents_level(envoys: str) -> str:
    """The agent's own level that fits Envoy's: what it fails of is always said."""
    return {"trace": "debug", "debug": "debug", "info": "info"}.get(envoys, "warn")


def output_certificates(settings: IstioSettings) -> Path:
    """The chain that the agent got, as it writes it out."""
    return settings.run_dir / CHAIN
