"""A child that does as it is told, also what children should not: for tests of `Child` and `Processes`."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from attndsl.tuning.child import serve, still


def handle(message: dict[str, Any]) -> dict[str, Any]:
    config = message.get("config") or message.get("told", {}).get("k", {})
    match config.get("do", message.get("do")):
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(600)
        case "wait":
            for _ in range(6):
                time.sleep(0.25)
                still()
        case "disturbed":
            return {"wrong": "", "disturbed": "0.75 to 7.80 ms", "times": [0.75, 7.8, 7.8]}
        case "raise":
            raise ValueError("this is refused")
        case "resources":
            raise RuntimeError("out of resource: shared memory, Required: 999")
        case "exit":
            print("said before it went")
            os._exit(7)
        case "chatter":
            print("this is no answer")
        case "wrong":
            return {"wrong": "O: error 1e-1, allowed 1e-3"}
    return {
        "pid": os.getpid(),
        "registers": 1,
        "spills": 0,
        "shared": 0,
        "seconds": 0.0,
        "wrong": "",
        "times": [1.0, 2.0, 3.0],
        "echo": message,
    }


if __name__ == "__main__":
    serve(handle)
