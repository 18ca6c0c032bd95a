"""URLs of services as users declare them: what is read, and each trick that is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgate.refusal import Refused
from hgate.service_url import of_label, parse

NUMBERED = "https://web-123456789.us-central1.run.app"
HASHED = "https://fortio-cr-icq63pqnqq-uc.a.run.app"


def test_the_numbered_form_says_service_project_and_region() -> None:
    url = parse(NUMBERED)
    assert (url.name, url.project, url.region, url.hash) == ("web", "123456789", "us-central1", "")
    assert (str(url), url.audience) == (NUMBERED, NUMBERED)


def test_the_hashed_form_says_service_hash_and_code() -> None:
    url = parse(HASHED)
    assert (url.name, url.project, url.hash, url.code) == ("fortio-cr", "", "icq63pqnqq", "uc")


def test_a_tag_is_of_the_service_and_its_tokens_are_the_services() -> None:
    url = parse("https://v2---web-123456789.us-central1.run.app")
    assert (url.tag, url.name, url.audience) == ("v2", "web", NUMBERED)


def test_case_and_a_last_slash_make_no_other_url() -> None:
    assert parse("HTTPS://WEB-123456789.US-Central1.Run.App/") == parse(NUMBERED)


@pytest.mark.parametrize("text", ["https://api.example.com", "https://x.run.app.evil.com", "https://evilrun.app"])
def test_other_hosts_are_no_cloud_run(text: str) -> None:
    assert not parse(text).is_cloud_run


REFUSED = {
    "https://user:secret@web-123456789.us-central1.run.app": "credentials",
    "https://web-123456789.us-central1.run.app@evil.com": "credentials",
    "http://user:secret@evil.com": "credentials",
    "http://web-123456789.us-central1.run.app": "not https",
    "web-123456789.us-central1.run.app": "not https",
    "tcp://10.0.0.1:22": "not https",
    "file:///etc/passwd": "not https",
    "https:/web-123456789.us-central1.run.app": "not https",
    "https://web-123456789.us-central1.run.app/path": "path",
    "https://web-123456789.us-central1.run.app/_hbone/22": "path",
    "https://web-123456789.us-central1.run.app//": "path",
    "https://web-123456789.us-central1.run.app?a=b": "query",
    "https://web-123456789.us-central1.run.app#a": "fragment",
    "https://web-123456789.us-central1.run.app:443": "port",
    "https://web-123456789.us-central1.run.app:": "port",
    "https://web-123456789.us-central1.run.app.": "dot",
    "https://localhost": "full host name",
    "https://web": "full host name",
    "https://": "full host name",
    "https://.run.app": "full host name",
    "https://web..run.app": "full host name",
    "https://a.b\\.run.app": "full host name",
    "https://a%2eexample.com": "full host name",
    "https://-a.example.com": "full host name",
    f"https://{'a' * 64}.example.com": "full host name",
    f"https://{'a.' * 130}com": "full host name",
    "https://10.0.0.1": "address",
    "https://169.254.169.254": "address",
    "https://127.1": "address",
    "https://2130706433": "address",
    "https://0x7f.0.0.1": "address",
    "https://0177.0.0.1": "address",
    "https://127.0.0.1.": "address",
    "https://[::1]": "address",
    "https://[::ffff:10.0.0.1]/": "address",
    "https://a.run.app": "form of a Cloud Run service",
    "https://web.us-central1.run.app": "form of a Cloud Run service",
    "https://web-123456789.run.app": "form of a Cloud Run service",
    "https://web-123456789.evil.us-central1.run.app": "form of a Cloud Run service",
    "https://web-icq63pqnqq-uc.b.run.app": "form of a Cloud Run service",
    "https://web-icq63pqnqq-uc.a.a.run.app": "form of a Cloud Run service",
    "https://1web-123456789.us-central1.run.app": "form of a Cloud Run service",
    "https://w\u0435b-123456789.us-central1.run.app": "not ASCII",
    "https://web-123456789。us-central1。run。app": "not ASCII",
    "https://web-123456789.us-central1.run.ⓐpp": "not ASCII",
    "https://web-123456789.us-central1.run.app\x00.evil.com": "not ASCII",
    "https://web-123456789.us-central1.run.app\t": "not ASCII",
}


@pytest.mark.parametrize(("text", "why"), REFUSED.items())
def test_what_is_more_or_less_than_a_public_host_is_refused(text: str, why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        parse(text)
    assert refused.value.hint


@pytest.mark.parametrize("text", [text for text in REFUSED if "secret" in text])
def test_credentials_are_not_told_again(text: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(text)
    assert "secret" not in refused.value.reason + refused.value.hint


@given(st.text(max_size=80) | st.from_regex(r"https?://[a-z0-9.@:/?#\[\]%-]{0,60}", fullmatch=True))
def test_whatever_is_read_is_its_own_host_and_nothing_else(text: str) -> None:
    try:
        url = parse(text)
    except Refused:
        return
    assert text.lower().rstrip("/") == f"https://{url.host}"
    assert not set(url.host) & set("@:/?#[]%\\ ")
    assert parse(str(url)) == url


@given(st.from_regex(r"https://[a-z0-9.-]{1,40}\.run\.app", fullmatch=True))
def test_what_ends_like_cloud_run_is_cloud_run_or_refused(text: str) -> None:
    try:
        url = parse(text)
    except Refused:
        return
    assert url.is_cloud_run
    assert bool(url.project) != bool(url.hash)


def test_a_label_of_the_older_form_is_a_service() -> None:
    url = of_label("cloudrun-6c3hzwsnla-uc")
    assert str(url) == "https://cloudrun-6c3hzwsnla-uc.a.run.app"
    assert of_label("web") is None
    assert of_label("web-1") is None
    assert of_label(f"{'a' * 60}-6c3hzwsnla-uc") is None
