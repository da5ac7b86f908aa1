//! The actors of AgentFlow's master.
//!
//! Owns: the actor system around the kernel, the order in which decisions become durable, and the
//! conversations with workers and subscribers. Must not know: HTTP, SQL, the wire.
//!
//! ```text
//!  arbiter "schedule"                                        arbiter "store"
//!  ┌────────────────────────────────────────────┐   Persist   ┌──────────┐
//!  │ Dispatcher ─┐                              │ ──────────► │  Store   │── diesel
//!  │ Registry ───┼─► Scheduler (Kernel, replies)│ ◄────────── │          │
//!  │ Session… ───┤      by Rc                   │  Committed  └────┬─────┘
//!  │ Task…, Run… │                              │                  │ Publish
//!  │ Lock… ──────┘                              │                  │
//!  └────────────────────────────────────────────┘            ┌─────▼────┐
//!                                                            │ EventHub │ arbiter "events"
//!        arbiter "janitor": Janitor (WAL checkpoints, retention)
//! ```
//!
//! All that decides lives on one arbiter and shares the kernel, so that no decision spans threads.
//! What leaves that arbiter is a message.

mod clock;
mod dispatcher;
mod hub;
mod janitor;
mod lock;
mod registry;
mod run;
mod scheduler;
mod session;
mod store;
mod supervise;
mod system;
mod task;
mod values;

pub use clock::wall;
pub use dispatcher::{Ask, Dispatcher};
pub use hub::{EventHub, HubClosed, Next, Recent, Segment, WaitSettled};
pub use lock::{AskLock, Granted};
pub use registry::{Connect, Refused, WorkerRegistry};
pub use session::{FromDoor, Gone, ToDoor, WorkerSession};
pub use store::{PrunedLogs, StoreHealth};
pub use supervise::Fatal;
pub use system::{MasterHandles, MasterSystem, OfficeInfo, Settings, StartError};
pub use task::{GetProgress, Progress, ProgressOf};
