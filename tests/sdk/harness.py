"""What the checks share: the sandbox's control, the webhook receiver, and the counting of results."""

import json
import os
import threading
import time
import traceback
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

API_KEY = os.environ.get("ELEVENLABS_API_KEY") or "sandbox-key"
WEBHOOK_SECRET = (os.environ.get("ELEVENLABS_WEBHOOK_SECRET") or "wsec_sandbox").split(",")[0]
ACCOUNT_SID = os.environ.get("TWILIO_ACCOUNT_SID") or "AC00000000000000000000000000000001"
AUTH_TOKEN = (os.environ.get("TWILIO_AUTH_TOKEN") or "sandbox-twilio-auth-token").split(",")[0]
WHATSAPP_FROM = "whatsapp:+14155238886"
SMS_FROM = "+14155550100"

AGENT = "agent_sandbox0collections0000000000"
AGENT_WITH_AUTH = "agent_sandbox0survey000000000000000"
PHONE_TWILIO = "phnum_sandbox0twilio000000000000000"
PHONE_SIP = "phnum_sandbox0siptrunk0000000000000"

# Rates of a world in which everything goes well.
IDEAL = {
    "failed": 0, "voicemail": 0, "never": 0, "twice": 0, "late": 0, "out_of_order": 0,
    "refused": 0, "hang": 0, "message_failed": 0, "message_read": 1, "phone_replies": 0,
    "session_error": 0, "correction": 0, "latency_ms": "0..1", "think_ms": "1..2",
}


@dataclass
class Webhook:
    """One request that the sandbox sent to the service's place."""

    url: str
    path: str
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Receiver:
    """The service's place: keeps every webhook, answers 200 (or what `answer` says)."""

    def __init__(self):
        self.webhooks = []
        self.answer = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self._body()
                url = f"http://{self.headers['Host']}{self.path}"
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.webhooks.append(Webhook(url, self.path, headers, body))
                self.send_response(receiver.answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _body(self):
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def of(self, path):
        """The webhooks that came to a path."""
        return [w for w in self.webhooks if w.path.split("?")[0] == path]


@dataclass
class World:
    """The sandbox under test."""

    url: str
    receiver: Receiver = field(default_factory=Receiver)

    def request(self, method, path, body=None, headers=None):
        """A raw request; returns the status and the parsed body."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data=data, method=method)
        for name, value in {"xi-api-key": API_KEY, **(headers or {})}.items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def get(self, path):
        status, body = self.request("GET", path)
        assert status == 200, f"GET {path} answered {status}: {body}"
        return body

    def control(self, **control):
        status, body = self.request("POST", "/sandbox/control", control)
        assert status == 200, f"the sandbox refused {control}: {body}"
        return body

    def settle(self):
        return self.control(settle=True)

    def truth(self):
        return self.get("/sandbox/truth")

    def reset(self):
        """A well-behaved world, and no webhooks received yet."""
        self.control(webhook_base=self.receiver.url, rates=IDEAL, pause_webhooks=False)
        self.settle()
        self.receiver.answer = 200
        self.receiver.webhooks.clear()


def eventually(condition, what, seconds=10.0):
    """Waits for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.01)


def run(world, checks):
    """Runs the checks; returns how many passed and failed."""
    passed, failed = 0, 0
    for check in checks:
        name = (check.__doc__ or check.__name__).strip()
        try:
            world.reset()
            check(world)
        except Exception as error:  # whatever goes wrong is this check's failure
            failed += 1
            words = str(error) or type(error).__name__
            print(f"FAIL  {name}\n      {words}")
            if not isinstance(error, AssertionError) or not str(error):
                traceback.print_exc()
        else:
            passed += 1
            print(f"ok    {name}")
    return passed, failed
