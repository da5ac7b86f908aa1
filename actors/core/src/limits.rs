//! Every bound of the system, each with the reason for its size.

/// Tasks in one submission. 10,000 tasks of 3 KiB fill the 32 MiB body limit, and one such step
/// holds the scheduling arbiter for about 20 ms.
pub const TASKS_PER_SUBMISSION: usize = 10_000;

/// Bytes of a request body on tasks, runs and checkpoints: a full submission, or a checkpoint of
/// 16 MiB in base64.
pub const LARGE_BODY_BYTES: usize = 32 << 20;

/// Bytes of any other request body.
pub const BODY_BYTES: usize = 1 << 20;

/// Tasks that are not settled, at once. 300 bytes each are 3 GB at the limit; past it a
/// submission gets 429.
pub const LIVE_TASKS: usize = 10_000_000;

/// Nodes of one run, those of its children not included.
pub const NODES: usize = agentflow_workflow::limits::NODES;

/// Items of one `foreach`.
pub const ITEMS: usize = agentflow_workflow::limits::ITEMS;

/// Runs that have not ended, at once. A small one takes a few kilobytes.
pub const LIVE_RUNS: usize = 100_000;

/// Live tasks that wait for others or are waited for; 150 bytes each beside the task.
pub const RELATED_TASKS: usize = 1_000_000;

/// Bytes of what a `foreach` collects in all, and of what the nodes of a child put out together: one
/// value, which is hashed in the kernel's turn.
pub const COLLECTED_BYTES: usize = 64 << 20;

/// Schedules.
pub const SCHEDULES: usize = 10_000;

/// Missed times that a schedule makes up for one by one.
pub const CATCH_UP: usize = 100;

/// How late a time may be and still count as met: a master that was busy, not away.
pub const SCHEDULE_GRACE_MS: u64 = 60_000;

/// Concurrency keys that are configured, held or wanted at once.
pub const KEYS: usize = 100_000;

/// Concurrency keys of one task: each is looked at whenever it might begin.
pub const KEYS_PER_TASK: usize = 16;

/// Attempts that may hold one key, and that may begin within its rate.
pub const KEY_LIMIT: u32 = 100_000;

/// Predecessors that a task may name when it is made.
pub const NEEDS: usize = 1_000;

/// Entries of one page of any listing: about 1 MiB of JSON.
pub const PAGE: usize = 1_000;

/// Bytes of a specification's JSON. A frame of 1 MiB must be able to carry it.
pub const SPEC_BYTES: usize = 512 << 10;

/// Characters of a title: one line of a listing.
pub const TITLE_CHARS: usize = 500;

/// Bytes of a group's, worker's, handler's or label's name: they are index keys.
pub const NAME_BYTES: usize = 128;

/// Labels, groups, resources or environment variables of one thing.
pub const ENTRIES: usize = 256;

/// Bytes of an idempotency key: a UUID four times over.
pub const IDEMPOTENCY_KEY_BYTES: usize = 200;

/// How long the kernel remembers a committed idempotency key. A handler looks into the database
/// before it asks the kernel; between the two at most its own deadline (30 s) passes.
pub const IDEMPOTENCY_MEMORY_MS: u64 = 60_000;

/// Keys so remembered: one minute of 8,000 single submissions a second. Past it a submission with
/// a key gets 429.
pub const IDEMPOTENCY_MEMORY: usize = 500_000;

/// Days for which a key is kept in the database (and as long as its task is not settled).
pub const IDEMPOTENCY_DAYS: u64 = 7;

/// Retries that a task may ask for. Its history names every one of them.
pub const RETRIES: u32 = 1_000;

/// Longest back-off and longest timeout: 30 days.
pub const TIMEOUT_MS: u64 = 30 * 24 * 3_600 * 1_000;

/// How much sooner one point of priority is served: 100 points are 10 minutes of waiting.
pub const PRIORITY_POINT_US: i64 = 6_000_000;

/// Largest priority.
pub const PRIORITY: u8 = 100;

/// Groups and requirement classes alive at once. Each new one costs a pass over the workers.
pub const CLASSES: usize = 100_000;

/// Workers known at once.
pub const WORKERS: usize = 10_000;

/// Slots of one worker.
pub const SLOTS: u32 = 4_096;

/// Attempts handed to one worker beyond its slots; 4,096 assignments of 200 bytes fit one frame.
pub const PREFETCH: u32 = 4_096;

/// Prefetched attempts unless a worker says otherwise, for up to 32 slots: fewer, and a worker of
/// short tasks waits for the master between them; more, and more waits for a lease when a worker
/// is lost.
pub const PREFETCH_DEFAULT: u32 = 64;

/// Heartbeats are sent this often.
pub const HEARTBEAT_MS: u64 = 2_000;

/// A lease lasts this long after the last sign of life: five heartbeats.
pub const LEASE_MS: u64 = 10_000;

/// The master waits this much longer than the lease before it gives an attempt away, so that the
/// worker, whose clock started earlier, has stopped first: it kills without grace. Less than a second,
/// so that within one the next attempt has begun.
pub const LEASE_MARGIN_MS: u64 = 800;

/// How long prefetched tasks stay where they are once another worker is idle. Shorter, and
/// workers that finish within a millisecond of each other would trade tasks for nothing.
pub const REBALANCE_MS: u64 = 10;

/// Bytes of a result: the tail of an attempt's output that travels in its report and row.
pub const RESULT_BYTES: usize = 64 << 10;

/// Bytes of outputs that travel in a report and row; larger ones are kept by their hash.
pub const OUTPUTS_BYTES: usize = 64 << 10;

/// Bytes of an input that travels in a specification; a larger one is kept by its hash.
pub const INPUT_BYTES: usize = 64 << 10;

/// Bytes of one value that is kept by its hash: outputs, result or input. Workers hold one in memory
/// for each slot while they write it.
pub const VALUE_BYTES: u64 = 64 << 20;

/// Bytes of outputs or a result that expressions can read. Larger ones can be handed on whole: they
/// would take ten times as much as values in the master's memory, and most of a second to read.
pub const READABLE_BYTES: u64 = 4 << 20;

/// Bytes of all values above [`OUTPUTS_BYTES`] that runs hold for their expressions at once, as text.
pub const HELD_BYTES: u64 = 256 << 20;

/// Bytes of one checkpoint. What is larger is an artifact, which the checkpoint names by its hash.
pub const CHECKPOINT_BYTES: u64 = 16 << 20;

/// Bytes of a checkpoint that travel in a frame and stand in its row; larger ones are kept by their
/// hash.
pub const CHECKPOINT_ROW_BYTES: usize = 64 << 10;

/// Checkpoints of a task that are kept unless it says otherwise, and at most.
pub const CHECKPOINTS_KEPT: u32 = 5;

/// See [`CHECKPOINTS_KEPT`]. Of live tasks the master holds 32 bytes for each.
pub const CHECKPOINTS_KEPT_MOST: u32 = 1_000;

/// What running attempts may have asked of their master and not yet heard of, for one worker: at
/// 64 KiB each these are 64 MiB.
pub const ASKS: usize = 1_000;

/// Entries of the memory of one task or run.
pub const MEMORY_ENTRIES: usize = 100;

/// Bytes of the memory of one task or run: names and values.
pub const MEMORY_BYTES: usize = 1 << 20;

/// Bytes of one value in a memory, as JSON: within a frame it may be twice as long.
pub const MEMORY_VALUE_BYTES: usize = 256 << 10;

/// Bytes of the memories of all live tasks and runs, which the master holds.
pub const MEMORIES_BYTES: usize = 256 << 20;

/// Versions of one task that are kept: all of them, so that there can be no more.
pub const VERSIONS: u32 = 10_000;

/// Bytes of one artifact: what a release build leaves.
pub const ARTIFACT_BYTES: u64 = 1 << 30;

/// Files that one attempt may leave: with their paths they must fit into its report.
pub const ARTIFACTS: usize = 1_000;

/// Bytes of the paths of all files of one attempt: a quarter of [`FRAME_BYTES`].
pub const ARTIFACT_PATHS_BYTES: usize = 256 << 10;

/// Paths of one request for locks, of all requests of one batch, and of the locks of one task.
pub const LOCK_PATHS: usize = 10_000;

/// Of these, patterns other than `dir/**`: each is compared with every other one, and with all that are
/// held below the same directory.
pub const LOCK_PATTERNS: usize = 100;

/// Bytes of such a pattern: comparing two of them takes up to their product in steps, 0.1 ms.
pub const PATTERN_BYTES: usize = 256;

/// Requests for locks in one batch.
pub const LOCK_REQUESTS: usize = 1_000;

/// Grants that are held at once, in all repositories; 500 bytes each with one path.
pub const LOCKS: usize = 1_000_000;

/// Paths of all grants that are held at once.
pub const LOCKED_PATHS: usize = 2_000_000;

/// Requests that wait for locks at once, tasks that were passed over for their locks included: a
/// release looks at those that wait for one of its paths.
pub const LOCK_WAITERS: usize = 100_000;

/// Repositories in which something was ever locked. Each keeps its fence for good.
pub const LOCK_SPACES: usize = 100_000;

/// How long a person's lock is held unless it is renewed or says otherwise: half an hour.
pub const LOCK_TTL_MS: u64 = 30 * 60_000;

/// How long a lock that waits for a merge is held after its attempt has ended: a week, so that a change
/// that nobody merges does not lock its files for ever.
pub const MERGE_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// Segments of a path in a repository. Comparing two patterns takes their product.
pub const PATH_SEGMENTS: usize = 64;

/// Characters of the reason for a lock: two lines.
pub const REASON_CHARS: usize = 500;

/// Holders that a refusal names.
pub const HOLDERS_NAMED: usize = 10;

/// Bytes of one artifact's path.
pub const PATH_BYTES: usize = 1_024;

/// Entries of a task's `artifacts` and `artifacts_from`.
pub const ARTIFACT_ENTRIES: usize = 64;

/// Hours for which bytes that nobody names are kept: between their arrival and the report that
/// names them a worker may be cut off.
pub const UNNAMED_BLOB_HOURS: u64 = 24;

/// Bytes of an error text.
pub const ERROR_BYTES: usize = 8 << 10;

/// Bytes of one WebSocket frame.
pub const FRAME_BYTES: usize = 1 << 20;

/// Bytes of log in one frame: small enough that a heartbeat behind it waits under a millisecond.
pub const LOG_FRAME_BYTES: usize = 64 << 10;

/// Unacknowledged log bytes of one attempt on the wire.
pub const LOG_WINDOW_BYTES: usize = 256 << 10;

/// Bytes of output kept of one attempt, half of it head and half tail.
pub const LOG_BYTES: u64 = 16 << 20;

/// Reports in one frame: at 200 bytes each well below [`FRAME_BYTES`].
pub const REPORTS_PER_FRAME: usize = 1_000;

/// Rows after which the store commits what it has gathered.
pub const COMMIT_ROWS: usize = 4_096;

/// Bytes after which the store commits what it has gathered.
pub const COMMIT_BYTES: usize = 4 << 20;

/// Days for which events and settled tasks are kept.
pub const RETENTION_DAYS: u64 = 30;

/// Longest `wait_ms` of a request; more is cut to it.
pub const WAIT_MS: u64 = 600_000;

/// Default time between TERM and KILL.
pub const CANCEL_GRACE_MS: u32 = 5_000;

/// Lost attempts that a task survives unless it says otherwise.
pub const MAX_LOST: u32 = 10;
