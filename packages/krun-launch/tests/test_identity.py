"""Who runs as whom."""

from __future__ import annotations

import pytest

from krun_launch.errors import Denied, Misconfigured
from krun_launch.facts import Facts
from krun_launch.identity import NET_ADMIN, NET_RAW, Identity, of_app, uid_of

USER = Facts(uid=1000)
ROOT = Facts(uid=0, cannot_switch="")
KNOWN = Facts(uid=0, cannot_switch="", app_gid=50)
NETWORK = frozenset({NET_ADMIN, NET_RAW})


@pytest.mark.parametrize(
    ("text", "facts", "who"),
    [
        ("", USER, None),
        ("1000", USER, None),
        ("1000:7", USER, None),
        ("", ROOT, (0, 0)),
        ("65532", ROOT, (65532, 65532)),
        ("65532", KNOWN, (65532, 50)),
        ("65532:0", KNOWN, (65532, 0)),
        ("0", ROOT, (0, 0)),
        ("0:0", KNOWN, (0, 0)),
    ],
)
def test_the_application_is_whom_k8s_uid_names(text: str, facts: Facts, who: tuple[int, int] | None) -> None:
    expected = who and Identity(uid=who[0], gid=who[1], drops=NETWORK)
    assert of_app({"K8S_UID": text}, facts=facts) == expected


@pytest.mark.parametrize("text", ["app", "-1", "1:", ":1", "1:2:3", "4294967295", "٣", "1.5", "1 "])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="not UID or UID:GID"):
        of_app({"K8S_UID": text}, facts=ROOT)


@pytest.mark.parametrize("text", ["1337", "1338", "1339:1339", "1000:1337"])
def test_nobody_is_one_of_our_own_parts(text: str) -> None:
    with pytest.raises(Misconfigured, match="one of krun's own parts"):
        of_app({"K8S_UID": text}, facts=ROOT)


def test_another_user_than_ours_needs_root() -> None:
    with pytest.raises(Denied, match=r"K8S_UID=7: .*not root"):
        of_app({"K8S_UID": "7"}, facts=USER)


@pytest.mark.parametrize(("text", "uid"), [("7", 7), ("7:8", 7), ("", None), ("app", None), ("99999999999", None)])
def test_the_account_to_look_up(text: str, uid: int | None) -> None:
    assert uid_of({"K8S_UID": text}) == uid
