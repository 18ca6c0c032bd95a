"""What the client of one tunnel says first is what the core would have said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hbone.first_flight import LONGEST, first_flight
from hbone.tunnel import Connection
from hbone.urls import URL

TOKENS = st.none() | st.text(alphabet="abcXYZ019._~+/=-", min_size=1, max_size=300)
PATHS = st.text(alphabet="abc019._~/-", max_size=300)


@given(
    scheme=st.sampled_from(["https", "http"]),
    host=st.sampled_from(["b.example", "127.0.0.1", "::1"]),
    port=st.integers(min_value=1, max_value=65535),
    path=PATHS,
    token=TOKENS,
)
def test_first_flight_is_the_cores(scheme: str, host: str, port: int, path: str, token: str | None) -> None:
    url = URL(scheme=scheme, host=host, port=port, path=f"/_hbone/{path}")
    core = Connection(client=True)
    headers = (("authorization", f"Bearer {token}"),) if token else ()
    core.open(scheme=scheme, authority=url.authority, path=url.path, headers=headers)
    assert first_flight(url, header="authorization", token=token) == core.data_to_send()


def test_headers_that_do_not_fit_into_a_frame_are_left_to_the_core() -> None:
    url = URL(scheme="https", host="b.example", port=443, path="/_hbone/22")
    assert first_flight(url, header="authorization", token="x" * (LONGEST - 200))
    assert not first_flight(url, header="authorization", token="x" * LONGEST)
