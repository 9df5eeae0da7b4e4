"""Checks with the providers' official SDKs that the sandbox speaks their protocols.

    python tests/sdk/check_sandbox.py --sandbox http://127.0.0.1:4010 [--only WORD]

Ends with 0 when every check passed, with 1 when one failed, with 2 when there is no sandbox.
"""

import argparse
import logging
import sys
import urllib.error

import elevenlabs_rest
import elevenlabs_session
import twilio_messages
import webhooks
from harness import World, run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sandbox", required=True, help="the sandbox's base URL")
    parser.add_argument("--only", default="", help="only checks whose name holds this word")
    arguments = parser.parse_args()
    # The SDKs log the errors that the checks provoke.
    logging.disable(logging.CRITICAL)
    world = World(arguments.sandbox.rstrip("/"))
    try:
        world.truth()
    except (urllib.error.URLError, AssertionError) as error:
        print(f"there is no sandbox at {world.url}: {error}")
        return 2
    modules = [elevenlabs_rest, elevenlabs_session, twilio_messages, webhooks]
    checks = [c for module in modules for c in module.CHECKS]
    wanted = arguments.only.lower()
    checks = [c for c in checks if wanted in f"{c.__name__} {c.__doc__}".lower()]
    passed, failed = run(world, checks)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
