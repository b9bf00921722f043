CREATE TABLE format (single boolean PRIMARY KEY CHECK (single), version bigint NOT NULL);

-- Other tables have the number of an experiment: its name would be in each row and each entry of an index.
CREATE TABLE experiments (number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                          name text COLLATE "C" NOT NULL UNIQUE);
CREATE TABLE users (experiment integer NOT NULL, user_id bytea NOT NULL, record text NOT NULL,
                    PRIMARY KEY (experiment, user_id));
-- With room on each page, a change needs no new entry in the index.
CREATE TABLE totals (experiment integer NOT NULL, field text COLLATE "C" NOT NULL, value numeric NOT NULL,
                     PRIMARY KEY (experiment, field)) WITH (fillfactor = 50);
CREATE TABLE hours (experiment integer NOT NULL, field text COLLATE "C" NOT NULL, value numeric NOT NULL,
                    PRIMARY KEY (experiment, field)) WITH (fillfactor = 80);
CREATE TABLE epochs (experiment integer NOT NULL, digest text COLLATE "C" NOT NULL, first_ms bigint NOT NULL,
                     definition text NOT NULL, PRIMARY KEY (experiment, digest));
CREATE TABLE applied (experiment integer NOT NULL, journal text COLLATE "C" NOT NULL, through bigint NOT NULL,
                      PRIMARY KEY (experiment, journal)) WITH (fillfactor = 50);
CREATE TABLE waiting (experiment integer NOT NULL, user_id bytea NOT NULL, since_ms bigint NOT NULL,
                      events text NOT NULL, PRIMARY KEY (experiment, user_id));
CREATE INDEX waiting_since ON waiting (experiment, since_ms, user_id);
CREATE TABLE seen_once (experiment integer NOT NULL, user_id bytea NOT NULL, first_ms bigint NOT NULL,
                        bytes bigint NOT NULL, PRIMARY KEY (experiment, user_id));
CREATE INDEX seen_once_first ON seen_once (experiment, first_ms, user_id);
CREATE TABLE identities (experiment integer NOT NULL, user_id bytea NOT NULL, role bytea NOT NULL,
                         PRIMARY KEY (experiment, user_id));
CREATE INDEX identities_role ON identities (experiment, role);
CREATE TABLE identity_counts (experiment integer NOT NULL, name text NOT NULL, count bigint NOT NULL,
                              PRIMARY KEY (experiment, name));
CREATE TABLE event_ids (experiment integer NOT NULL, user_id bytea NOT NULL, id bigint NOT NULL,
                        at_ms bigint NOT NULL, PRIMARY KEY (experiment, user_id, id));
CREATE INDEX event_ids_at ON event_ids (experiment, at_ms);
CREATE TABLE event_counts (experiment integer NOT NULL, name text NOT NULL, count bigint NOT NULL,
                           PRIMARY KEY (experiment, name));
CREATE TABLE forgotten (experiment integer NOT NULL, entry text COLLATE "C" NOT NULL, until_ms bigint NOT NULL,
                        PRIMARY KEY (experiment, entry));
CREATE TABLE lowest (experiment integer NOT NULL, field text COLLATE "C" NOT NULL, value double precision NOT NULL,
                     at_ms bigint, PRIMARY KEY (experiment, field));
CREATE TABLE first (experiment integer NOT NULL, field text COLLATE "C" NOT NULL, value text NOT NULL,
                    PRIMARY KEY (experiment, field));

CREATE TABLE dropped (journal text PRIMARY KEY, count bigint NOT NULL);
CREATE TABLE damaged (journal text PRIMARY KEY, count bigint NOT NULL);
CREATE TABLE replicas (id text COLLATE "C" PRIMARY KEY, definition text NOT NULL, seen_ms bigint NOT NULL,
                       version text NOT NULL);
CREATE TABLE controls (experiment text PRIMARY KEY, at_ms bigint NOT NULL, control text NOT NULL);
CREATE TABLE definitions (experiment text PRIMARY KEY, definition text NOT NULL);
CREATE TABLE acts (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, act text NOT NULL);
CREATE TABLE loaded_files (number bigint PRIMARY KEY, entry text NOT NULL, content text NOT NULL);
CREATE TABLE secrets (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, secret text NOT NULL UNIQUE);
CREATE TABLE ended_sessions (nonce text COLLATE "C" PRIMARY KEY, until_s bigint NOT NULL);
CREATE TABLE messages (entry text COLLATE "C" PRIMARY KEY, message text NOT NULL, due_ms bigint NOT NULL,
                       taken_by text);
CREATE INDEX messages_due ON messages (due_ms);
CREATE TABLE reported (event text COLLATE "C" PRIMARY KEY, at_ms bigint NOT NULL);
CREATE INDEX reported_at ON reported (at_ms);
CREATE TABLE acme (name text PRIMARY KEY, text text NOT NULL);
CREATE TABLE acme_lease (single boolean PRIMARY KEY DEFAULT true CHECK (single), owner text NOT NULL,
                         until_ms bigint NOT NULL);

-- The numbers and bytes of entries that are limited. Triggers keep them, once for each statement.
CREATE TABLE sizes (experiment integer NOT NULL, kind text NOT NULL, entries bigint NOT NULL, bytes bigint NOT NULL,
                    PRIMARY KEY (experiment, kind)) WITH (fillfactor = 50);
CREATE FUNCTION add_waiting() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO sizes
    SELECT experiment, 'waiting', count(*), sum(150 + 2 * octet_length(user_id) + octet_length(events))
    FROM added GROUP BY experiment
  ON CONFLICT (experiment, kind) DO UPDATE
    SET entries = sizes.entries + excluded.entries, bytes = sizes.bytes + excluded.bytes;
  RETURN NULL;
END $$;
CREATE FUNCTION remove_waiting() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE sizes SET entries = sizes.entries - gone.entries, bytes = sizes.bytes - gone.bytes
    FROM (SELECT experiment, count(*) AS entries,
            sum(150 + 2 * octet_length(user_id) + octet_length(events)) AS bytes
          FROM removed GROUP BY experiment) AS gone
    WHERE sizes.experiment = gone.experiment AND sizes.kind = 'waiting';
  RETURN NULL;
END $$;
CREATE TRIGGER waiting_added AFTER INSERT ON waiting REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION add_waiting();
CREATE TRIGGER waiting_removed AFTER DELETE ON waiting REFERENCING OLD TABLE AS removed
  FOR EACH STATEMENT EXECUTE FUNCTION remove_waiting();
CREATE TRIGGER waiting_came AFTER UPDATE ON waiting REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION add_waiting();
CREATE TRIGGER waiting_went AFTER UPDATE ON waiting REFERENCING OLD TABLE AS removed
  FOR EACH STATEMENT EXECUTE FUNCTION remove_waiting();
CREATE FUNCTION add_seen_once() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO sizes SELECT experiment, 'seen_once', count(*), sum(bytes) FROM added GROUP BY experiment
  ON CONFLICT (experiment, kind) DO UPDATE
    SET entries = sizes.entries + excluded.entries, bytes = sizes.bytes + excluded.bytes;
  RETURN NULL;
END $$;
CREATE FUNCTION remove_seen_once() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE sizes SET entries = sizes.entries - gone.entries, bytes = sizes.bytes - gone.bytes
    FROM (SELECT experiment, count(*) AS entries, sum(bytes) AS bytes FROM removed GROUP BY experiment) AS gone
    WHERE sizes.experiment = gone.experiment AND sizes.kind = 'seen_once';
  RETURN NULL;
END $$;
CREATE TRIGGER seen_once_added AFTER INSERT ON seen_once REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION add_seen_once();
CREATE TRIGGER seen_once_removed AFTER DELETE ON seen_once REFERENCING OLD TABLE AS removed
  FOR EACH STATEMENT EXECUTE FUNCTION remove_seen_once();
CREATE TRIGGER seen_once_came AFTER UPDATE ON seen_once REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION add_seen_once();
CREATE TRIGGER seen_once_went AFTER UPDATE ON seen_once REFERENCING OLD TABLE AS removed
  FOR EACH STATEMENT EXECUTE FUNCTION remove_seen_once();
