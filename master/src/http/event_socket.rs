//! The WebSocket for dashboards: events against credit.
//!
//! ```text
//!   client == {"subscribe": {"after": 7, "credit": 1000}} ==> EventSocket -- Next --> EventHub
//!   client <== {"events": […]} ============================== EventSocket
//!   client == {"credit": 500} ==============================>
//!   client <== {"gap": {"from": 8, "to": 99}} ===============
//! ```
//!
//! Never more events are under way than the client has given credit for, so that a slow one costs
//! nothing but its own delay.

use std::time::Duration;

use actix::Message;
use actix_web::web;
use agentflow_core::ids::Seq;
use agentflow_core::limits;
use agentflow_protocol::api::EventView;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::events::{Gap, Step, Subscription};
use crate::door::{Code, Conversation, Wire};
use crate::state::Master;
use crate::stopping::Listener;

/// How long a new peer may be silent.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// How often an idle socket is pinged.
const PING: Duration = Duration::from_secs(20);

/// Most events that a client may be owed: a thousand pages.
const CREDIT: u64 = 1_000 * limits::PAGE as u64;

/// Events in one frame: about 64 KiB.
const EVENTS_PER_FRAME: usize = 500;

/// What a client says.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum FromClient {
    Subscribe(Subscribe),
    Credit(u64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    #[serde(default)]
    after: u64,
    credit: u64,
}

/// What a client hears.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum ToClient {
    Events(Vec<EventView>),
    Gap(Gap),
}

/// Nobody tells it anything: it asks.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum Told {}

/// One dashboard's socket.
pub(crate) struct EventSocket {
    master: web::Data<Master>,
    listener: Listener,
    credit: u64,
    /// Away while it waits for events.
    subscription: Option<Subscription>,
    /// Counts subscriptions, so that what an earlier one was waiting for is not sent.
    generation: u64,
}

impl EventSocket {
    pub(crate) fn new(master: web::Data<Master>) -> Self {
        let listener = master.stopping.listen();
        Self { master, listener, credit: 0, subscription: None, generation: 0 }
    }

    /// Asks for the next events if the client has credit and nothing is asked for already.
    fn go_on(&mut self, wire: &mut Wire<'_, Self>) {
        if self.credit == 0 {
            return;
        }
        let Some(mut subscription) = self.subscription.take() else { return };
        let limit = usize::try_from(self.credit).unwrap_or(usize::MAX).min(EVENTS_PER_FRAME);
        let generation = self.generation;
        let next = async move {
            let step = subscription.next(limit).await;
            (subscription, step)
        };
        wire.when(next, move |socket, (subscription, step), wire| {
            if socket.generation != generation {
                return;
            }
            match step {
                Ok(step) => {
                    socket.subscription = Some(subscription);
                    socket.deliver(step, wire);
                    socket.go_on(wire);
                }
                Err(failure) => wire.close(Code::Again, &failure.to_string()),
            }
        });
    }

    fn deliver(&mut self, step: Step, wire: &mut Wire<'_, Self>) {
        let message = match step {
            Step::Events(events) => {
                self.credit = self.credit.saturating_sub(events.len() as u64);
                ToClient::Events(events)
            }
            Step::Gap(gap) => ToClient::Gap(gap),
        };
        match serde_json::to_string(&message) {
            Ok(text) => wire.send(text),
            Err(error) => {
                log::error!("events have no text: {error}");
                wire.close(Code::Protocol, "the events cannot be written");
            }
        }
    }
}

impl Conversation for EventSocket {
    type Told = Told;

    fn opened(&mut self, wire: &mut Wire<'_, Self>) {
        wire.after(FIRST_WORD, |socket, wire| {
            if socket.generation == 0 {
                wire.close(Code::Policy, "no subscription came within 5 s");
            }
        });
        wire.every(PING, |_, wire| wire.ping());
        wire.when(self.listener.clone().begun(), |_, (), wire| {
            wire.close(Code::Restart, "the master is stopping");
        });
    }

    fn text(&mut self, text: &str, wire: &mut Wire<'_, Self>) {
        match serde_json::from_str(text) {
            Ok(FromClient::Subscribe(Subscribe { after, credit })) => {
                self.generation += 1;
                self.credit = credit.min(CREDIT);
                self.subscription = Some(Subscription::new(&self.master, Seq(after)));
                self.go_on(wire);
            }
            Ok(FromClient::Credit(more)) if self.generation > 0 => {
                self.credit = self.credit.saturating_add(more).min(CREDIT);
                self.go_on(wire);
            }
            Ok(FromClient::Credit(_)) => wire.close(Code::Policy, "subscribe first"),
            Err(error) => {
                let code = if error.is_data() { Code::Unsupported } else { Code::Invalid };
                wire.close(code, &format!("expected subscribe or credit: {error}"));
            }
        }
    }

    fn binary(&mut self, _: Bytes, wire: &mut Wire<'_, Self>) {
        wire.close(Code::Unsupported, "binary frames are not taken");
    }

    fn told(&mut self, message: Told, _: &mut Wire<'_, Self>) {
        match message {}
    }

    fn closed(&mut self) {}
}
