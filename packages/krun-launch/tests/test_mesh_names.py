"""Which names are answered with the mesh's address."""

from __future__ import annotations

import pytest

from krun_launch.mesh_names import Kind, kind

NAMESPACES = frozenset({"demo", "web"})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("b.demo.svc.cluster.local", Kind.MESH),
        ("B.Demo.SVC.Cluster.Local", Kind.MESH),
        ("b.other.svc.cluster.local", Kind.MESH),
        ("b.demo.svc", Kind.MESH),
        ("b.demo", Kind.MESH),
        ("b.web", Kind.MESH),
        # What the search domain makes of names outside.
        ("example.com.demo.svc.cluster.local", Kind.ABSENT),
        ("b.demo.svc.demo.svc.cluster.local", Kind.ABSENT),
        ("svc.cluster.local", Kind.ABSENT),
        ("demo.svc.cluster.local", Kind.ABSENT),
        ("under_score.demo.svc.cluster.local", Kind.ABSENT),
        ("a.b.c.svc", Kind.ABSENT),
        ("svc", Kind.ABSENT),
        ("cluster.local", Kind.OUTSIDE),
        ("b", Kind.OUTSIDE),
        ("", Kind.OUTSIDE),
        ("b.other", Kind.OUTSIDE),
        ("a.b.demo", Kind.OUTSIDE),
        ("-b.demo", Kind.OUTSIDE),
        ("example.com", Kind.OUTSIDE),
        ("www.google.dev", Kind.OUTSIDE),
    ],
)
def test_kind(host: str, expected: Kind) -> None:
    assert kind(host, namespaces=NAMESPACES) is expected
