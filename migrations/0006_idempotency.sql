-- First answers, for callers that repeat a POST with the same Idempotency-Key.
-- No part of the ledger: rows go after a day.
create table idempotency_keys (
    actor       text        not null,
    key         text        not null,
    operation   text        not null,
    body_digest bytea       not null,
    -- Null while the first request is being carried out.
    status      smallint,
    headers     json,
    body        bytea,
    -- When another may take over what a killed process left.
    held_until  timestamptz not null,
    created_at  timestamptz not null,
    primary key (actor, key)
);
create index idempotency_keys_age on idempotency_keys (created_at);
