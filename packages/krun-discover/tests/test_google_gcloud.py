"""gcloud's login, by a command of that name that does what gcloud 528 does."""

from __future__ import annotations

import json
import os
import shutil
import time
import traceback
from pathlib import Path

import pytest

from krun_discover import metadata
from krun_discover.address import Address
from krun_discover.errors import DeadlinePassed, Denied, Misconfigured
from krun_discover.google_gcloud import Gcloud
from krun_discover.google_source import Absent
from krun_discover.google_tokens import GoogleTokens
from krun_discover.token_cache import TokenCache
from krun_discover.web import Web
from krun_testbed.google_tokens import Issuer
from krun_testbed.web_peers import answer, web_peer

pytestmark = pytest.mark.loopback

# What it was called with is in "called", one line each.
SCRIPT = """#!/bin/sh
as=$CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT
echo "$* impersonating=$as prompts=$CLOUDSDK_CORE_DISABLE_PROMPTS" >>"$HOME/called"
%s
"""
USER = """
case "$*" in
*--audiences=*)
    echo "ERROR: (gcloud.auth.print-identity-token) Invalid account type for \\`--audiences\\`." \\
        "Requires valid service account." >&2
    exit 1 ;;
*) echo ya29.canary ;;
esac
"""
LOGGED_OUT = """
echo "ERROR: (gcloud.auth.print-access-token) You do not currently have an active account selected.
Please run:

  $ gcloud auth login" >&2
exit 1
"""
FAILING = """
echo "ERROR: (gcloud.auth.print-access-token) There was a problem refreshing ya29.canary:" >&2
printf 'invalid_grant\\033[2J: Bad Request' >&2
exit 1
"""
HANGING = """
sleep 600 &
echo $! >"$HOME/child"
wait
"""
IMPERSONATION = "CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT"


def install(home: Path, script: str) -> dict[str, str]:
    """The environment of a machine with this gcloud."""
    folder = home / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "gcloud").write_text(SCRIPT % script)
    (folder / "gcloud").chmod(0o755)
    return {"HOME": str(home), "PATH": f"{folder}:{os.defpath}", "NO_GCE_CHECK": "true"}


def called(home: Path) -> list[str]:
    return (home / "called").read_text().splitlines()


def google(environ: dict[str, str], *, seconds: float = 20.0, cache: TokenCache | None = None) -> GoogleTokens:
    return GoogleTokens(web=Web(deadline=time.monotonic() + seconds, environ=environ), environ=environ, cache=cache)


def test_a_login_gives_an_access_token_that_is_believed_to_live_five_minutes(tmp_path: Path) -> None:
    tokens = google(install(tmp_path, "echo ya29.canary"))
    token = tokens.access()
    assert token.value == "ya29.canary"
    assert 200 < token.expires - time.time() <= 300
    assert tokens.tried[-1].outcome == "used"
    google(install(tmp_path, "echo ya29.canary")).access(["https://a", "https://b"])
    assert called(tmp_path) == [
        "auth print-access-token impersonating= prompts=1",
        "auth print-access-token --scopes=https://a,https://b impersonating= prompts=1",
    ]


def test_a_service_account_that_is_logged_in_gives_id_tokens(tmp_path: Path) -> None:
    assert google(install(tmp_path, "echo a.b.canary")).identity("https://b.example").value == "a.b.canary"
    assert called(tmp_path) == ["auth print-identity-token --audiences=https://b.example impersonating= prompts=1"]


def test_a_user_has_id_tokens_for_cloud_run_only_which_takes_those_of_gcloud(tmp_path: Path) -> None:
    token = google(install(tmp_path, USER)).identity("https://web-1.us-central1.run.app")
    assert token.value == "ya29.canary"
    assert token.source.endswith("for gcloud itself")
    for audience in ("https://iap.example", "https://run.app.example", "run.app", "https://x.run.app@e.example/"):
        with pytest.raises(Misconfigured, match="no ID token of a chosen audience") as caught:
            google(install(tmp_path, USER)).identity(audience)
        assert IMPERSONATION in caught.value.hint


def test_a_token_of_another_audience_is_not_handed_out(tmp_path: Path) -> None:
    # As gcloud 528 does when the key of its service account is gone: status 0, and the last token for itself.
    token = Issuer().id_token("32555940559.apps.googleusercontent.com")
    with pytest.raises(Denied, match=r"is for 32555940559\.apps\.googleusercontent\.com, not for https://b\.example"):
        google(install(tmp_path, f"echo {token}")).identity("https://b.example")


def test_impersonation_is_ours_as_gcloud_would_not_say_which_role_is_missing(tmp_path: Path) -> None:
    environ = install(tmp_path, USER) | {
        IMPERSONATION: "robot@p.iam.gserviceaccount.com",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS": "http://127.0.0.1:1/",
    }
    with pytest.raises(Exception, match=r"generateIdToken for robot@p\.iam"):
        google(environ, seconds=0.4).identity("https://b.example")
    assert called(tmp_path) == ["auth print-access-token impersonating= prompts=1"]


def test_where_nobody_is_logged_in_gcloud_is_not_there(tmp_path: Path) -> None:
    environ = install(tmp_path, LOGGED_OUT)
    with pytest.raises(Absent, match="nobody is logged in"):
        Gcloud(environ=environ).access(["https://a"])
    with pytest.raises(Misconfigured, match=r"gcloud's login: nobody is logged in"):
        google(environ).access()
    shutil.rmtree(tmp_path / "bin")
    with pytest.raises(Misconfigured, match=r"gcloud's login: there is no command gcloud"):
        google(environ | {"PATH": str(tmp_path)}).access()


def test_what_gcloud_complains_about_is_told_without_what_looks_like_a_secret(tmp_path: Path) -> None:
    with pytest.raises(Denied) as caught:
        google(install(tmp_path, FAILING)).access()
    assert caught.value.message == (
        "gcloud auth print-access-token: status 1: ERROR: (gcloud.auth.print-access-token) There was a problem "
        "refreshing [secret]: invalid_grant?[2J: Bad Request"
    )
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("script", ["", "echo two words", "echo; echo a; echo b", "printf '\\033'"])
def test_an_output_that_is_no_token_is_told(tmp_path: Path, script: str) -> None:
    with pytest.raises(Exception, match="the answer holds no token"):
        google(install(tmp_path, script)).access()


def test_a_gcloud_that_hangs_is_ended_in_time_with_all_that_it_has_started(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(DeadlinePassed, match="print-access-token: not done within"):
        google(install(tmp_path, HANGING), seconds=1.0).access()
    assert time.monotonic() - begun < 10
    child = int((tmp_path / "child").read_text())
    # Its end is the kernel's to finish; what has ended and is not reaped yet is a zombie.
    deadline = time.monotonic() + 10
    while (state := _state(child)) not in ("", "Z") and time.monotonic() < deadline:
        os.sched_yield()
    assert state in ("", "Z")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_gcloud_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    environ = install(tmp_path, "")
    (tmp_path / "bin" / "gcloud").write_text("#!/no/such/interpreter\n")
    with pytest.raises(Misconfigured, match="cannot be run: No such file"):
        google(environ).access()


def test_on_a_laptop_a_kept_token_spares_the_probe_for_a_metadata_server(tmp_path: Path, address: str) -> None:
    environ = install(tmp_path, "echo ya29.canary") | {"NO_GCE_CHECK": ""}
    cache = TokenCache(folder=tmp_path / "tokens")
    with web_peer(address, answer(404, b"")) as peer:
        # Not by GCE_METADATA_HOST, which would speak for one.
        settings = metadata.Settings(server=Address(host=address, port=peer.port))

        def ask(settings: metadata.Settings) -> GoogleTokens:
            web = Web(deadline=time.monotonic() + 20, environ=environ)
            client = metadata.Client(settings=settings, deadline=web.deadline)
            tokens = GoogleTokens(web=web, environ=environ, metadata=client, cache=cache)
            assert tokens.access().value == "ya29.canary"
            return tokens

        ask(settings)
        assert len(peer.requests) == 1
        tokens = ask(settings)
        assert len(peer.requests) == 1
        assert tokens.tried[2].outcome.startswith("not asked: nothing speaks for one")
        ask(settings.but(sign="KUBERNETES_SERVICE_HOST"))
        assert len(peer.requests) == 2


def test_a_kept_token_is_for_the_account_that_is_active(tmp_path: Path) -> None:
    environ = install(tmp_path, "echo ya29.$(wc -l <$HOME/called)")
    cache = TokenCache(folder=tmp_path / "tokens")
    place = tmp_path / ".config" / "gcloud"
    (place / "configurations").mkdir(parents=True)
    (place / "active_config").write_text("default")
    (place / "configurations" / "config_default").write_text("[core]\naccount = a@example.com\n")
    values = [google(environ, cache=cache).access().value, google(environ, cache=cache).access().value]
    (place / "configurations" / "config_default").write_text("[core]\naccount = b@example.com\n")
    values.append(google(environ, cache=cache).access().value)
    (place / "active_config").write_text("other")
    values.append(google(environ, cache=cache).access().value)
    values.append(google(environ | {"CLOUDSDK_CORE_ACCOUNT": "c@example.com"}, cache=cache).access().value)
    (place / "credentials.db").write_text("")
    values.append(google(environ, cache=cache).access().value)
    assert values == ["ya29.1", "ya29.1", "ya29.2", "ya29.3", "ya29.4", "ya29.5"]
    kept = [json.loads(path.read_text())["value"] for path in (tmp_path / "tokens").iterdir()]
    assert len(kept) == 5
