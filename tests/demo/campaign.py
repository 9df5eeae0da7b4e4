#!/usr/bin/env python3
"""Runs a campaign of 200 calls on the providers' sandbox, goes on by WhatsApp, and checks it all.

    campaign.py [PROGRAM]

It talks to the service of `make run` at localhost:3000 (PORT), as any client would; where none
runs, it starts one by `PROGRAM dev` and stops it again. Some calls fail, some meet a voicemail,
and some webhooks come late, twice, or never. Then some who were reached get a WhatsApp message and
answer it (chats.py). At the end it compares what Bitacora says with what the sandbox really did (GET /sandbox/truth), and ends with 1 if they differ. Python 3 alone.
"""

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager

from chats import Chats

SERVICE = f"http://localhost:{os.environ.get('PORT') or 3000}"
SANDBOX = f"http://127.0.0.1:{os.environ.get('SANDBOX_PORT') or 4010}"
SECRETS = os.path.join(os.environ.get("DATA_DIR") or ".bitacora", "secrets.env")
AGENT = "agent_sandbox0collections0000000000"
RECIPIENTS = 200
# Of the webhooks that tell how a call went: so many never come, come twice, come late.
MISBEHAVIOUR = {"never": 0.08, "twice": 0.08, "late": 0.08, "out_of_order": 0}
STATES = ["completed", "voicemail", "failed", "in_progress", "pending", "cancelled"]
START_SECS_MAX = 60
CAMPAIGN_SECS_MAX = 240
RECOVERY_SECS_MAX = 90


class Failed(Exception):
    """The demonstration cannot go on; the message says why."""


def request(method, url, body=None, headers=None, timeout=30):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **(headers or {})}
    return urllib.request.urlopen(
        urllib.request.Request(url, data, headers, method=method), timeout=timeout
    )


def answers(url):
    try:
        with request("GET", url, timeout=2):
            return True
    except OSError:
        return False


class Service:
    """Bitacora's API, as one of our other services uses it."""

    def __init__(self):
        with open(SECRETS, encoding="utf-8") as file:
            secrets = dict(line.strip().split("=", 1) for line in file if "=" in line)
        token = os.environ.get("MICROSERVICE_TOKEN") or secrets["MICROSERVICE_TOKEN"]
        self.headers = {"X-Service-Token": token.split(",")[0]}

    def call(self, method, path, body=None):
        return self.raw(method, path, body)["data"]

    def raw(self, method, path, body=None):
        try:
            with request(method, SERVICE + path, body, self.headers) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Failed(f"{method} {path} was answered {error.code}: {error.read().decode()}")

    def status(self, batch):
        return self.call("GET", f"/api/batch-calls/{batch}/status")

    def stream(self, batch):
        """The events of a batch: name and data, until the service closes."""
        url = f"{SERVICE}/api/batch-calls/{batch}/status/stream"
        with request("GET", url, headers=self.headers, timeout=60) as lines:
            name, data = "message", []
            for line in lines:
                field, _, value = line.decode().rstrip("\r\n").partition(":")
                if field == "event":
                    name = value.strip()
                elif field == "data":
                    data.append(value.strip())
                elif not field and data:
                    yield name, json.loads("\n".join(data))
                    name, data = "message", []


@contextmanager
def running_service(program):
    """A service on a sandbox: the one that runs, or one of our own until the end."""
    if answers(f"{SERVICE}/readyz"):
        if not answers(f"{SANDBOX}/sandbox/truth"):
            raise Failed(f"the service at {SERVICE} runs without the sandbox ({SANDBOX}): "
                         "a campaign would call real people. Stop it, or start `bitacora dev`.")
        print(f"Using the service at {SERVICE} and its sandbox at {SANDBOX}")
        yield
        return
    print("No service runs: starting `bitacora dev`", flush=True)
    environment = {"RUST_LOG": "warn", **os.environ}
    child = subprocess.Popen([program, "dev"], env=environment)
    try:
        end = time.monotonic() + START_SECS_MAX
        while not answers(f"{SERVICE}/readyz"):
            if child.poll() is not None or time.monotonic() > end:
                raise Failed("`bitacora dev` did not start")
            time.sleep(0.2)
        yield
    finally:
        child.terminate()
        child.wait()


def make_group(service):
    """A group from a CSV file as people send them, with two bad rows."""
    rows = ["Nombre;Teléfono;Ciudad"]
    rows += [f"Cliente {n};300 {n // 1000:03} {n % 1000:04};Bogotá" for n in range(1, RECIPIENTS + 1)]
    rows += ["Sin número;;Cali", "Repetida;300 000 0001;Medellín"]
    group = service.call("POST", "/api/groups", {
        "name": time.strftime("Demostración %H:%M:%S"), "agentId": AGENT, "prefix": "+57",
        "document_name": "clientes.csv", "base64": base64.b64encode("\n".join(rows).encode()).decode(),
    })
    print(f"Group {group['id']}: {group['clientsCount']} clients from a file of {len(rows) - 1} rows")
    for row in group["rejected"]:
        print(f"  row {row['row']} left out: {row['reason']}")
    return group


class Progress:
    """One line that is drawn again on a terminal; a line every few seconds elsewhere."""

    INTERVAL_SECS = 2.0

    def __init__(self):
        self.terminal = sys.stdout.isatty()
        self.said = 0.0

    def show(self, text, last=False):
        now = time.monotonic()
        if self.terminal:
            print(f"\r\x1b[K{text}", end="\n" if last else "", flush=True)
        elif last or now - self.said >= self.INTERVAL_SECS:
            self.said = now
            print(text, flush=True)


def counted(recipients):
    counts = Counter(recipient["status"] for recipient in recipients)
    return "  ".join(f"{state} {counts[state]}" for state in STATES if counts[state])


def by_call(recipients):
    """Recipients by their conversation: numbers are masked, and the sandbox has ids of its own."""
    return {r["conversation_id"]: r for r in recipients}


def watch(service, batch):
    """Follows the batch by its event stream, to its end."""
    progress, began = Progress(), time.monotonic()
    while time.monotonic() - began < CAMPAIGN_SECS_MAX:
        for name, event in service.stream(batch):
            if name in ("status-update", "batch-completed"):
                seconds = int(time.monotonic() - began)
                last = name == "batch-completed"
                recipients = event["data"]["recipients"]
                progress.show(f"{seconds:3} s  {counted(recipients)}", last)
                if last:
                    return
            elif name == "error":
                raise Failed(f"the stream says: {event}")
        time.sleep(1)
    raise Failed(f"the campaign did not end within {CAMPAIGN_SECS_MAX} s")


def wait_for_everyone(service, batch, really):
    """Waits until every call is told of in full, whose webhook never came too."""
    progress, began = Progress(), time.monotonic()
    while True:
        data = service.status(batch)
        told = by_call(data["recipients"])
        wrong = [c for c, r in really.items() if told.get(c, {}).get("status") != r["status"]]
        bare = [r for r in told.values() if r["status"] == "completed" and not r["transcript"]]
        seconds = int(time.monotonic() - began)
        done = not wrong and not bare
        progress.show(f"{seconds:3} s  to be recovered: transcripts {len(bare)}, outcomes {len(wrong)}", done)
        if done or seconds > RECOVERY_SECS_MAX:
            return data
        time.sleep(1)


def compare(service, group, data, truth, really):
    """Prints what both sides say; returns how many lines differ."""
    stats = service.call("GET", f"/api/groups/{group['id']}/call-stats")
    told = by_call(data["recipients"])
    conversations = {c["id"]: c for c in truth["conversations"]}
    spoken = [conversations[c]["duration_secs"]
              for c, r in really.items() if r["status"] == "completed"]
    count = Counter(r["status"] for r in really.values())
    lines = [("recipients", len(really), stats["total"])]
    lines += [(state, count[state], stats[state]) for state in STATES]
    lines += [
        ("seconds spoken", sum(spoken), stats["total_duration_secs"]),
        ("recipients whose state differs", 0,
         sum(told.get(c, {}).get("status") != r["status"] for c, r in really.items())),
        ("completed without a transcript", 0,
         sum(r["status"] == "completed" and not r["transcript"] for r in told.values())),
    ]
    print(f"\n{'':34}{'really':>10}{'Bitácora':>10}")
    for name, real, said in lines:
        print(f"{name:34}{real:>10}{said:>10}{'' if real == said else '   <-- differs'}")
    return sum(real != said for _, real, said in lines)


def tell_of_webhooks(truth, really):
    webhooks = [w for w in truth["webhooks"] if w["entity"] in really]
    print(f"\nWebhooks of these calls: {len(webhooks)} due, "
          f"{sum(w['never'] for w in webhooks)} never sent (recovered by asking the provider), "
          f"{sum(w['twice'] for w in webhooks)} sent twice, "
          f"{sum(w['late_ms'] > 0 for w in webhooks)} late")


def sandbox_truth():
    with request("GET", f"{SANDBOX}/sandbox/truth") as answer:
        return json.load(answer)


def control(change):
    request("POST", f"{SANDBOX}/sandbox/control", change).close()


def misbehave(how):
    kinds = ("elevenlabs.transcription", "elevenlabs.failure")
    control({"webhook_rates": {kind: how for kind in kinds}})


def go_on(service, batch, data):
    """The calls go on by WhatsApp; returns how many conversations differ."""
    chats = Chats(service, control, sandbox_truth, Progress())
    called = service.call("GET", f"/api/batch-calling/{batch}")
    try:
        phones = chats.go_on(called, data["recipients"])
    except TimeoutError as error:
        raise Failed(str(error))
    differing = chats.compare(phones)
    chats.show(phones[0])
    return differing


def campaign():
    service = Service()
    group = make_group(service)
    user = service.call("GET", "/api/users")[0]
    misbehave(MISBEHAVIOUR)
    try:
        order = service.call("POST", f"/api/groups/{group['id']}/call", {"userId": user["id"]})
        batch = order["batchId"]
        print(f"Calling {order['recipientsCount']} people: {order['callName']}, batch {batch}\n")
        watch(service, batch)
        really = next(b for b in sandbox_truth()["batches"] if b["id"] == batch)["recipients"]
        really = by_call(really)
        data = wait_for_everyone(service, batch, really)
    finally:
        misbehave({})
    truth = sandbox_truth()
    differing = compare(service, group, data, truth, really)
    tell_of_webhooks(truth, really)
    differing += go_on(service, batch, data)
    print(f"\nLook around: {SERVICE}/api/docs")
    if differing:
        raise Failed(f"{differing} lines differ (seed {truth['seed']})")
    print("Every recipient ended in the right state, and every message is where it belongs.")


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else "bitacora"
    try:
        with running_service(program):
            campaign()
    except Failed as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
