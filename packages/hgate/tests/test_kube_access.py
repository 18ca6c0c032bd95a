"""What RBAC is asked for by a request, read from its method and path."""

from __future__ import annotations

import pytest

from hgate.kube_access import access_of

ISTIO = "/apis/networking.istio.io/v1"


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/api/v1/services?limit=500", "list services in all namespaces"),
        ("GET", "/api/v1/services?watch=1&resourceVersion=3", "watch services in all namespaces"),
        ("GET", "/api/v1/namespaces/demo/services/web", "get services 'web' in namespace demo"),
        ("GET", "/api/v1/namespaces/demo", "get namespaces 'demo' in all namespaces"),
        ("POST", "/api/v1/namespaces/demo/events?fieldManager=hgate", "create events in namespace demo"),
        ("PUT", f"{ISTIO}/namespaces/demo/sidecars/a", "update sidecars.networking.istio.io 'a' in namespace demo"),
        ("PATCH", "/api/v1/namespaces/demo/services/web/status", "patch services/status 'web' in namespace demo"),
        ("DELETE", "/api/v1/namespaces/demo/services/web", "delete services 'web' in namespace demo"),
        (
            "GET",
            "/api/v1/configmaps?fieldSelector=metadata.name%3Dhgate&limit=5",
            "list configmaps 'hgate' in all namespaces",
        ),
        ("GET", "/api/v1/services?labelSelector=app.kubernetes.io/managed-by=hgate", "list services in all namespaces"),
    ],
)
def test_an_access_is_named_as_roles_name_it(method: str, path: str, said: str) -> None:
    assert str(access_of(method, path)) == said
