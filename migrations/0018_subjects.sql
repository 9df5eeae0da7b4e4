-- What is held of a person is found by their number in every table that has
-- it: in these two by no other way. Neither is on the path of a webhook.
create index batch_recipients_phone on batch_recipients (phone_number) where phone_number is not null;
create index call_attempts_phone on call_attempts (phone_number) where phone_number is not null;
