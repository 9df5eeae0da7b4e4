-- One-time codes (contract, section 7).

-- Every code that was asked for in the time that limits look back, in the
-- order in which they were counted. No part of the ledger, and no numbers:
-- keyed hashes of them.
create table otp_requests (
    challenge_id text        primary key,
    phone_key    text        not null,
    purpose      text        not null,
    prefix_key   text        not null,
    at           timestamptz not null,
    -- Drawn under the lock of the limits.
    place        bigint      not null generated always as identity
);
create index otp_requests_phone on otp_requests (phone_key, purpose, place);
create index otp_requests_prefix on otp_requests (prefix_key, at);
create index otp_requests_at on otp_requests (at);
comment on column otp_requests.prefix_key is 'Of the number without its last four digits: who pumps SMS takes a block of numbers.';

-- The read model; a function of the ledger alone, see 0002. There is no code
-- here, nor anything that one could be computed from without the secret.
create table otp_challenges (
    challenge_id        text        primary key,
    phone_number        text        not null,
    phone_key           text        not null,
    purpose             text        not null,
    status              text        not null,
    attempts            integer     not null,
    attempts_max        integer     not null,
    provider_message_id text,
    error_code          text,
    requested_by        text        not null,
    created_at          timestamptz not null,
    expires_at          timestamptz not null,
    sent_at             timestamptz,
    delivered_at        timestamptz,
    failed_at           timestamptz,
    verified_at         timestamptz,
    sending             text        not null
);
create index otp_challenges_phone on otp_challenges (phone_key, purpose, created_at);
create index otp_challenges_newest on otp_challenges (created_at, challenge_id);
comment on table otp_challenges is 'One-time codes that were asked for. One that was not used in time still has its status: compare expires_at.';
comment on column otp_challenges.phone_key is 'Keyed hash of phone_number: the one way to look a person up.';
comment on column otp_challenges.sending is 'What became of the sending, by the last word on it.';

-- A callback may come before the answer that says whose message it is.
create table otp_messages (
    message_id   text primary key,
    challenge_id text,
    status       text,
    error_code   text,
    delivered_at timestamptz,
    failed_at    timestamptz
);
comment on table otp_messages is 'What callbacks said of text messages; challenge_id is null while, or because, they bring no code of ours.';
