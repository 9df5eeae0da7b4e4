#!/usr/bin/env python3
"""Sends webhooks as their providers sign them.

    send.py URL FILE [FILE …]

FILE is a fixture such as tests/fixtures/elevenlabs/post_call_audio.json; its
folder says who sends it and its name where to. The secrets are taken from the
environment (see .bitacora/secrets.env). Needs nothing but Python 3.

The fixtures of Twilio all bear the same fictional MessageSid. Two inbound
messages with one id are the same message, so each file gets an id of its own.
"""

import base64, hashlib, hmac, json, os, re, sys, time, urllib.error, urllib.parse, urllib.request


def elevenlabs(url, body):
    t = str(int(time.time()))
    key = os.environ["ELEVENLABS_WEBHOOK_SECRET"].encode()
    v0 = hmac.new(key, t.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"Content-Type": "application/json", "ElevenLabs-Signature": f"t={t},v0={v0}"}


def twilio(url, body):
    pairs = sorted(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
    signed = url + "".join(name + value for name, value in pairs)
    key = os.environ["TWILIO_AUTH_TOKEN"].encode()
    signature = base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha1).digest()).decode()
    return {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": signature}


def prepare(base, file):
    """The URL, the body and the headers of a fixture."""
    provider, name = file.split("/")[-2:]
    with open(file, "rb") as opened:
        body = opened.read()
    if provider == "elevenlabs":
        url = f"{base}/webhooks/elevenlabs/call"
        return url, body, elevenlabs(url, body)
    if provider == "builderbot":
        token = urllib.parse.quote(os.environ["BUILDERBOT_WEBHOOK_TOKEN"])
        return f"{base}/webhooks/builderbot/whatsapp?token={token}", body, {"Content-Type": "application/json"}
    channel_and_sort = name.split(".")[:2]
    path = {
        "voice": "/webhooks/twilio/voice/status",
        "inbound": "/webhook/twilio/incoming",
        "status": "/webhooks/twilio/sms/status",
    }["voice" if name.startswith("voice") else channel_and_sort[1]]
    # The statuses of one channel belong to one message; every inbound is its own.
    whose = ".".join(channel_and_sort) if "status" in name else name
    sid = "SM" + hashlib.md5(whose.encode()).hexdigest()
    body = re.sub(rb"SM0{30}11", sid.encode(), body)
    if name.endswith(".json"):
        digest = hashlib.sha256(body).hexdigest()
        url = f"{base}{path}?bodySHA256={digest}"
        return url, body, dict(twilio(url, b""), **{"Content-Type": "application/json"})
    url = base + path
    return url, body, twilio(url, body)


def main(base, files):
    failed = 0
    for file in files:
        url, body, headers = prepare(base, file)
        request = urllib.request.Request(url, body, headers)
        try:
            with urllib.request.urlopen(request) as answer:
                status, said = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, said, failed = error.code, error.read().decode(), failed + 1
        what = json.loads(said).get("status", said) if said.startswith("{") else "TwiML"
        print(f"{status}  {what:<12} {file}")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1].rstrip("/"), sys.argv[2:]))
