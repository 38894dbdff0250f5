"""Run at the workstation by fire.py: writes to every machine without end, and says which writes were acknowledged.

python fire_writer.py RUN SERVICE=ADDRESS...

Each line of standard output is `SERVICE TEXT`, printed only once the machine said that TEXT is on its storage.
"""

import sys
import threading
import time
import urllib.request

PATIENCE = 2.0
"""Seconds for one answer: a machine that is away is asked again soon."""
PAUSE = 0.1
"""Between two writes: the machines share the processors with those that still boot."""


def write_for_ever(run: str, service: str, address: str, said: threading.Lock) -> None:
    number = 0
    while True:
        number += 1
        text = f"{service}.{run}.{number}"
        try:
            with urllib.request.urlopen(f"http://{address}/write?{text}", timeout=PATIENCE) as answer:
                acknowledged = answer.read() == b"written"
        except OSError:
            # Whether it was written is not known; the next write has another text.
            acknowledged = False
        if acknowledged:
            with said:
                print(service, text, flush=True)
        time.sleep(PAUSE)


def main() -> None:
    said = threading.Lock()
    for target in sys.argv[2:]:
        service, address = target.split("=")
        threading.Thread(target=write_for_ever, args=(sys.argv[1], service, address, said)).start()


if __name__ == "__main__":
    main()
