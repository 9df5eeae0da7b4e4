-- Keys that nobody configured. A service that was started without them makes
-- its own and keeps them here, so that every replica has the same; see
-- docs/adr/0022.
create table kept_keys (
    name    text primary key check (name in ('MASTER_KEY', 'LOG_SIGNING_KEY')),
    value   text not null,
    made_at timestamptz not null default clock_timestamp()
);
comment on table kept_keys is 'Whoever has the database has these. Set the variables of the same names to keep them elsewhere.';
