-- What an event says is read from the ledger, by its position: a copy of every
-- payload in the timeline made it as large as the ledger, and each event that
-- was folded was mostly this copy. docs/adr/0017.
alter table interaction_events
    drop column recorded_at,
    drop column provider,
    drop column delivery_id,
    drop column payload;

-- Words to search for come to be in the index many rows at a time: one at a
-- time each row cost more than all else about it. What is waiting is searched
-- too, from its beginning to its end, and hence is kept small (KiB).
alter index call_details_search set (fastupdate = on, gin_pending_list_limit = 1024);
alter index messages_search set (fastupdate = on, gin_pending_list_limit = 1024);

-- Rows of calls are a little above the size from which on PostgreSQL would
-- compress them, for little gain.
alter table call_details set (toast_tuple_target = 4080);

-- What the last rebuild found.
alter table projection_checkpoints add column differences json;
comment on column projection_checkpoints.differences is 'Of the live build: in what it differed from the one before it, by tables and keys; null: not compared.';
