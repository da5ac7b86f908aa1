//! Work that Ctrl-C, TERM or a time limit can end at any moment.
//!
//! The work runs on its own thread and the main thread waits for whichever comes first, so that
//! no request has to be taken back: at the end of the process it is simply gone.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::Poll;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, exit};

/// Longest time limit: far enough in the future that adding it to a clock is safe.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How the work came to its end.
pub(crate) enum Ended<T> {
    /// By itself.
    Done(T),
    /// By a signal.
    Interrupted,
    /// By the time limit.
    TimedOut,
}

enum Happening<T> {
    Done(T),
    Signal,
    Broken,
}

/// Runs the work until it is done, a signal comes, or `limit` is over.
///
/// # Errors
/// When threads or signal handlers cannot be made, or the work panicked.
pub(crate) fn guarded<T: Send + 'static>(
    limit: Option<Duration>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Ended<T>, Error> {
    let (sender, receiver) = mpsc::channel();
    let signals = sender.clone();
    watch(move |count| {
        // The second signal, or one while everything is being put away: somebody is in a hurry.
        if count > 1 || signals.send(Happening::Signal).is_err() {
            std::process::exit(i32::from(exit::INTERRUPTED));
        }
    })?;
    std::thread::Builder::new()
        .name("work".to_owned())
        .spawn(move || {
            let notice = Notice(sender);
            let value = work();
            // The receiver is gone only when the process is ending anyway.
            let _ = notice.0.send(Happening::Done(value));
        })
        .map_err(|error| Error::io("cannot start a thread", error))?;
    match receiver.recv_timeout(limit.unwrap_or(FOREVER).min(FOREVER)) {
        Ok(Happening::Done(value)) => Ok(Ended::Done(value)),
        Ok(Happening::Signal) => Ok(Ended::Interrupted),
        Err(RecvTimeoutError::Timeout) => Ok(Ended::TimedOut),
        Ok(Happening::Broken) | Err(RecvTimeoutError::Disconnected) => {
            Err(Error::Embedded("this program has a fault; please report what is said above".to_owned()))
        }
    }
}

/// Tells the main thread when the work panics.
struct Notice<T>(mpsc::Sender<Happening<T>>);

impl<T> Drop for Notice<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Happening::Broken);
        }
    }
}

/// Calls `tell` at each INT or TERM, with how many there have been.
pub(crate) fn watch(tell: impl Fn(u32) + Send + 'static) -> Result<(), Error> {
    let mut count = 0_u32;
    watch_for(&[SignalKind::interrupt(), SignalKind::terminate()], move |_| {
        count = count.saturating_add(1);
        tell(count);
    })
}

/// Calls `tell` at each of these signals.
pub(crate) fn watch_for(
    kinds: &[SignalKind],
    mut tell: impl FnMut(SignalKind) + Send + 'static,
) -> Result<(), Error> {
    let fault = |error| Error::io("cannot watch for signals", error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fault)?;
    let guard = runtime.enter();
    let signals = kinds.iter().map(|kind| Ok((*kind, signal(*kind)?))).collect::<std::io::Result<Vec<_>>>();
    let mut signals = signals.map_err(fault)?;
    drop(guard);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                loop {
                    let come = std::future::poll_fn(|cx| {
                        let come = signals
                            .iter_mut()
                            .find_map(|(kind, signal)| signal.poll_recv(cx).is_ready().then_some(*kind));
                        come.map_or(Poll::Pending, Poll::Ready)
                    });
                    tell(come.await);
                }
            });
        })
        .map_err(fault)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_or_out_of_time() {
        let done = guarded(None, || 5).expect("threads");
        assert!(matches!(done, Ended::Done(5)));
        let (_sender, receiver) = mpsc::channel::<()>();
        let late = guarded(Some(Duration::from_millis(10)), move || receiver.recv()).expect("threads");
        assert!(matches!(late, Ended::TimedOut));
    }

    #[test]
    fn a_fault_in_the_work_is_an_error() {
        assert!(guarded(None, || panic!("on purpose")).is_err());
    }
}
