-- The transparency log: a Merkle tree over all events and deliveries, and its
-- signed heads. See docs/TRANSPARENCY.md and docs/adr/0019.
--
-- No table has a row for each leaf. A checkpoint covers a range of events and
-- one of deliveries; its leaves are those events by position, and then those
-- deliveries by seq, behind the leaves of the checkpoint before it.

-- Deliveries too become visible in the order of seq: as with events, the
-- identity is drawn after the lock (0001).
create trigger deliveries_in_commit_order before insert on deliveries
    for each statement execute function ledger_take_lock();
create index deliveries_seq on deliveries (seq);

create table log_tiles (
    level smallint not null check (level between 0 and 7),
    index bigint   not null check (index >= 0),
    data  bytea    not null check (octet_length(data) between 32 and 8192 and octet_length(data) % 32 = 0),
    primary key (level, index)
);
-- Hashes cannot be compressed.
alter table log_tiles alter column data set storage external;
comment on table log_tiles is 'Tiles of C2SP tlog-tiles: 256 hashes of 32 bytes, less in the last tile of a level, which grows.';

create table log_checkpoints (
    size          bigint      primary key check (size > 0),
    root          bytea       not null check (octet_length(root) = 32),
    note          text        not null,
    sealed_at     timestamptz not null default clock_timestamp(),
    last_position bigint      not null,
    last_seq      bigint      not null,
    events        bigint      not null,
    deliveries    bigint      not null,
    check (size = events + deliveries)
);
create index log_checkpoints_position on log_checkpoints (last_position, size);
create index log_checkpoints_seq on log_checkpoints (last_seq, size);
create index log_checkpoints_time on log_checkpoints (sealed_at, size);
comment on column log_checkpoints.note is 'The head, signed: C2SP tlog-checkpoint.';
comment on column log_checkpoints.last_position is 'Of the last event that is covered, 0 for none.';
comment on column log_checkpoints.last_seq is 'Of the last delivery that is covered, 0 for none.';
comment on column log_checkpoints.events is 'How many events are covered from the beginning on.';

create trigger log_checkpoints_append_only before update or delete or truncate on log_checkpoints
    for each statement execute function ledger_refuse_change();
create trigger log_tiles_append_only before delete or truncate on log_tiles
    for each statement execute function ledger_refuse_change();
create function log_tile_grows() returns trigger language plpgsql as $$
begin
    if new.level <> old.level or new.index <> old.index
       or substring(new.data for octet_length(old.data)) <> old.data then
        raise exception 'a tile only grows' using errcode = 'insufficient_privilege';
    end if;
    return new;
end $$;
create trigger log_tiles_only_grow before update on log_tiles
    for each row execute function log_tile_grows();
revoke update, delete, truncate on log_checkpoints from public, current_user;
revoke delete, truncate on log_tiles from public, current_user;
