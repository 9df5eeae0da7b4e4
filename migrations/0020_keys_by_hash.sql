-- Every webhook about a person of whom nobody has heard today writes a key, and
-- its entry in the index of subjects was the dearest part of it: a text of 71
-- bytes, on a page of its own. By hash it is a third as large and half as dear.
-- A subject is only ever looked for as a whole.
drop index subject_keys_subject;
create index subject_keys_subject on subject_keys using hash (subject) where wrapped_key is not null;

-- As in 0015. Keys are new but for the retry of a batch whose answer was lost,
-- and `on conflict` writes each twice over.
create or replace function subject_keys_add(
    k_id uuid[], k_subject text[], k_channel text[], k_day date[], k_wrapped bytea[], k_created_at timestamptz[]
) returns void language plpgsql as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    insert into subject_keys (id, subject, channel, day, wrapped_key, created_at)
    select * from unnest(k_id, k_subject, k_channel, k_day, k_wrapped, k_created_at);
exception when unique_violation then
    insert into subject_keys (id, subject, channel, day, wrapped_key, created_at)
    select * from unnest(k_id, k_subject, k_channel, k_day, k_wrapped, k_created_at)
    on conflict do nothing;
end $$;
