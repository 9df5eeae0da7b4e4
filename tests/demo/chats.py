"""The campaign goes on by WhatsApp: part of campaign.py.

Some of the people who were reached get a message, answer, and are answered by the agent; a person
takes one conversation over. At the end every conversation in Bitacora is compared with what the
sandbox's telephones really wrote and got.
"""

import json
import time
from collections import Counter

CHATS = 20
REPLIES = 2
QUIET_SECS_MAX = 120
RATES = {"phone_answers": 1.0, "phone_replies": REPLIES, "phone_media": 0.1,
         "reply_secs": "5..60"}
NOBODY_ANSWERS = {"phone_replies": 0, "phone_media": 0.0}
# What Twilio says of a message that it took and that nobody got.
NOT_GOT = ("failed", "undelivered")


def name_of(recipient):
    """As the replaced backend does it."""
    variables = recipient.get("variables") or {}
    return recipient.get("name") or variables.get("name") or "Cliente"


class Chats:
    def __init__(self, service, control, truth, progress):
        self.service, self.control, self.truth, self.progress = service, control, truth, progress

    def go_on(self, batch, recipients):
        """Writes to people who were reached, until nobody has anything left to say."""
        reached = [r for r in recipients if r["status"] == "completed"][:CHATS]
        print(f"\nThe calls go on by WhatsApp: {len(reached)} of the people who were reached")
        self.control({"rates": RATES})
        for recipient in reached:
            self.service.raw("POST", "/api/call-completed", {
                "batch_id": batch["id"], "agent_id": batch["agent_id"], "batch_name": batch["name"],
                "recipient": {
                    "id": recipient["id"], "phone_number": recipient["phone_number"],
                    "status": "completed", "conversation_id": recipient["conversation_id"],
                },
                "call_metadata": {"client_name": name_of(recipient)},
            })
        phones = [r["phone_number"] for r in reached]
        self.until_quiet(phones, REPLIES)
        self.control({"rates": NOBODY_ANSWERS})
        self.take_over(phones[0])
        return phones

    def until_quiet(self, phones, replies):
        """Everybody has written, and nothing is owed any more."""
        began = time.monotonic()
        while True:
            heard = [m for p in phones for m in self.messages(p, "inbound")]
            queue = self.service.raw("GET", "/api/stats")["stats"]["queue"]
            owed = queue["waiting"] + queue["active"]
            answered = not owed and self.is_answered(phones)
            # Last of all: whoever got something meanwhile has more to say.
            inbound = self.to_hear(phones, replies)
            done = answered and len(heard) >= inbound
            waited = time.monotonic() - began
            self.progress.show(f"{int(waited):3} s  heard {len(heard)} of {inbound}, "
                               f"owed {owed}, sent {queue['completed']}", last=done)
            if done:
                return
            if waited > QUIET_SECS_MAX:
                raise TimeoutError(f"the conversations did not end within {QUIET_SECS_MAX} s")
            time.sleep(0.5)

    def to_hear(self, phones, replies):
        """How many messages these people have written, or will: each answers so many of ours, and
        one that does not arrive (some never do) is not answered."""
        wrote, got = Counter(), Counter()
        for (phone, direction), messages in self.really().items():
            if direction == "inbound":
                wrote[phone] = len(messages)
            else:
                got[phone] = sum(m["status"] not in NOT_GOT for m in messages)
        return sum(max(wrote[p], min(got[p], replies)) for p in phones)

    def is_answered(self, phones):
        """The last word in each conversation is ours, and the provider has taken it."""
        for phone in phones:
            last = self.conversation(phone)["messages"][-1]
            if last["direction"] != "outbound" or last["status"] == "queued":
                return False
        return True

    def take_over(self, phone):
        path = f"/api/conversations/{phone}"
        self.service.raw("POST", f"{path}/escalate", {"reason": "demostración"})
        heard = len(self.messages(phone, "inbound"))
        self.control({"inbound": [{"from": phone, "body": "¿Puedo hablar con un asesor?"}]})
        began = time.monotonic()
        while len(self.messages(phone, "inbound")) == heard:
            if time.monotonic() - began > QUIET_SECS_MAX:
                raise TimeoutError("the client's message did not come")
            time.sleep(0.2)
        words = "Hola, le escribe Luis, del equipo. ¿En qué le ayudo?"
        self.service.raw("POST", f"{path}/messages", {"content": words})
        self.until_quiet([phone], replies=0)
        self.service.raw("POST", f"{path}/resume", {})

    def conversation(self, phone):
        return self.service.raw("GET", f"/api/conversations/{phone}")["conversation"]

    def messages(self, phone, direction):
        return [m for m in self.conversation(phone)["messages"] if m["direction"] == direction]

    def really(self):
        """What the sandbox's telephones wrote and were sent, by number and direction."""
        really = {}
        for message in self.truth()["messages"]:
            ours = message["direction"] == "outbound"
            number = message["to" if ours else "from"].removeprefix("whatsapp:")
            really.setdefault((number, message["direction"]), []).append(message)
        return really

    def compare(self, phones):
        """Prints what both sides say; returns how many conversations differ."""
        really = self.really()
        differing, counts = 0, Counter()
        for phone in phones:
            for direction in ("inbound", "outbound"):
                real = really.get((phone, direction), [])
                # Of a template the provider shows what was filled in.
                real = [None if m["content_sid"] else m["body"] for m in real]
                told = [m["content"] for m in self.messages(phone, direction)]
                counts[direction, "really"] += len(real)
                counts[direction, "told"] += len(told)
                same = len(real) == len(told) and all(r in (None, t) for r, t in zip(real, told))
                if not same:
                    differing += 1
                    print(f"  differs: {direction} of …{phone[-4:]}: {real} / {told}")
        print(f"\n{'':34}{'really':>10}{'Bitácora':>10}")
        for direction in ("inbound", "outbound"):
            real, told = counts[direction, "really"], counts[direction, "told"]
            print(f"{direction + ' messages':34}{real:>10}{told:>10}{'' if real == told else '   <-- differs'}")
        return differing

    def show(self, phone):
        conversation = self.conversation(phone)
        print(f"\nOne of them, {conversation['client_name']} ({conversation['status']}):")
        for message in conversation["messages"]:
            words = message["content"] or f"[{message['kind']}]"
            words = " ".join(words.split())
            words = words if len(words) <= 90 else words[:89] + "…"
            who = {"inbound": "   client"}.get(message["direction"], message["author"][:9])
            print(f"  {who:>9}  {words}  ({message['status']})")
        stats = self.service.raw("GET", "/api/stats")["stats"]
        print("\nGET /api/stats: " + json.dumps(stats, ensure_ascii=False))
