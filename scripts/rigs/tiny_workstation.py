"""What the workstation does with a tiny machine: one HTTP request, and one JSON object that says how it went."""

import argparse
import json
import sys
import time
import urllib.error
import urllib.request

LARGEST_ANSWER = 1 << 20


def ask(url: str, *, expect: str, timeout: float) -> dict[str, object]:
    """`ok` when the answer is 200 and has the line `expect`."""
    began = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=timeout) as reply:  # noqa: S310 -- the rig's own http URL
            text = reply.read(LARGEST_ANSWER).decode(errors="replace")
            server = reply.headers.get("Server", "")
    except (OSError, urllib.error.URLError) as error:
        return {"ok": False, "proof": f"cannot get {url}: {error}"}
    found = expect in text.splitlines()
    proof = f"HTTP 200 from {server}: {expect}" if found else f"{url} did not answer {expect!r}"
    return {"ok": found, "proof": proof, "text": text, "seconds": round(time.monotonic() - began, 3)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rigs.tiny_workstation", description="Ask a tiny machine.")
    parser.add_argument("url")
    parser.add_argument("--expect", required=True, help="a line that the answer must have")
    parser.add_argument("--timeout", type=float, default=30.0)
    options = parser.parse_args()
    result = ask(options.url, expect=options.expect, timeout=options.timeout)
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
