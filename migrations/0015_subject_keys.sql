-- The right to be forgotten: personal data on the ledger is under keys of the
-- persons whom it is about, and who destroys a key has erased what is under it
-- without changing a row. See docs/adr/0020.

create table subject_keys (
    id          uuid        primary key,
    subject     text,
    channel     text        not null,
    day         date,
    wrapped_key bytea,
    created_at  timestamptz not null,
    erased_at   timestamptz
);
create index subject_keys_subject on subject_keys (subject) where wrapped_key is not null;
comment on table subject_keys is 'What personal data is encrypted under. One subject may have many keys: one a channel and day, and of each process.';
comment on column subject_keys.id is 'Public: events and bodies name it. UUID version 7.';
comment on column subject_keys.subject is 'person: and the keyed hash of an address, or what no address is known of; null once it is erased.';
comment on column subject_keys.day is 'UTC; by it a channel''s retention goes. Null: kept until the person is erased.';
comment on column subject_keys.wrapped_key is 'Under MASTER_KEY; null: destroyed.';

-- How often keys were destroyed. Whoever seals says what he knows of it; one
-- who knows less than this row might seal under a key that is gone.
create table subject_epoch (
    only_row boolean primary key default true check (only_row),
    epoch    bigint  not null
);
insert into subject_epoch (epoch) values (0);

-- As in 0001, and for every append, whoever makes it: under the lock, so that
-- no key is destroyed between this look and the commit.
create or replace function ledger_take_lock() returns trigger language plpgsql as $$
declare
    known text := current_setting('bitacora.erasures_known', true);
begin
    perform ledger_lock();
    if known <> '' and known::bigint <> (select epoch from public.subject_epoch) then
        raise exception 'keys were destroyed since this was sealed' using errcode = 'BE001';
    end if;
    return null;
end $$;

-- Keys are there before anything is under them. Their commit does not wait for
-- the disk: whatever is written later cannot be there without them.
create function subject_keys_add(
    k_id uuid[], k_subject text[], k_channel text[], k_day date[], k_wrapped bytea[], k_created_at timestamptz[]
) returns void language plpgsql as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    insert into subject_keys (id, subject, channel, day, wrapped_key, created_at)
    select * from unnest(k_id, k_subject, k_channel, k_day, k_wrapped, k_created_at)
    on conflict do nothing;
end $$;

-- How long a body is, sealed or not: a sealed one says so behind its mark and
-- the key's id (domain::sealed).
create function ledger_body_bytes(body bytea) returns integer language sql immutable as $$
    select case when substring(body for 8) = '\x007365616c656400'::bytea and octet_length(body) >= 28
                then ('x' || encode(substring(body from 25 for 4), 'hex'))::bit(32)::int
                else octet_length(body) end
$$;
do $$
declare
    append text := pg_get_functiondef('ledger_append'::regproc);
begin
    if strpos(append, 'octet_length(d.body)') = 0 then
        raise exception 'ledger_append does not measure bodies as this migration expects';
    end if;
    execute replace(append, 'octet_length(d.body)', 'ledger_body_bytes(d.body)');
end $$;

-- What erasures a read model's rows know of: one that knows less is rebuilt.
alter table projection_checkpoints add column epoch bigint not null default 0;
comment on column projection_checkpoints.epoch is 'Everything in the rows was read after so many erasures.';
