//! `lock`, `unlock` and `locks`: who may change which files of a repository, and until when.

mod ask;
mod breaking;
mod fate;
mod give_back;
mod ground;
mod hold;
mod list;
mod program;
mod standing;
mod take;
mod watch;
mod words;

use super::connect;
use crate::args::{Global, Lock, LockAct, Locks, Unlock};
use crate::error::Error;
use crate::output::Output;

pub(super) fn lock(lock: &Lock, global: &Global, output: Output) -> Result<u8, Error> {
    match &lock.act {
        None => take::take(lock, global, output),
        Some(_) if lock.is_for_taking() => {
            let text =
                "what comes before status or break is for taking a lock; a file of that name is ./status";
            Err(Error::Usage(text.to_owned()))
        }
        Some(LockAct::Status(status)) => standing::status(status, &connect(global)?, output),
        Some(LockAct::Break(act)) => breaking::break_lock(act, &connect(global)?, output),
    }
}

pub(super) fn unlock(unlock: &Unlock, global: &Global, output: Output) -> Result<u8, Error> {
    give_back::unlock(unlock, global, output)
}

pub(super) fn locks(locks: Locks, global: &Global, output: Output) -> Result<u8, Error> {
    list::locks(locks, connect(global)?, output)
}
