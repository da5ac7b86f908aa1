//! `wait`: until tasks are settled.

use std::collections::HashMap;
use std::sync::Arc;

use super::report::{Bar, Work, see_through};
use super::submit::{again_hint, finish};
use crate::args::Wait;
use crate::client::Client;
use crate::error::Error;
use crate::interrupt::guarded;
use crate::output::Output;
use crate::settle::Since;

pub(super) fn wait(wait: Wait, client: Client, output: Output) -> Result<u8, Error> {
    let work = Work { ids: wait.ids.iter().map(|id| id.0).collect(), titles: HashMap::new(), run: None };
    let again = again_hint(&work);
    let client = Arc::new(client);
    let flags = wait.wait;
    let bar = Bar::new(work.ids.len(), output);
    let shown = bar.clone();
    let ended = guarded(wait.timeout, move || see_through(&client, &work, Since::Now, flags, output, &bar))?;
    finish(ended, flags, &shown, &again)
}
