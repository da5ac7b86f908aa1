//! Blobs in PostgreSQL: a row that says since when, and the bytes in pieces.
//!
//! The first row is written first and holds its lock until the commit, so that a sweep and the same
//! bytes coming again wait for each other.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use agentflow_core::blob::{BlobHash, BlobRef};
use agentflow_core::time::Wall;
use diesel::PgConnection;
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool, PooledConnection};
use diesel::sql_types::{BigInt, Binary};

use super::{Meter, PutError, fill};
use crate::columns::{big, unsigned};
use crate::error::{Error, Kind};
use crate::tables::{blob_chunks, blobs};

/// Bytes of one piece: small beside what a connection buffers, large beside a round trip.
const CHUNK_BYTES: usize = 1 << 20;

/// Connections: bytes come and go beside each other, and none of them is the writer's.
const CONNECTIONS: u32 = 4;

/// How long one waits for a connection: the largest blob on a slow network.
const CHECKOUT: Duration = Duration::from_secs(60);

/// Blobs removed at once.
const SWEEP: i64 = 100;

type Connections = Pool<ConnectionManager<PgConnection>>;

pub(super) struct Rows {
    connections: Connections,
}

impl Rows {
    pub(super) fn open(url: &str) -> Result<Self, Error> {
        let connections = Pool::builder()
            .max_size(CONNECTIONS)
            .min_idle(Some(0))
            .connection_timeout(CHECKOUT)
            .build(ConnectionManager::new(url))
            .map_err(no_connection)?;
        Ok(Self { connections })
    }

    pub(super) fn put(
        &self,
        sha256: BlobHash,
        limit: u64,
        source: &mut dyn Read,
        now: Wall,
    ) -> Result<BlobRef, PutError> {
        let connection = &mut *checkout(&self.connections)?;
        // What failed is rolled back with the transaction, and told after it.
        let mut failure = None;
        let done = connection.transaction(|connection| {
            put(connection, sha256, limit, source, now).map_err(|error| {
                failure = Some(error);
                diesel::result::Error::RollbackTransaction
            })
        });
        match (done, failure) {
            (Ok(named), _) => Ok(named),
            (Err(_), Some(failure)) => Err(failure),
            (Err(error), None) => Err(Error::from(error).into()),
        }
    }

    pub(super) fn read(&self, sha256: &BlobHash) -> Result<Option<Reader>, Error> {
        let bytes: Option<i64> = blobs::table
            .find(sha256.0.to_vec())
            .select(blobs::bytes)
            .first(&mut *checkout(&self.connections)?)
            .optional()?;
        let Some(bytes) = bytes else { return Ok(None) };
        let connections = self.connections.clone();
        Ok(Some(Reader {
            connections,
            sha256: *sha256,
            bytes: unsigned(bytes)?,
            next: 0,
            piece: Arc::default(),
            at: 0,
        }))
    }

    pub(super) fn sweep(&self, before: Wall) -> Result<usize, Error> {
        let connection = &mut *checkout(&self.connections)?;
        connection.transaction(|connection| {
            let gone: Vec<Hash> = diesel::sql_query(
                "DELETE FROM blobs WHERE sha256 IN (SELECT sha256 FROM blobs \
                 WHERE stored_at < $1 \
                 AND NOT EXISTS (SELECT 1 FROM task_blobs WHERE task_blobs.sha256 = blobs.sha256) \
                 AND NOT EXISTS (SELECT 1 FROM spec_blobs WHERE spec_blobs.sha256 = blobs.sha256) \
                 AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE checkpoints.sha256 = blobs.sha256) \
                 LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING sha256",
            )
            .bind::<BigInt, _>(before.0)
            .bind::<BigInt, _>(SWEEP)
            .load(connection)?;
            for row in &gone {
                diesel::delete(blob_chunks::table.filter(blob_chunks::sha256.eq(&row.sha256)))
                    .execute(connection)?;
            }
            Ok(gone.len())
        })
    }
}

#[derive(QueryableByName)]
struct Hash {
    #[diesel(sql_type = Binary)]
    sha256: Vec<u8>,
}

fn put(
    connection: &mut PgConnection,
    sha256: BlobHash,
    limit: u64,
    source: &mut dyn Read,
    now: Wall,
) -> Result<BlobRef, PutError> {
    let failed = |error| PutError::Store(Error::from(error));
    let key = sha256.0.to_vec();
    diesel::insert_into(blobs::table)
        .values((blobs::sha256.eq(&key), blobs::bytes.eq(0), blobs::stored_at.eq(now.0)))
        .on_conflict(blobs::sha256)
        .do_update()
        .set(blobs::stored_at.eq(now.0))
        .execute(connection)
        .map_err(failed)?;
    let mut meter = Meter::new(limit);
    let mut buffer = vec![0; CHUNK_BYTES];
    for chunk in 0_i32.. {
        let count = fill(source, &mut buffer)?;
        if count == 0 {
            break;
        }
        meter.pass(&buffer[..count])?;
        diesel::insert_into(blob_chunks::table)
            .values((
                blob_chunks::sha256.eq(&key),
                blob_chunks::chunk.eq(chunk),
                blob_chunks::body.eq(&buffer[..count]),
            ))
            .on_conflict_do_nothing()
            .execute(connection)
            .map_err(failed)?;
    }
    let named = meter.end(sha256)?;
    diesel::update(blobs::table.find(&key))
        .set(blobs::bytes.eq(big(named.bytes)))
        .execute(connection)
        .map_err(failed)?;
    Ok(named)
}

/// Reads piece by piece; between two of them it holds no connection.
pub(super) struct Reader {
    connections: Connections,
    sha256: BlobHash,
    bytes: u64,
    next: i32,
    piece: Arc<[u8]>,
    at: usize,
}

impl Reader {
    pub(super) fn size(&self) -> u64 {
        self.bytes
    }

    fn load(&mut self) -> Result<bool, Error> {
        let body: Option<Vec<u8>> = blob_chunks::table
            .find((self.sha256.0.to_vec(), self.next))
            .select(blob_chunks::body)
            .first(&mut *checkout(&self.connections)?)
            .optional()?;
        let Some(body) = body else { return Ok(false) };
        self.next += 1;
        self.piece = body.into();
        self.at = 0;
        Ok(true)
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && !self.load().map_err(io::Error::other)? {
            return Ok(0);
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn checkout(connections: &Connections) -> Result<PooledConnection<ConnectionManager<PgConnection>>, Error> {
    connections.get().map_err(no_connection)
}

fn no_connection(error: diesel::r2d2::PoolError) -> Error {
    Error::with_source(Kind::Unreachable, "no connection for blobs", error)
}
