"""Checks with the providers' official SDKs that the service takes and refuses what they would.

    python tests/sdk/check_service.py --sandbox http://127.0.0.1:4010 --service http://127.0.0.1:3000

The service and the sandbox know the same secrets, and so does this script, from the environment.
Ends with 0 when every check passed, with 1 when one failed.
"""

import argparse
import hashlib
import hmac
import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from elevenlabs.client import ElevenLabs
from twilio.request_validator import RequestValidator

import elevenlabs_rest
import twilio_messages
from harness import API_KEY, AUTH_TOKEN, WEBHOOK_SECRET, WHATSAPP_FROM, World, eventually, run

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
CALL = "/webhooks/elevenlabs/call"
PUBLIC_URL = os.environ["PUBLIC_URL"]
FORM = "application/x-www-form-urlencoded"
TOLERANCE_SECS = 30 * 60


@dataclass
class Pair(World):
    """The sandbox, and the service that it calls back."""

    service: str = ""

    def post(self, path, body, headers):
        """A webhook to the service; returns the status and what was answered."""
        request = urllib.request.Request(self.service + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ask(self, path):
        token = {"X-Service-Token": os.environ["MICROSERVICE_TOKEN"]}
        request = urllib.request.Request(self.service + path, headers=token)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["data"]

    def call_back_the_service(self):
        self.control(webhook_base=self.service, public_url=PUBLIC_URL)


def sdk_takes(body, header):
    """Whether the ElevenLabs SDK takes a webhook for good."""
    try:
        ElevenLabs(api_key=API_KEY).webhooks.construct_event(
            rawBody=body.decode(), sig_header=header, secret=WEBHOOK_SECRET
        )
    except Exception:
        return False
    return True


def sign_elevenlabs(body, secret=WEBHOOK_SECRET, age_secs=0):
    stamp = str(int(time.time()) - age_secs)
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v0={digest}"


def twilio_path(file):
    """Where Twilio sends what a fixture holds."""
    if file.name.startswith("voice"):
        return "/webhooks/twilio/voice/status"
    inbound = file.name.split(".")[1] == "inbound"
    return "/webhook/twilio/incoming" if inbound else "/webhooks/twilio/sms/status"


def twilio_forms_are_taken(pair):
    """twilio: every form that RequestValidator signs is taken; a changed one is not"""
    validator = RequestValidator(AUTH_TOKEN)
    files = sorted(FIXTURES.glob("twilio/*.form"))
    assert files, "no fixtures"
    for file in files:
        params = parse_qsl(file.read_text().strip(), keep_blank_values=True)
        path = twilio_path(file)
        signature = validator.compute_signature(PUBLIC_URL + path, dict(params))
        headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
        status, said = pair.post(path, urlencode(params).encode(), headers)
        assert status == 200, f"{file.name} was answered {status}: {said}"
        status, _ = pair.post(path, urlencode(params + [("Extra", "1")]).encode(), headers)
        assert status == 401, f"{file.name}, changed, was answered {status}"


def twilio_json_is_taken(pair):
    """twilio: a JSON body with bodySHA256 is taken; a changed one is not"""
    validator = RequestValidator(AUTH_TOKEN)
    body = json.dumps({"MessageSid": "SM" + "5" * 32, "MessageStatus": "sent"})
    path = f"/webhooks/twilio/sms/status?bodySHA256={validator.compute_hash(body)}"
    signature = validator.compute_signature(PUBLIC_URL + path, {})
    assert validator.validate(PUBLIC_URL + path, body, signature), "the SDK refuses its own"
    headers = {"Content-Type": "application/json", "X-Twilio-Signature": signature}
    assert pair.post(path, body.encode(), headers)[0] == 200
    assert pair.post(path, body.encode() + b" ", headers)[0] == 401


def a_foreign_token_is_refused(pair):
    """twilio: what another account's RequestValidator signs is refused"""
    path, params = "/webhooks/twilio/sms/status", {"MessageSid": "SM" + "6" * 32}
    signature = RequestValidator("another").compute_signature(PUBLIC_URL + path, params)
    headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
    assert pair.post(path, urlencode(params).encode(), headers)[0] == 401


def both_judge_elevenlabs_alike(pair):
    """elevenlabs: the service takes exactly what construct_event takes"""
    body = (FIXTURES / "elevenlabs" / "post_call_transcription.json").read_bytes()
    fresh = sign_elevenlabs(body)
    cases = {
        "fresh": (body, fresh, True),
        "nearly too old": (body, sign_elevenlabs(body, age_secs=TOLERANCE_SECS - 60), True),
        "too old": (body, sign_elevenlabs(body, age_secs=TOLERANCE_SECS + 60), False),
        "another secret": (body, sign_elevenlabs(body, secret="wsec_other"), False),
        "changed": (body + b" ", fresh, False),
        "no signature in it": (body, fresh.split(",")[0], False),
    }
    for name, (sent, header, good) in cases.items():
        assert sdk_takes(sent, header) == good, f"{name}: the SDK thinks otherwise"
        headers = {"Content-Type": "application/json", "ElevenLabs-Signature": header}
        status, said = pair.post(CALL, sent, headers)
        assert (status == 200) == good and status in (200, 401), f"{name}: {status} {said}"


def the_sandbox_is_believed(pair):
    """elevenlabs: what the sandbox signs, the SDK and the service take, byte for byte"""
    elevenlabs_rest.submit(pair, "Ida y vuelta", "+573004110001")
    pair.settle()
    webhooks = pair.receiver.of(CALL)
    assert len(webhooks) == 2, f"{len(webhooks)} webhooks"
    for webhook in webhooks:
        header = webhook.headers["elevenlabs-signature"]
        assert sdk_takes(webhook.body, header)
        headers = {"Content-Type": "application/json", "ElevenLabs-Signature": header}
        for expected in ("accepted", "duplicate"):
            status, said = pair.post(CALL, webhook.body, headers)
            assert status == 200 and json.loads(said)["status"] == expected, (status, said)


def calls_become_interactions(pair):
    """service: a batch by the SDK, called back by the sandbox, is all there"""
    numbers = ["+573004120001", "+573004120002", "+573004120003"]
    pair.control(calls=dict(zip(numbers, ["answered", "busy", "voicemail"])))
    pair.call_back_the_service()
    batch = elevenlabs_rest.submit(pair, "Completa", *numbers)
    pair.settle()
    truth = pair.truth()
    told = [c["id"] for c in truth["conversations"] if c["batch_id"] == batch.id]
    answers = [a["status"] for w in truth["webhooks"] if w["entity"] in told for a in w["attempts"]]
    assert len(told) == 3 and answers and set(answers) == {200}, answers

    def shown():
        rows = pair.ask("/api/interactions?channel=call&limit=200")
        return set(told) <= {row["conversation_id"] for row in rows}

    eventually(shown, "all three calls among the interactions")


def messages_become_interactions(pair):
    """service: a WhatsApp message by the SDK shows its last status"""
    pair.control(open_window=["+573004130001"])
    pair.call_back_the_service()
    sent = twilio_messages.client(pair).messages.create(
        to="whatsapp:+573004130001", from_=WHATSAPP_FROM, body="Hola"
    )
    pair.settle()
    callbacks = [w for w in pair.truth()["webhooks"] if w["entity"] == sent.sid]
    answers = [a["status"] for w in callbacks for a in w["attempts"]]
    assert len(answers) == 3 and set(answers) == {200}, answers

    def shown():
        rows = pair.ask("/api/interactions?channel=whatsapp&limit=200")
        details = (pair.ask(f"/api/interactions/{row['id']}") for row in rows)
        found = [m for d in details for m in d["messages"] if sent.sid in m.values()]
        return [m["status"] for m in found] == ["read"]

    eventually(shown, "the message as read")


CHECKS = [
    twilio_forms_are_taken,
    twilio_json_is_taken,
    a_foreign_token_is_refused,
    both_judge_elevenlabs_alike,
    the_sandbox_is_believed,
    calls_become_interactions,
    messages_become_interactions,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sandbox", required=True, help="the sandbox's base URL")
    parser.add_argument("--service", required=True, help="the service's base URL")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    pair = Pair(arguments.sandbox.rstrip("/"), service=arguments.service.rstrip("/"))
    passed, failed = run(pair, CHECKS)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
