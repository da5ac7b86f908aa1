//! Databases that tests make and drop.
//!
//! PostgreSQL is found through `AGENTFLOW_TEST_DATABASE_URL` (a server in which databases may be
//! made), or else on `127.0.0.1:5432`.
