//! The versions of the file's tables.

/// The `user_version` of this version.
pub(super) const VERSION: i64 = 15;

/// The statements that migrate a file of each version to the next.
pub(super) const STEPS: [&str; VERSION as usize] = [
    "
CREATE TABLE users   (experiment TEXT NOT NULL, user BLOB NOT NULL, record TEXT NOT NULL,
                      PRIMARY KEY (experiment, user)) WITHOUT ROWID;
CREATE TABLE totals  (experiment TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL,
                      PRIMARY KEY (experiment, field)) WITHOUT ROWID;
CREATE TABLE hours   (experiment TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL,
                      PRIMARY KEY (experiment, field)) WITHOUT ROWID;
CREATE TABLE epochs  (experiment TEXT NOT NULL, digest TEXT NOT NULL, first_ms INTEGER NOT NULL,
                      definition TEXT NOT NULL, PRIMARY KEY (experiment, digest)) WITHOUT ROWID;
CREATE TABLE applied (experiment TEXT NOT NULL, journal TEXT NOT NULL, through INTEGER NOT NULL,
                      PRIMARY KEY (experiment, journal)) WITHOUT ROWID;
",
    "
CREATE TABLE waiting (experiment TEXT NOT NULL, user BLOB NOT NULL, since_ms INTEGER NOT NULL,
                      events TEXT NOT NULL, PRIMARY KEY (experiment, user)) WITHOUT ROWID;
CREATE INDEX waiting_since ON waiting (experiment, since_ms);
CREATE TABLE aliases (experiment TEXT NOT NULL, user BLOB NOT NULL, first BLOB NOT NULL,
                      PRIMARY KEY (experiment, user)) WITHOUT ROWID;
CREATE INDEX aliases_first ON aliases (experiment, first);
CREATE TABLE dropped (journal TEXT NOT NULL PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE replicas (id TEXT NOT NULL PRIMARY KEY, definition TEXT NOT NULL, seen_ms INTEGER NOT NULL,
                       version TEXT NOT NULL) WITHOUT ROWID;
",
    "
CREATE TABLE lowest  (experiment TEXT NOT NULL, field TEXT NOT NULL, value REAL NOT NULL,
                      PRIMARY KEY (experiment, field)) WITHOUT ROWID;
CREATE TABLE first   (experiment TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL,
                      PRIMARY KEY (experiment, field)) WITHOUT ROWID;
",
    "
CREATE TABLE controls (experiment TEXT NOT NULL PRIMARY KEY, at_ms INTEGER NOT NULL,
                       control TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE acts     (number INTEGER PRIMARY KEY AUTOINCREMENT, act TEXT NOT NULL);
",
    "
CREATE TABLE secrets  (number INTEGER PRIMARY KEY AUTOINCREMENT, secret TEXT NOT NULL UNIQUE);
CREATE TABLE ended_sessions (nonce TEXT NOT NULL PRIMARY KEY, until_s INTEGER NOT NULL) WITHOUT ROWID;
",
    "
CREATE TABLE damaged  (journal TEXT NOT NULL PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
",
    "
CREATE TABLE identities      (experiment TEXT NOT NULL, user BLOB NOT NULL, role BLOB NOT NULL,
                              PRIMARY KEY (experiment, user)) WITHOUT ROWID;
CREATE INDEX identities_role ON identities (experiment, role);
CREATE TABLE identity_counts (experiment TEXT NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL,
                              PRIMARY KEY (experiment, name)) WITHOUT ROWID;
",
    "
CREATE TABLE event_ids (experiment TEXT NOT NULL, user BLOB NOT NULL, id INTEGER NOT NULL,
                        at_ms INTEGER NOT NULL, PRIMARY KEY (experiment, user, id)) WITHOUT ROWID;
CREATE INDEX event_ids_at ON event_ids (experiment, at_ms);
CREATE TABLE event_counts (experiment TEXT NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL,
                           PRIMARY KEY (experiment, name)) WITHOUT ROWID;
",
    "
CREATE TABLE waiting_bytes (experiment TEXT NOT NULL PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO waiting_bytes SELECT experiment, sum(150 + 2 * length(user) + length(events)) FROM waiting
                          GROUP BY experiment;
CREATE TRIGGER waiting_added AFTER INSERT ON waiting BEGIN
  INSERT INTO waiting_bytes VALUES (new.experiment, 150 + 2 * length(new.user) + length(new.events))
    ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER waiting_changed AFTER UPDATE ON waiting BEGIN
  UPDATE waiting_bytes SET bytes = bytes + length(new.events) - length(old.events)
    WHERE experiment = new.experiment;
END;
CREATE TRIGGER waiting_removed AFTER DELETE ON waiting BEGIN
  UPDATE waiting_bytes SET bytes = bytes - 150 - 2 * length(old.user) - length(old.events)
    WHERE experiment = old.experiment;
END;
",
    "
CREATE TABLE forgotten (experiment TEXT NOT NULL, user TEXT NOT NULL, until_ms INTEGER NOT NULL,
                        PRIMARY KEY (experiment, user)) WITHOUT ROWID;
",
    "
CREATE TABLE seen_once (experiment TEXT NOT NULL, user BLOB NOT NULL, first_ms INTEGER NOT NULL,
                        bytes INTEGER NOT NULL, PRIMARY KEY (experiment, user)) WITHOUT ROWID;
CREATE INDEX seen_once_first ON seen_once (experiment, first_ms);
CREATE TABLE seen_once_bytes (experiment TEXT NOT NULL PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER seen_once_added AFTER INSERT ON seen_once BEGIN
  INSERT INTO seen_once_bytes VALUES (new.experiment, new.bytes)
    ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER seen_once_changed AFTER UPDATE ON seen_once BEGIN
  UPDATE seen_once_bytes SET bytes = bytes + new.bytes - old.bytes WHERE experiment = new.experiment;
END;
CREATE TRIGGER seen_once_removed AFTER DELETE ON seen_once BEGIN
  UPDATE seen_once_bytes SET bytes = bytes - old.bytes WHERE experiment = old.experiment;
END;
",
    "
CREATE TABLE definitions (experiment TEXT NOT NULL PRIMARY KEY, definition TEXT NOT NULL) WITHOUT ROWID;
",
    "
CREATE TABLE messages (entry TEXT NOT NULL PRIMARY KEY, message TEXT NOT NULL, due_ms INTEGER NOT NULL,
                       taken_by TEXT) WITHOUT ROWID;
CREATE INDEX messages_due ON messages (due_ms);
CREATE TABLE reported (event TEXT NOT NULL PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX reported_at ON reported (at_ms);
",
    "
CREATE TABLE loaded_files (number INTEGER PRIMARY KEY, entry TEXT NOT NULL, content TEXT NOT NULL);
",
    "
CREATE TABLE acme       (name TEXT NOT NULL PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE acme_lease (owner TEXT NOT NULL, until_ms INTEGER NOT NULL);
",
];
