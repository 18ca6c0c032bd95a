"""A machine on which only what a test gives it says who it is to Google."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from krun_testbed.google_api import GoogleApi
from krun_testbed.google_api_messages import Asked

ROBOT = "robot@demo-project.iam.gserviceaccount.com"
POOL = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/there"
SUBJECT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6ZGVtbzp3ZWIiLCJpc3MiOiJtZSJ9.canary"


@dataclass
class Machine:
    """``make`` makes its tokens, of an environment, within seconds, with a cache or none."""

    apis: GoogleApi
    home: Path
    environ: dict[str, str]
    make: Callable[..., Any]
    tokens: list[Any] = field(default_factory=list)

    def google(self, *, seconds: float = 20.0, cache: Any = None, **more: str) -> Any:
        """The tokens of this machine, by ``make``, with these variables more."""
        self.tokens.append(self.make(environ={**self.environ, **more}, seconds=seconds, cache=cache))
        return self.tokens[-1]

    def file(self, content: Mapping[str, Any], name: str = "credentials.json") -> str:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return str(path)

    def use(self, content: Mapping[str, Any]) -> None:
        self.environ["GOOGLE_APPLICATION_CREDENTIALS"] = self.file(content)

    def key(self) -> dict[str, str]:
        uri = f"{self.apis.servers['oauth2'].url}token"
        return self.apis.oauth2.service_account(ROBOT, project="demo-project", token_uri=uri)

    def external(self, **more: Any) -> dict[str, Any]:
        (self.home / "subject").write_text(SUBJECT)
        return {
            "type": "external_account",
            "audience": POOL,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.apis.servers['sts'].url}v1/token",
            "credential_source": {"file": str(self.home / "subject")},
            **more,
        }

    def url_of(self, account: str) -> str:
        base = self.apis.servers["iamcredentials"].url
        return f"{base}v1/projects/-/serviceAccounts/{account}:generateAccessToken"

    def asked(self, name: str) -> list[Asked]:
        return self.apis.servers[name].requests
