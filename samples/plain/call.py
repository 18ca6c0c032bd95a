"""A plain HTTP client that knows nothing of a mesh: it fetches each URL given, and prints one JSON line for each."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request


def fetch(url: str) -> dict[str, object]:
    """One GET: the status and the JSON answer, or why there was none."""
    started = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            answer = {"status": response.status, "answer": json.load(response)}
    except urllib.error.HTTPError as error:
        with error:
            answer = {"status": error.code, "error": error.read(200).decode(errors="replace")}
    except OSError as error:
        answer = {"status": 0, "error": str(error)}
    return {"url": url, "ms": round((time.monotonic() - started) * 1000, 1), **answer}


def main() -> None:
    """Exit with 1 when any URL did not answer 200."""
    results = [fetch(url) for url in sys.argv[1:]]
    for result in results:
        print(json.dumps(result))
    sys.exit(0 if all(result["status"] == 200 for result in results) else 1)


if __name__ == "__main__":
    main()
