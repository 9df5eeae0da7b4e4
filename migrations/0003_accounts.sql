-- Passwords are no events: they can be changed and forgotten, and no ledger
-- should hold them. A row here without a user on the ledger is a registration
-- that was cut short; registering again completes it.
create table credentials (
    email         text primary key,
    user_id       integer generated always as identity unique,
    password_hash text not null
);

-- Failed logins of the last minutes, for the limit that holds over all replicas.
create table login_failures (
    key       text not null,
    failed_at timestamptz not null
);
create index login_failures_key on login_failures (key, failed_at);
comment on column login_failures.key is 'A keyed hash of the e-mail address, or of the network address.';
